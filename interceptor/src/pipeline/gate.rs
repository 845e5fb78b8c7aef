//! The gate before a DNS look-up: decided and recorded before the daemon asks anyone itself.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::counted;
use super::ruling::{Known, Moment, Ruling, Subject};
use super::{Worker, World};
use crate::approve::Desk;
use crate::clock::Clock;
use crate::config::Hostname;
use crate::error::{Blame, Fault};
use crate::ids::OperationId;
use crate::policy::Operation;
use crate::record::{Journal, RecordError};
use crate::transport::dial::{Looking, Lookup};
use crate::transport::resolver::Gate;
use crate::who::{Attribution, Workload};

/// Decides look-ups and records them in a journal of its own.
pub struct RecordingGate {
    clock: Arc<dyn Clock>,
    worlds: watch::Receiver<Arc<World>>,
    desk: Arc<Desk>,
    journal: Mutex<Journal>,
}

impl RecordingGate {
    /// A gate that decides on `worlds`.
    pub fn new(clock: Arc<dyn Clock>, worlds: watch::Receiver<Arc<World>>, desk: Arc<Desk>, journal: Journal) -> Self {
        Self { clock, worlds, desk, journal: Mutex::new(journal) }
    }
}

impl Gate for RecordingGate {
    fn admit(&self, workload: &Arc<Workload>, name: &Hostname, qtype: &str) -> Result<(), Fault> {
        let world = Arc::clone(&self.worlds.borrow());
        let subject = Subject::of(workload);
        let at = self.clock.now();
        let grants = self.desk.grants();
        let moment = Moment { world: &world, grants: &grants, at };
        let mut ruling = Ruling::make(&moment, &subject, None, Operation::Resolve { name }, Known::default());
        ruling.summary = format!("look up {name} {qtype}");
        counted::operations(ruling.labels()).increment(1);
        let operation = OperationId::new();
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recorded = journal.append_intent(&ruling.intent((at, operation, None), &subject));
        if let Some(error) = recorded.as_ref().err().filter(|error| error.leaves_denials()) {
            ruling.verdict = Err(not_recorded(error).into());
            recorded = journal.append_intent(&ruling.intent((at, operation, None), &subject));
        }
        drop(journal);
        match (ruling.verdict, recorded) {
            (Ok(_permit), Ok(_recorded)) => Ok(()),
            (Err(refusal), Ok(_recorded)) => Err(refusal.fault),
            (_, Err(error)) => {
                tracing::error!(%error, "a look-up could not be recorded, so it is denied");
                Err(not_recorded(&error))
            }
        }
    }
}

/// The daemon's own look-ups, by the dialler of the moment.
pub struct CurrentLookup(watch::Receiver<Arc<World>>);

impl CurrentLookup {
    /// Look-ups as the world of the moment does them.
    pub fn new(worlds: watch::Receiver<Arc<World>>) -> Self {
        Self(worlds)
    }
}

impl Lookup for CurrentLookup {
    fn lookup<'a>(&'a self, name: &'a Hostname) -> Looking<'a> {
        let dialer = Arc::clone(&self.0.borrow().dialer);
        Box::pin(async move { dialer.lookup(name).await })
    }
}

/// DNS over TCP, for connections to port 53 of whatever address.
pub(super) async fn resolve_over_tcp(worker: &Rc<Worker>, stream: TcpStream, attribution: Attribution) {
    if let Some(lookups) = worker.pipeline.directory.of(attribution.workload.id) {
        lookups.resolver.serve_tcp(stream).await;
    }
}

/// What can't be recorded isn't done.
pub(super) fn unrecorded() -> Fault {
    metrics::counter!("interceptor_operations_unrecorded_total").increment(1);
    Fault {
        code: "record-unavailable",
        blame: Blame::Interceptor,
        told: "the record can't be written, so this is denied".into(),
        next: "try again later, or ask the operator of this host",
    }
}

/// As [`unrecorded`], in the words of what stands in the way.
pub(super) fn not_recorded(error: &RecordError) -> Fault {
    match error {
        RecordError::Unanchored { .. } => Fault {
            code: "record-unanchored",
            blame: Blame::Interceptor,
            told: "no system outside this host knows what was recorded here, so this is denied".into(),
            next: "try again later, or ask the operator of this host",
        },
        _ => unrecorded(),
    }
}

#[cfg(test)]
mod tests;
