//! What is told of the launched workloads: the list, and the ledger's counts.

use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;

use interceptor_common::{Fate, Kind};

use super::super::ledger::{self, Connects, Entered};
use super::{Launches, Live, containment};
use crate::bpf::{BpfError, waiting_at};
use crate::control::protocol::Launched;
use crate::ids::{LaunchId, WorkloadName};
use crate::launch;
use crate::record::event::{Ledger, What};
use crate::transport::namespace::Sockets;
use crate::transport::taken::Taken;

/// How often it is tried to read counts and listeners at one moment.
const TRIES: u32 = 100;

impl Launches {
    /// The live workloads, oldest first.
    pub(in super::super) fn list(&self) -> Vec<Launched> {
        let mut list: Vec<Launched> = self.live().values().map(|live| self.launched(live)).collect();
        list.extend(self.adoptions.list());
        list.sort_by_key(|launched| launched.launch);
        list
    }

    fn launched(&self, live: &Live) -> Launched {
        let workload = &live.workload;
        let holes = self.holes(workload);
        Launched {
            launch: workload.id,
            workload: workload.settings.name.clone(),
            initiator: workload.initiator,
            uid: workload.uid,
            pid: workload.init,
            command: live.about.command.clone(),
            started: live.about.started,
            connections: u32::try_from(self.parts.pipeline.registry.count(workload.id)).unwrap_or(u32::MAX),
            containment: containment(&holes).into(),
            holes: holes.into_iter().map(str::to_owned).collect(),
            adopted: None,
        }
    }

    /// The counts of the workloads that are `wanted`, as far as they settle.
    ///
    /// # Errors
    /// The kernel's can't be read: nothing is known then, and not that nothing is wrong.
    pub(in super::super) fn ledger(&self, wanted: impl Fn(LaunchId) -> bool) -> Result<Vec<Ledger>, BpfError> {
        let launches: Vec<LaunchId> = self.live().keys().copied().filter(|launch| wanted(*launch)).collect();
        let counts = launches.into_iter().filter_map(|launch| self.counts(launch, false));
        let mut ledger = counts.collect::<Result<Vec<_>, _>>()?;
        ledger.extend(self.adoptions.ledger(wanted)?);
        ledger.sort_by_key(|one| one.launch);
        Ok(ledger)
    }

    /// Records the counts of a workload, if they changed, or if one of its sessions ended.
    pub(in super::super) fn note_ledger(&self, ledger: Ledger, session_ended: bool) {
        self.counted.note(&self.parts.journal, ledger, session_ended);
    }

    /// Records the last counts of a launch.
    pub(super) fn note_last(&self, launch: LaunchId) {
        match self.counts(launch, true) {
            Some(Ok(ledger)) => self.note_ledger(ledger, false),
            Some(Err(error)) => tracing::error!(%error, %launch, "the last counts of a workload can't be read"),
            None => {}
        }
        self.counted.forget(launch);
    }

    /// The counts of one launch, and whether they are its last; none if it doesn't live.
    fn counts(&self, launch: LaunchId, last: bool) -> Option<Result<Ledger, BpfError>> {
        let (workload, taken) =
            self.live().get(&launch).map(|live| (live.workload.settings.name.clone(), Arc::clone(&live.taken)))?;
        let count = || -> Result<Ledger, BpfError> {
            let entered = Entered::now(&self.parts.journal, &taken, last);
            let connects = Connects::of(&self.parts.kernel, launch, &self.folder(launch), &taken)?;
            Ok(entered.ledger(launch, workload.clone(), connects.kinds()))
        };
        let settled = if last { ledger::last(&taken, count) } else { ledger::settled(count) };
        if let Ok(ledger) = &settled {
            taken.note_unexplained(ledger.unexplained_connections());
        }
        Some(settled)
    }

    /// How many of a launch's connects were answered before this daemon serves it, and how many of them wait still at listeners
    /// that were kept.
    pub(super) fn answered(&self, launch: LaunchId, sockets: &Sockets) -> Result<(u64, u64), BpfError> {
        let waiting = || -> u64 {
            let at = |listener: &std::net::TcpListener| waiting_at(listener.as_fd()).unwrap_or_default();
            u64::from(at(&sockets.tcp4)) + u64::from(at(&sockets.tcp6))
        };
        let mut tries = 0;
        loop {
            let before = waiting();
            let established = self.parts.kernel.attempts(launch, Kind::Tcp, Fate::Established)?;
            tries += 1;
            // More may come while it is counted.
            if waiting() == before || tries == TRIES {
                return Ok((established, before));
            }
        }
    }

    /// Whether a launch has processes.
    pub(super) fn has_processes(&self, launch: LaunchId) -> bool {
        let events = fs::read_to_string(self.parts.cgroup.join(launch.to_string()).join("cgroup.events"));
        events.is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
    }

    /// Records the end of a launch that ended while no daemon ran, with its last counts, and removes what it left.
    pub(super) fn conclude(&self, launch: LaunchId, workload: Option<WorkloadName>, taken: Option<Taken>) {
        if let (Some(workload), Some(taken)) = (workload, taken) {
            let entered = Entered::now(&self.parts.journal, &taken, true);
            let connects = Connects::of(&self.parts.kernel, launch, &self.folder(launch), &taken).map(|connects| {
                // What wasn't taken never will be.
                taken.resume(connects.established, 0);
                Connects { had: (&taken).into(), ..connects }
            });
            match connects {
                Ok(connects) => self.note_ledger(entered.ledger(launch, workload, connects.kinds()), false),
                Err(error) => tracing::error!(%error, %launch, "the last counts of a workload can't be read"),
            }
            self.counted.forget(launch);
        }
        self.parts.journal.note(What::WorkloadEnded { launch, status: "unknown".into() });
        self.disengage(launch);
        launch::discard(&self.parts.cgroup.join(launch.to_string()), &self.folder(launch));
    }
}
