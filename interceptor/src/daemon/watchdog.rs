//! Sees every second that the hooks and the steering of launched workloads are attached. Where they aren't, those that they are for
//! stand still until they are again. Adopted workloads are watched by the thread that looks at them.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::launches::Launches;
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

impl Launches {
    fn watch_over(&self) {
        let workloads = self.workloads();
        if workloads.is_empty() {
            return;
        }
        let kernel = self.kernel();
        let missing = kernel.missing();
        if !missing.is_empty() {
            let what = format!("the hooks {} were gone", missing.join(", "));
            self.put_right(&workloads, &what, || kernel.repair(self.parent()).map_err(|error| error.to_string()));
        }
        for workload in workloads {
            // What has ended in between isn't steered any more, and lives no more.
            if kernel.is_steered(workload.id) || !self.lives(workload.id) {
                continue;
            }
            let again = || {
                let netns = File::open(format!("/proc/{}/ns/net", workload.init)).map_err(|error| error.to_string())?;
                kernel.steer_again(workload.id, netns.as_fd()).map_err(|error| error.to_string())
            };
            self.put_right(std::slice::from_ref(&workload), "its steering was gone", again);
        }
    }

    /// Does what puts it right while these stand still, and records that. What can't be put right stays still.
    fn put_right(&self, workloads: &[Arc<Workload>], what: &str, repair: impl FnOnce() -> Result<(), String>) {
        tracing::error!(what, "launched workloads are frozen until that is put right");
        workloads.iter().for_each(|workload| freeze(workload, true));
        if let Err(error) = repair() {
            return tracing::error!(error, "it can't be put right; they stay frozen");
        }
        for workload in workloads {
            let (launch, name) = (workload.id, workload.settings.name.clone());
            let change = Change::Repaired { what: what.to_owned() };
            self.journal().note(What::Adoption(Adoption { launch, workload: name, change }));
            freeze(workload, false);
        }
    }
}

/// Lets the processes of a workload stand still, or go on.
pub(super) fn freeze(workload: &Workload, still: bool) {
    let written = std::fs::write(workload.cgroup.join("cgroup.freeze"), if still { "1" } else { "0" });
    if let Err(error) = written {
        tracing::warn!(%error, launch = %workload.id, still, "a workload can't be frozen or thawed");
    }
}
