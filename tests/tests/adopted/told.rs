//! What is recorded of the adopted workload `svc` besides its connections.

use anyhow::{Result, ensure};
use interceptor::record::event::{Adoption, Change, What};
use interceptor::who::NOBODY;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::recorded;
use interceptor_tests::remains::cgroup2;
use interceptor_tests::unit::Unit;

/// What became of it, in order.
pub(crate) fn changes(daemon: &Daemon) -> Result<Vec<Change>> {
    let events = recorded::events(&daemon.database(), 0)?;
    let changes = events.into_iter().filter_map(|(_, event)| match event.what {
        What::Adoption(Adoption { workload, change, .. }) if workload.as_str() == "svc" => Some(change),
        _ => None,
    });
    Ok(changes.collect())
}

/// How it came to be adopted, and how that ended, in order: `adopted` and the reasons.
pub(crate) fn adoptions(daemon: &Daemon) -> Result<Vec<String>> {
    let mut launches = Vec::new();
    let mut told = Vec::new();
    for (_, event) in recorded::events(&daemon.database(), 0)? {
        match event.what {
            What::WorkloadStarted { launch, workload, initiator, uid, pid, command, containment, .. }
                if workload.as_str() == "svc" =>
            {
                ensure!((initiator, uid, pid) == (NOBODY, NOBODY, 0), "somebody launched it: {initiator} {uid} {pid}");
                ensure!(command.starts_with("cgroup /") && command.ends_with("/units/svc"), "{command}");
                launches.push(launch);
                told.push(containment);
            }
            What::WorkloadEnded { launch, status } if launches.contains(&launch) => told.push(status),
            _ => {}
        }
    }
    Ok(told)
}

/// The cgroup of a service, as it is recorded.
pub(crate) fn path(unit: &Unit) -> Result<String> {
    Ok(format!("/{}", unit.cgroup.strip_prefix(cgroup2()?)?.display()))
}
