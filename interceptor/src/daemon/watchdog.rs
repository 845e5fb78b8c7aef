//! Sees every second that the hooks and the steering of launched workloads are attached. Where they aren't, those that they are for
//! stand still until they are again. Adopted workloads are watched by the thread that looks at them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::launches::Launches;
use crate::ids::{LaunchId, WorkloadName};
use crate::record::event::{Adoption, Change, What};
use crate::who::Workload;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Watches as long as the daemon runs.
pub(super) async fn keep(launches: Arc<Launches>) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let launches = Arc::clone(&launches);
        if let Err(error) = tokio::task::spawn_blocking(move || launches.watch_over()).await {
            tracing::error!(%error, "the hooks can't be watched");
        }
    }
}

/// What is wrong with a workload that stands still because of us.
#[derive(Debug, Default)]
pub(super) struct Standing {
    what: String,
    /// Why it can't be put right, as far as that was tried.
    why: Option<String>,
}

/// The launched workloads that stand still.
pub(super) type Still = BTreeMap<LaunchId, Standing>;

impl Standing {
    /// Notes what is wrong; whether it is news.
    pub(super) fn add(&mut self, what: &str) -> bool {
        if self.what.contains(what) {
            return false;
        }
        if !self.what.is_empty() {
            self.what.push_str("; ");
        }
        self.what.push_str(what);
        true
    }

    /// Notes why it can't be put right; whether that it can't is news.
    pub(super) fn is_newly_stuck(&mut self, why: &str) -> bool {
        self.why.replace(why.to_owned()).is_none()
    }

    /// What was wrong.
    pub(super) fn into_what(self) -> String {
        self.what
    }

    /// What is wrong and why it can't be put right; none if that wasn't found.
    pub(super) fn trouble(&self) -> Option<String> {
        self.why.as_ref().map(|why| format!("{}, and that can't be put right: {why}", self.what))
    }
}

impl Launches {
    fn watch_over(&self) {
        let workloads = self.workloads();
        let mut still = self.still();
        still.retain(|launch, _| self.lives(*launch));
        if workloads.is_empty() {
            return;
        }
        let kernel = self.kernel();
        let missing = kernel.missing();
        if !missing.is_empty() {
            let what = format!("the hooks {} were gone", missing.join(", "));
            let repair = || kernel.repair(self.parent()).map_err(|error| error.to_string());
            self.put_right(&mut still, &workloads, &what, repair);
        }
        let are_hooked = missing.is_empty() || kernel.missing().is_empty();
        for workload in workloads {
            // What has ended in between isn't steered any more, and lives no more.
            if !kernel.is_steered(workload.id) && self.lives(workload.id) {
                let again = || {
                    let netns =
                        File::open(format!("/proc/{}/ns/net", workload.init)).map_err(|error| error.to_string())?;
                    kernel.steer_again(workload.id, netns.as_fd()).map_err(|error| error.to_string())
                };
                self.put_right(&mut still, std::slice::from_ref(&workload), "its steering was gone", again);
            }
            // By what is there and not by what a repair said: one that failed may have put back all that was missing.
            if are_hooked
                && kernel.is_steered(workload.id)
                && let Some(standing) = still.remove(&workload.id)
            {
                self.tell(&workload, Change::Repaired { what: standing.into_what() });
                freeze(&workload, false);
            }
        }
    }

    /// Does what puts it right while these stand still. That it is gone is recorded before anything is tried. What can't be put
    /// right stays still, and that is recorded as well.
    fn put_right(
        &self,
        still: &mut Still,
        workloads: &[Arc<Workload>],
        what: &str,
        repair: impl FnOnce() -> Result<(), String>,
    ) {
        tracing::error!(what, "launched workloads are frozen until that is put right");
        for workload in workloads {
            freeze(workload, true);
            if still.entry(workload.id).or_default().add(what) {
                self.tell(workload, Change::Detached { what: what.to_owned() });
            }
        }
        let Err(why) = repair() else { return };
        tracing::error!(error = why, "it can't be put right");
        for workload in workloads {
            if still.get_mut(&workload.id).is_some_and(|standing| standing.is_newly_stuck(&why)) {
                self.tell(workload, Change::Broken { what: format!("{what}: {why}") });
            }
        }
    }

    fn tell(&self, workload: &Workload, change: Change) {
        let (launch, workload) = (workload.id, workload.settings.name.clone());
        self.journal().note(What::Adoption(Adoption { launch, workload, change }));
    }

    /// The workloads, launched and adopted, that stand still because something can't be put right, with what that is.
    pub(super) fn stuck(&self) -> Vec<(WorkloadName, String)> {
        let trouble: BTreeMap<LaunchId, String> =
            self.still().iter().filter_map(|(launch, standing)| Some((*launch, standing.trouble()?))).collect();
        let launched = self.workloads().into_iter().filter_map(|workload| {
            trouble.get(&workload.id).map(|trouble| (workload.settings.name.clone(), trouble.clone()))
        });
        launched.chain(self.adoptions().stuck()).collect()
    }
}

/// Lets the processes of a workload stand still, or go on.
pub(super) fn freeze(workload: &Workload, still: bool) {
    let written = std::fs::write(workload.cgroup.join("cgroup.freeze"), if still { "1" } else { "0" });
    if let Err(error) = written {
        tracing::warn!(%error, launch = %workload.id, still, "a workload can't be frozen or thawed");
    }
}
