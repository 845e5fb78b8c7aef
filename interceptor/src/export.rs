//! Sending the record to sinks outside the host: every event and every signed checkpoint, in order, at least once. A
//! thread of its own reads the database and sends; it never holds up the writer or a connection, and what it can't
//! send waits in the database. Not here: what the record is (`record`), how a connection is dialled (`transport`).

mod batch;
mod cursor;
#[cfg(test)]
pub(crate) mod fixture;
mod follow;
mod sink;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::ExportSettings;
use crate::record::{QueryError, Record};
use crate::transport::dial::Dialer;
use crate::transport::trust::TrustError;
use cursor::Cursor;
use follow::Follower;
use sink::Sink;

/// Gives the dialler of the moment.
pub type Dialing = Arc<dyn Fn() -> Arc<Dialer> + Send + Sync>;

/// Why the record can't be sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The roots of a sink can't be used.
    #[error("the roots of the export `{name}` can't be used: {source}")]
    Roots {
        /// The sink.
        name: String,
        /// What is wrong.
        source: TrustError,
    },
    /// How far a sink is can't be read, or not be written.
    #[error("can't use `{path}`, which says how far an export is: {source}; remove it to send everything again", path = path.display())]
    Cursor {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record can't be read.
    #[error(transparent)]
    Read(#[from] QueryError),
    /// The thread can't be made.
    #[error("the thread of the exports can't be started: {0}")]
    Thread(io::Error),
}

/// How a sink is doing, for `status` and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkState {
    /// Its name.
    pub name: String,
    /// `syslog`, `http` or `otlp`.
    pub kind: &'static str,
    /// The last event that it acknowledged; 0 for none.
    pub seq: u64,
    /// The last event of which it acknowledged a checkpoint; 0 for none.
    pub anchored: u64,
    /// When the oldest event happened that it didn't acknowledge; none if there is none, as far as is known.
    pub waiting_since: Option<Timestamp>,
    /// Why sending fails at the moment.
    pub failing: Option<String>,
}

/// What sends the record. Dropping it ends the sending; what wasn't acknowledged is sent by the next one.
#[derive(Debug)]
pub struct Exporter {
    states: Vec<Arc<Mutex<SinkState>>>,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Begins to send `record` to these sinks; without any, nothing is started. `state` is the state folder, `dialing`
    /// gives what reaches sinks that are verified as upstreams are.
    ///
    /// # Errors
    /// When a sink's roots or cursor can't be used.
    pub fn start(
        sinks: &[ExportSettings],
        state: &Path,
        record: &Arc<Record>,
        dialing: &Dialing,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ExportError> {
        let mut exporter = Self { states: Vec::new(), stop: None, thread: None };
        if sinks.is_empty() {
            return Ok(exporter);
        }
        let mut followers = Vec::new();
        let (renewals, newest, mut anchored) = (record.health().renewals, record.reader()?, 0);
        for settings in sinks {
            let cursor = Cursor::open(&state.join("export"), settings)?;
            let state = Arc::new(Mutex::new(SinkState {
                name: settings.name.to_string(),
                kind: settings.sink.kind(),
                seq: cursor.at().seq,
                anchored: cursor.at().anchored,
                waiting_since: None,
                failing: None,
            }));
            // What a sink has of a database that was moved aside says nothing of the newest.
            if newest.has_link(cursor.at().seq, &cursor.at().hash)? {
                anchored = anchored.max(cursor.at().anchored);
            }
            let sink = Sink::new(settings, dialing)?;
            exporter.states.push(Arc::clone(&state));
            followers.push(Follower::new(Arc::clone(record), sink, cursor, state, Arc::clone(clock)));
        }
        drop(newest);
        record.anchored(anchored, renewals)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ExportError::Thread)?;
        let (stop, stopped) = watch::channel(());
        let thread = std::thread::Builder::new().name("export".into()).spawn(move || {
            runtime.block_on(run(followers, stopped));
            // A look-up that the host's resolver doesn't answer must not hold up the end.
            runtime.shutdown_background();
        });
        exporter.stop = Some(stop);
        exporter.thread = Some(thread.map_err(ExportError::Thread)?);
        Ok(exporter)
    }

    /// How the sinks are doing, in the order of the configuration.
    pub fn states(&self) -> Vec<SinkState> {
        self.states.iter().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }
}

async fn run(followers: Vec<Follower>, mut stopped: watch::Receiver<()>) {
    let mut tasks = tokio::task::JoinSet::new();
    for follower in followers {
        tasks.spawn(follower.run());
    }
    // An error says that the sender is gone, which is how the end is told.
    let _gone = stopped.changed().await;
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the exports panicked; what it didn't send is sent after the next start");
        }
    }
}

#[cfg(test)]
mod tests;
