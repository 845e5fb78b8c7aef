//! What `status` tells of the record.

use jiff::Timestamp;

use crate::config::RecordSettings;
use crate::record::Health;

/// How far behind the database may be before `status` says so.
const LAG_MS: u64 = 1_000;

/// How long events may wait for a checkpoint before `status` says so.
const CHECKPOINT_MS: u64 = 10 * 60 * 1_000;

/// A cause.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) next: &'static str,
}

/// The causes, and what they mean.
#[derive(Debug)]
pub(super) struct Causes {
    pub(super) told: Vec<Told>,
    /// Whether everything is denied for one of them.
    pub(super) denies: bool,
}

/// What stands in the way of the record at `now`. `lacks_reserve`: there was no room for `record.reserve`.
pub(super) fn causes(health: &Health, lacks_reserve: bool, bounds: &RecordSettings, now: Timestamp) -> Causes {
    let mut told = Vec::new();
    let mut cause = |code, message, next| told.push(Told { code, message, next });
    let is_behind =
        u128::from(health.lag_ms) > bounds.backlog_age.as_millis() || health.backlog >= health.backlog_limit;
    if let Some(why) = &health.failed {
        let message = format!("the record can't be written: {why}");
        cause("record-unavailable", message, "check the state folder and its disk");
    }
    if is_behind && health.failed.is_none() {
        let message = format!(
            "the database is {} ms and {} bytes behind the journals, more than `[record]` allows, so everything is denied",
            health.lag_ms, health.backlog
        );
        let next = "check the state folder's disk, and what else has the database open";
        cause("record-unavailable", message, next);
    } else if health.lag_ms > LAG_MS {
        let message = format!("the database is {} ms behind the journals", health.lag_ms);
        cause("record-lagging", message, "check the disk's load");
    }
    let is_unanchored = health.is_unanchored(now);
    if let Some(since) = health.unanchored_since.filter(|_| is_unanchored) {
        let message = format!(
            "no sink outside the host has a checkpoint of what was recorded since {since:.0}, so everything is denied"
        );
        cause("record-unanchored", message, "see that this host reaches a sink of `[[export]]`");
    }
    if health.damaged > 0 {
        let message = format!("{} damaged places were found in the journals", health.damaged);
        cause("record-damaged", message, "run `interceptor sessions verify`");
    }
    if health.checkpoint_age_ms > CHECKPOINT_MS {
        let message =
            format!("events wait for a signed checkpoint since {} minutes", health.checkpoint_age_ms / 60_000);
        cause("checkpoint-late", message, "check the state folder and its disk; the daemon's log says what fails");
    }
    // One that is in use is told as a disk that is full.
    if lacks_reserve && health.failed.is_none() {
        let message = "the disk had no room for `record.reserve`, so nothing is kept for when it is full".to_owned();
        cause("reserve-missing", message, "make room on the disk of the state folder, then restart the daemon");
    }
    let denies = health.failed.is_some() || is_behind || is_unanchored;
    Causes { told, denies }
}

#[cfg(test)]
mod tests;
