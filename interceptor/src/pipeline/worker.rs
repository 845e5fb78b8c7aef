//! The workers: one single-threaded runtime per core. A connection and its upstream stay on the worker that got them.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

use super::Pipeline;
use super::counted::Counted;
use super::payload::Budget;
use crate::config::Limits;
use crate::heap::{self, Keeping};
use crate::record::event::{Intent, What};
use crate::record::payload::{SealedPayload, SessionKey};
use crate::record::{Event, Journal, Record, RecordError, Recorded};
use crate::transport::accept::Accepted;

/// How often a worker gives back the memory that it keeps and doesn't need. It is a small part of the second for which
/// `daemon/slack.rs` waits until it gives back what glibc keeps.
const SETTLES: Duration = Duration::from_millis(250);

/// One worker: what is shared, and a journal of its own.
pub struct Worker {
    /// What all workers share.
    pub pipeline: Arc<Pipeline>,
    /// The memory that bodies take up while they are taken down.
    pub(super) captured: Budget,
    /// What it counts.
    pub(super) counted: Counted,
    journal: Journal,
}

impl Worker {
    /// The time.
    pub fn now(&self) -> Timestamp {
        self.pipeline.clock.now()
    }

    /// Records what happened, before anything that follows from it.
    ///
    /// # Errors
    /// When it can't be stored: whatever it was about is then denied.
    pub fn record(&self, what: What) -> Result<Recorded, RecordError> {
        self.journal.append(&Event { at: self.now(), what })
    }

    /// Records a verdict, before anything that follows from it.
    ///
    /// # Errors
    /// As [`Worker::record`].
    pub(super) fn record_intent(&self, intent: &Intent<'_>) -> Result<Recorded, RecordError> {
        self.journal.append_intent(intent)
    }

    /// Records how something ended. What can't be stored any more is told to the operator; the record's own health
    /// then denies what comes next.
    pub fn record_end(&self, what: What) {
        if let Err(error) = self.record(what) {
            tracing::error!(%error, "an outcome could not be recorded");
        }
    }

    /// Records how an operation ended, with what was kept of it.
    ///
    /// # Errors
    /// When the two can't be stored together.
    pub(super) fn record_with(&self, kept: (&SessionKey, &SealedPayload), event: &Event) -> Result<(), RecordError> {
        self.journal.append_with(kept, event)
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.pipeline.worlds.borrow().snapshot.settings.limits.clone()
    }
}

/// Starts a worker thread for each queue of the acceptor's. They end when the acceptor does and their connections have
/// ended.
///
/// # Errors
/// When a thread or its journal can't be made.
pub fn start_workers(
    pipeline: &Arc<Pipeline>,
    record: &Record,
    queues: Vec<Receiver<Accepted>>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |(number, queue): (usize, Receiver<Accepted>)| {
        let name = format!("worker-{number}");
        let journal = record.journal(&name).map_err(io::Error::other)?;
        let pipeline = Arc::clone(pipeline);
        let (runtime, keeps) = runtime()?;
        std::thread::Builder::new().name(name).spawn(move || {
            let mut keeping = heap::keep();
            let worker = Worker { pipeline, captured: Budget::default(), counted: Counted::default(), journal };
            let local = LocalSet::new();
            runtime.block_on(local.run_until(async {
                tokio::select! {
                    () = work(Rc::new(worker), queue) => {}
                    never = settle(&mut keeping, &keeps) => match never {},
                }
            }));
            // What is still running finishes, or is cut by whoever stops the daemon.
            runtime.block_on(local);
        })
    };
    queues.into_iter().enumerate().map(start).collect()
}

/// A runtime for one thread, and what is notified each time that it is about to sleep while its thread keeps memory.
fn runtime() -> io::Result<(Runtime, Arc<Notify>)> {
    let keeps = Arc::new(Notify::new());
    let notified = Arc::clone(&keeps);
    let sleeps = move || {
        if heap::keeps() {
            notified.notify_one();
        }
    };
    let runtime = Builder::new_current_thread().enable_all().on_thread_park(sleeps).build()?;
    Ok((runtime, keeps))
}

async fn work(worker: Rc<Worker>, mut queue: Receiver<Accepted>) {
    while let Some(accepted) = queue.recv().await {
        let worker = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            let Accepted { stream, attribution, load, ticket } = accepted;
            match TcpStream::from_std(stream) {
                Ok(stream) => super::connection(worker, stream, attribution, ticket).await,
                Err(error) => tracing::error!(%error, "a connection could not be taken over from the acceptor"),
            }
            drop(load);
        });
    }
}

/// Gives back the memory that the thread keeps and doesn't need. Where it keeps none, nothing is due: a daemon that idles
/// sleeps.
async fn settle(keeping: &mut Keeping, keeps: &Notify) -> Infallible {
    let mut ticks = tokio::time::interval(SETTLES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        keeps.notified().await;
        while heap::keeps() {
            ticks.tick().await;
            keeping.settle();
        }
    }
}

#[cfg(test)]
mod tests;
