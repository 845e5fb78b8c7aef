//! Answering what an operation sent and got. That somebody reads it, or what is asked about, is in the record before he does.

use serde_json::Value;

use super::reload::OwnJournal;
use crate::control::peer::Peer;
use crate::control::server::Answer;
use crate::ids::OperationId;
use crate::record::Record;
use crate::record::event::What;

/// Reads the payload of an operation for a peer: null where nothing was kept.
pub(super) fn read(record: &Record, journal: &OwnJournal, peer: &Peer, operation: &str) -> Answer {
    let id: OperationId = match operation.parse() {
        Ok(id) => id,
        Err(error) => return Answer::refused("malformed-id", error.to_string(), "give a whole id, `op_…`"),
    };
    let (uid, pid) = (peer.uid, peer.pid);
    if let Err(refused) = note(journal, What::PayloadRead { operation: id, uid, pid }) {
        return refused;
    }
    let content = match record.content(id) {
        Ok(content) => content,
        Err(error) => {
            return Answer::refused(error.code(), error.to_string(), "`interceptor sessions show` says what is there");
        }
    };
    match content.as_ref().map(crate::record::Content::to_json).transpose() {
        Ok(value) => Answer::done(value.unwrap_or(Value::Null)),
        Err(error) => Answer::refused("internal", error.to_string(), "see the daemon's log"),
    }
}

/// Records that somebody reads something.
///
/// # Errors
/// The answer to him, where it can't be recorded.
pub(super) fn note(journal: &OwnJournal, reading: What) -> Result<(), Answer> {
    journal
        .record(reading)
        .map_err(|error| Answer::refused("record-unavailable", error.to_string(), "what can't be recorded isn't shown"))
}

#[cfg(test)]
mod tests;
