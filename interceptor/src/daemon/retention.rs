//! Answering what is to be deleted, destroyed, kept or put aside. Each is in the record before the writer does it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::reload::{Loader, OwnJournal};
use crate::control::peer::Peer;
use crate::control::server::Answer;
use crate::ids::SessionId;
use crate::record::event::What;
use crate::record::{Asker, QueryError, Record, RecordError, Rotated};

/// How long an answer waits for what it asked for to be in the database.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer waits for a new database and for the hash of the old one: less than who asks waits for the answer.
const ROTATION: Duration = Duration::from_secs(45);

/// Who asks, and what is needed to do it.
pub(super) struct Retention<'a> {
    pub(super) record: &'a Record,
    pub(super) journal: &'a OwnJournal,
    pub(super) peer: &'a Peer,
}

/// Why it isn't done.
enum Refusal {
    Query(QueryError),
    Record(RecordError),
    Held(String),
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl Retention<'_> {
    /// Deletes the payloads of operations before a time; the writer goes on with it after the answer.
    pub(super) fn prune(&self, before: Timestamp) -> Answer {
        let done = (|| {
            self.record.flush(PATIENCE)?;
            let payloads = self.record.reader()?.prunable(before)?;
            let (uid, pid) = (Some(self.peer.uid), Some(self.peer.pid));
            self.journal.record(What::RecordPruned { before, workloads: Vec::new(), others: false, uid, pid })?;
            self.record.flush(PATIENCE)?;
            Ok(json!({ "before": before, "payloads": payloads }))
        })();
        answer(done)
    }

    /// Destroys the key of a session.
    pub(super) fn erase(&self, id: &str) -> Answer {
        let done = (|| {
            let (session, held) = self.find(id)?;
            if held {
                return Err(Refusal::Held(session.to_string()));
            }
            let (uid, pid) = (self.peer.uid, self.peer.pid);
            self.journal.record(What::SessionErased { session, uid, pid })?;
            self.record.flush(PATIENCE)?;
            Ok(json!({ "session": session }))
        })();
        answer(done)
    }

    /// Puts a session under a hold, or lifts it.
    pub(super) fn hold(&self, id: &str, held: bool) -> Answer {
        let done = (|| {
            let (session, _) = self.find(id)?;
            let (uid, pid) = (self.peer.uid, self.peer.pid);
            self.journal.record(What::SessionHeld { session, held, uid, pid })?;
            self.record.flush(PATIENCE)?;
            Ok(json!({ "session": session, "held": held }))
        })();
        answer(done)
    }

    /// Seals the database and begins a new one. The hash of the old one is in the answer where that isn't large.
    pub(super) fn rotate(&self, loader: &Loader) -> Answer {
        let asker = Asker { uid: self.peer.uid, pid: self.peer.pid };
        let began = Instant::now();
        let done = self.record.rotate(asker, ROTATION).map_err(Refusal::from).and_then(|rotated| {
            if !rotated.sealed {
                // The new one knows nothing of what was in force; a sealed one tells it.
                loader.tell(Some(self.peer.uid))?;
            }
            let digest = self.record.hash_of(&rotated.previous, ROTATION.saturating_sub(began.elapsed()));
            Ok(json!(Rotated { digest, ..rotated }))
        });
        answer(done)
    }

    fn find(&self, id: &str) -> Result<(SessionId, bool), Refusal> {
        self.record.flush(PATIENCE)?;
        let (id, held) = self.record.reader()?.hold_of(id)?;
        let session = id.parse().map_err(|_malformed| QueryError::Unknown(id))?;
        Ok((session, held))
    }
}

fn answer(done: Result<serde_json::Value, Refusal>) -> Answer {
    match done {
        Ok(value) => Answer::done(value),
        Err(Refusal::Query(error)) => {
            Answer::refused(error.code(), error.to_string(), "`interceptor sessions list` shows what there is")
        }
        Err(Refusal::Record(error)) => {
            let next =
                "what is recorded of it is done as soon as the database can be written; see `interceptor status`";
            Answer::refused("record-unavailable", error.to_string(), next)
        }
        Err(Refusal::Held(session)) => {
            let message = format!("`{session}` is held, so it can't be erased");
            Answer::refused("session-held", message, "lift the hold first: `interceptor sessions hold ID --release`")
        }
    }
}
