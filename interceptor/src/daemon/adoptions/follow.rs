//! Bringing what the settings adopt under control. What can't be adopted is refused, told, and tried again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::{Adoptions, Held, note_begun, number, same};
use crate::adopt::Found;
use crate::bpf::adopt::{Adopter, Number, State};
use crate::config::{Adopt, Settings, WorkloadSettings};
use crate::daemon::engage::EngageError;
use crate::ids::WorkloadName;
use crate::record::event::What;
use crate::transport::names::Names;
use crate::who::{NOBODY, Workload};

impl Adoptions {
    /// Brings what the settings adopt under control, and lets go of what they don't any more. What an earlier daemon
    /// governed stays so until this has been said.
    ///
    /// # Errors
    /// The hooks can't be loaded: then nothing is adopted, and nothing of it is let out by us. Or some workloads can't be
    /// taken, of which this is the first: they are refused, the others are adopted, and it is tried again.
    pub(in crate::daemon) fn follow(self: &Arc<Self>, settings: &Settings) -> Result<(), EngageError> {
        let mut unmet = self.unmet();
        let followed = self.bring(settings);
        *unmet = followed.as_ref().err().map(ToString::to_string);
        followed
    }

    fn bring(self: &Arc<Self>, settings: &Settings) -> Result<(), EngageError> {
        let wanted: Vec<&Arc<WorkloadSettings>> =
            settings.workloads.iter().filter(|workload| !workload.adopt.is_empty()).collect();
        if wanted.is_empty() && self.adopter.get().is_none() && !Adopter::is_left(&self.parts.paths.pins) {
            // With the hooks went what governed it.
            self.marks.names().iter().for_each(|name| self.marks.give_up(name, |_| true));
            return Ok(());
        }
        let adopter = self.adopter()?;
        let mut held = self.held();
        self.gaze.look_outside(wanted.iter().map(|one| &***one));
        self.unheld.settle(0);
        // First, so that what is made from here on is governed, whatever fails.
        let watched: Vec<_> = wanted.iter().flat_map(|one| crate::adopt::watched(one, number(&one.name))).collect();
        adopter.watch(&watched)?;
        let numbers: BTreeSet<Number> = wanted.iter().map(|one| number(&one.name)).collect();
        // Before they are looked for: of what is made meanwhile nothing is known.
        let missed = adopter.missed().map_or(0, |missed| missed.count());
        let (mut failed, mut are_refused) = (Ok(()), true);
        for (place, one) in wanted.iter().enumerate() {
            let number = number(&one.name);
            match held.get_mut(&number) {
                Some(known) if same(&known.workload.settings, one) => known.place = place,
                _ => {
                    if let Some(before) = held.remove(&number) {
                        self.let_go(&adopter, before, "changed");
                    }
                    match self.take(one, settings, &adopter) {
                        Ok(taken) => {
                            held.insert(number, Held { place, ..taken });
                        }
                        Err(source) => {
                            are_refused &= self.refuse(one, &wanted[..place], &adopter);
                            let workload = one.name.clone();
                            failed = failed.and(Err(EngageError::Adopt { workload, source: Box::new(source) }));
                        }
                    }
                }
            }
        }
        let gone: Vec<Number> = held.keys().copied().filter(|number| !numbers.contains(number)).collect();
        for number in gone {
            if let Some(before) = held.remove(&number) {
                self.let_go(&adopter, before, "released");
                self.gaze.forget(number);
            }
        }
        self.unheld.settle(match (&failed, are_refused) {
            (Ok(()), _) => u64::MAX,
            (Err(_), true) => missed,
            (Err(_), false) => 0,
        });
        drop(held);
        // What another workload has now is that one's before it is let go of here.
        self.look(true);
        let held = self.held();
        self.sweep(&adopter, &held, &numbers);
        // What another one has that couldn't be looked for isn't known to be given up: that is tried again.
        let are_found = held.values().all(|one| !one.is_unfound);
        self.are_still.store(!are_found, Ordering::Relaxed);
        if are_found {
            self.thaw_given_up(&held, &numbers);
        }
        failed
    }

    /// What isn't adopted that is to be, and why: a line each.
    pub(in crate::daemon) fn trouble(&self) -> Vec<String> {
        let unmet = self.unmet().clone();
        let held = self.held();
        let ungoverned = held.values().filter_map(|one| {
            let why = one.ungoverned.as_ref()?;
            Some(format!("a cgroup of `{}` can't be governed: {why}", one.workload.settings.name))
        });
        unmet.into_iter().chain(ungoverned).collect()
    }

    /// Units that are adopted and are where nobody looks for them: workload, unit, cgroup.
    pub(in crate::daemon) fn misplaced(&self) -> Vec<(WorkloadName, String, String)> {
        let mut missing = Vec::new();
        for one in self.held().values() {
            for adopt in &one.workload.settings.adopt {
                if let Adopt::Unit(unit) = adopt
                    && !one.cgroups.values().any(|cgroup| cgroup.path.rsplit('/').next() == Some(unit.as_str()))
                {
                    missing.push((one.workload.settings.name.clone(), unit.clone()));
                }
            }
        }
        let found = missing.into_iter().filter_map(|(name, unit)| {
            let cgroup = self.tree.elsewhere(&unit)?;
            Some((name, unit, cgroup))
        });
        found.collect()
    }

    /// Tries again what couldn't be adopted, by the settings in force.
    pub(super) fn try_again(self: &Arc<Self>) {
        if self.unmet().is_none() && !self.are_still.load(Ordering::Relaxed) {
            return;
        }
        let settings = Arc::clone(&self.parts.pipeline.worlds.borrow().snapshot.settings);
        if let Err(error) = self.follow(&settings) {
            tracing::error!(%error, "workloads still can't be adopted");
        }
    }

    /// Opens the names of a workload, and records that it began if that isn't known to be recorded. If that fails it is tried again.
    pub(super) fn begin(&self, workload: &Workload, is_begun: bool, most: usize) -> Result<Names, EngageError> {
        let names = Names::open(&workload.folder, most)?;
        if is_begun {
            return Ok(names);
        }
        self.parts.journal.record(What::WorkloadStarted {
            launch: workload.id,
            workload: workload.settings.name.clone(),
            initiator: NOBODY,
            loginuid: None,
            uid: NOBODY,
            pid: 0,
            command: crate::adopt::told(&workload.settings),
            containment: "adopted".into(),
        })?;
        if let Err(error) = note_begun(&workload.folder) {
            // The next daemon records it once more.
            tracing::warn!(%error, workload = %workload.settings.name, "that it began can't be noted down");
        }
        Ok(names)
    }

    /// Lets nothing of a workload pass that can't be taken: what can't be refused stands still. Whether that stays so once what
    /// there was no room for counts as known. What a workload `before` it in the configuration has is that one's.
    fn refuse(&self, settings: &WorkloadSettings, before: &[&Arc<WorkloadSettings>], adopter: &Adopter) -> bool {
        let Found { cgroups, unknown } = match self.tree.of(settings) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, workload = %settings.name, "its cgroups can't be looked for");
                return false;
            }
        };
        let mut stays = true;
        for cgroup in cgroups.into_iter().chain(unknown.into_iter().map(|(cgroup, _)| cgroup)) {
            let path = Path::new(&cgroup.path);
            if before.iter().any(|one| self.tree.own(one, path).is_ok_and(|own| own.is_some())) {
                continue;
            }
            let governed = adopter.govern(&cgroup.path, cgroup.id, number(&settings.name), State::Refused);
            let Err(error) = governed else { continue };
            tracing::error!(%error, cgroup = %cgroup.path, "a cgroup can't be refused");
            if self.is_missed(adopter, &cgroup.path, cgroup.id) {
                stays = false;
            } else {
                self.stand_still(settings, &cgroup.path);
            }
        }
        stays
    }

    fn unmet(&self) -> MutexGuard<'_, Option<String>> {
        self.unmet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// How it is listed: what isn't there isn't contained either.
    pub(super) fn told(&self) -> String {
        if self.refused {
            "refused".into()
        } else if self.cgroups.is_empty() && self.unknown.is_empty() {
            "absent".into()
        } else {
            self.level().to_string()
        }
    }
}
