//! What the record says of itself, for `status`, the metrics and whoever waits for it.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{ANCHOR, Backlog, unanchored};

/// How the record is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The sequence number of the last event in the database.
    pub seq: u64,
    /// The age of the oldest journal entry that isn't in the database yet, in milliseconds.
    pub lag_ms: u64,
    /// The bytes of journal that aren't in the database yet.
    pub backlog: u64,
    /// The bound of `backlog`, above which operations are denied.
    pub backlog_limit: u64,
    /// Why the database or the journal can't be written at the moment; none when all is well.
    pub failed: Option<String>,
    /// How many damaged places were found since the start; each is an event `record.damaged`.
    pub damaged: u64,
    /// How long the oldest event without a checkpoint waits for one, in milliseconds.
    pub checkpoint_age_ms: u64,
    /// When the oldest event happened of which no sink outside the host has a checkpoint; none if there is none, or if none is
    /// required.
    pub unanchored_since: Option<Timestamp>,
    /// How long that one is in the database already, or since the start, in milliseconds.
    pub unanchored_ms: u64,
    /// How many new databases were begun since the start.
    pub renewals: u64,
}

impl Backlog {
    /// Whether there is no reserve, though one is wanted: it is in use, or there was no room for it.
    pub(in crate::record) fn lacks_reserve(&self) -> bool {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner).is_missing()
    }
}

impl Health {
    /// Whether operations are denied at `now` because no sink outside the host knows what was recorded.
    pub fn is_unanchored(&self, now: Timestamp) -> bool {
        self.unanchored_for(now).is_some_and(|age| age > ANCHOR)
    }

    /// How old the oldest event is at `now` of which no sink outside the host has a checkpoint; none if there is none, or if
    /// none is required. A clock that was set back makes it no younger.
    pub fn unanchored_for(&self, now: Timestamp) -> Option<SignedDuration> {
        Some(unanchored::older(now.duration_since(self.unanchored_since?), Duration::from_millis(self.unanchored_ms)))
    }
}
