//! Times in which the record couldn't be written: noted while they last, and told by an event, at once where the
//! reserve leaves room for it, else when they are over.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::event::What;

/// How long an outage lasts that is worth an event, unless it used the reserve: a database that is locked for a moment
/// denies nothing.
const WORTH: Duration = Duration::from_secs(1);

/// An outage that isn't over, or wasn't told yet.
#[derive(Debug, Clone)]
pub(super) struct Outage {
    since: Instant,
    reason: String,
    /// Whether its beginning was told.
    told: bool,
}

impl Outage {
    pub(super) fn new(reason: String) -> Self {
        Self { since: Instant::now(), reason, told: false }
    }

    /// The event that tells of it at `now`, if one is due; `goes_on` says whether it isn't over.
    pub(super) fn event(&self, now: Timestamp, goes_on: bool) -> Option<What> {
        let lasted = self.since.elapsed();
        let due = if goes_on { !self.told } else { self.told || lasted >= WORTH };
        let since = SignedDuration::try_from(lasted).ok().and_then(|lasted| now.checked_sub(lasted).ok());
        due.then(|| What::RecordOutage {
            since: since.unwrap_or(now),
            until: (!goes_on).then_some(now),
            reason: self.reason.clone(),
        })
    }

    /// Its beginning was told.
    pub(super) fn told(&mut self) {
        self.told = true;
    }
}
