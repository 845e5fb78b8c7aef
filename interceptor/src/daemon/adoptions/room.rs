//! Cgroups of adopted workloads that there is no room for among those that are governed. What is made then the hooks refuse;
//! what was there before stands still.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Adoptions, Held};
use crate::bpf::BpfError;
use crate::bpf::adopt::{Adopter, Missed, Number, State};
use crate::record::event::Change;

/// What is recorded of a workload that stands still.
const WHAT: &str = "a cgroup could not be governed";

/// Up to how many cgroups that there was no room for may count as known without letting out anything of the workloads that are to
/// be held and aren't. None, until the settings were followed once.
#[derive(Debug, Default)]
pub(super) struct Unheld(AtomicU64);

impl Unheld {
    /// Says up to how many. [`u64::MAX`] is that there are no such workloads.
    pub(super) fn settle(&self, up_to: u64) {
        self.0.store(up_to, Ordering::Relaxed);
    }

    /// Whether as many may count as known.
    pub(super) fn covers(&self, count: u64) -> bool {
        count <= self.0.load(Ordering::Relaxed)
    }
}

impl Adoptions {
    /// Notes that a cgroup of a workload's, with this path and id, can't be governed.
    pub(super) fn note_ungoverned(&self, adopter: &Adopter, one: &mut Held, path: &str, id: u64, error: &BpfError) {
        if !self.is_missed(adopter, path, id) {
            one.is_loose = true;
            one.loose.insert(path.to_owned());
        }
        one.ungoverned = Some(format!("`{path}`: {error}"));
    }

    /// Whether a cgroup with this path and id, which isn't governed, is refused because there was no room when it was made.
    pub(super) fn is_missed(&self, adopter: &Adopter, path: &str, id: u64) -> bool {
        let id_of = |above: &str| fs::metadata(self.tree.folder(above)).ok().map(|found| found.ino());
        adopter.missed().is_ok_and(|now| now.refuses(path, id, id_of))
    }

    /// Has a workload stand still as long as it has a cgroup that is neither governed nor refused.
    pub(super) fn keep_still(&self, one: &mut Held) {
        let Some(why) = one.ungoverned.clone().filter(|_| one.is_loose) else { return };
        self.freeze_found(one);
        let standing = one.standing.get_or_insert_default();
        let (is_new, is_stuck) = (standing.add(WHAT), standing.is_newly_stuck(&why));
        if is_new {
            self.tell(one, Change::Detached { what: WHAT.into() });
        }
        if is_stuck {
            self.tell(one, Change::Broken { what: format!("{WHAT}: {why}") });
        }
    }

    /// Says that the cgroups are governed now that there was no room for when they were made, if all are that are to be.
    /// `missed` and `governed` are from before they were looked for.
    pub(super) fn catch_up(
        &self,
        adopter: &Adopter,
        missed: Option<&Missed>,
        governed: &BTreeMap<u64, (Number, State)>,
        held: &BTreeMap<Number, Held>,
    ) {
        let Some(missed) = missed.filter(|missed| missed.is_open()) else { return };
        let is_whole = |one: &Held| one.ungoverned.is_none() && one.unknown.keys().all(|id| governed.contains_key(id));
        if !self.unheld.covers(missed.count()) || !held.values().all(is_whole) {
            return;
        }
        match adopter.catch_up(missed) {
            Ok(()) => tracing::warn!("there was no room for cgroups when they were made; they are governed now"),
            Err(error) => tracing::error!(%error, "what was made in between stays refused"),
        }
    }
}

#[cfg(test)]
mod tests;
