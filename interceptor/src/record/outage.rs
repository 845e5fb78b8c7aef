//! Times in which the record couldn't be written, or let nothing go on: noted while they last, and told by an event each, at
//! once where the record can be written meanwhile, else when they are over.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::event::What;

/// How long an outage lasts that is worth an event although nothing was denied in it: a database that is locked for a moment
/// denies nothing.
const WORTH: Duration = Duration::from_secs(1);

/// What comes again within this time after its end was told is told as one, when that has passed: what comes and goes all the
/// time doesn't fill the record.
const APART: Duration = Duration::from_secs(10);

/// Why nothing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The disk is full, and the reserve is in use.
    NoRoom,
    /// The journal or the database can't be written.
    Failing,
    /// The database is too far behind the journal.
    Behind,
    /// Too much waits for the database.
    Full,
    /// No sink outside the host knows what was recorded.
    Unanchored,
}

impl Cause {
    /// Whether the record can be written meanwhile.
    fn can_be_told_at_once(self) -> bool {
        matches!(self, Cause::NoRoom | Cause::Unanchored)
    }
}

/// An outage that isn't over, or wasn't told yet.
#[derive(Debug)]
struct Outage {
    cause: Cause,
    since: Instant,
    over: Option<Instant>,
    reason: String,
    /// Whether something was denied because of it.
    denied: bool,
    /// Whether its beginning was told.
    told: bool,
}

impl Outage {
    fn new(cause: Cause, denied: bool, reason: String) -> Self {
        Self { cause, since: Instant::now(), over: None, reason, denied, told: false }
    }

    /// Whether it was over before anybody could notice.
    fn is_nothing(&self) -> bool {
        let lasted = self.over.map(|over| over.duration_since(self.since));
        !self.told && !self.denied && lasted.is_some_and(|lasted| lasted < WORTH)
    }

    /// Whether there is something to tell of it.
    fn is_to_be_told(&self) -> bool {
        self.over.is_some() || (self.cause.can_be_told_at_once() && !self.told)
    }

    fn event(&self, now: Timestamp) -> What {
        // One moment for both, so that what took none doesn't end before it began.
        let here = Instant::now();
        let before = |instant: Instant| {
            let past = SignedDuration::try_from(here.duration_since(instant)).ok();
            past.and_then(|past| now.checked_sub(past).ok()).unwrap_or(now)
        };
        What::RecordOutage { since: before(self.since), until: self.over.map(before), reason: self.reason.clone() }
    }
}

/// The outages of a record, one of each cause at a time.
#[derive(Debug, Default)]
pub(super) struct Outages {
    there: Vec<Outage>,
    /// When the last end of a cause was told.
    told: Vec<(Cause, Instant)>,
    /// What is being told, and whether that is its end.
    telling: Option<(Cause, bool)>,
}

impl Outages {
    /// Notes that something is why nothing goes on; `denied`: something was denied because of it. Gives whether that is new.
    pub(super) fn note(&mut self, cause: Cause, denied: bool, reason: impl FnOnce() -> String) -> bool {
        if let Some(one) = self.there.iter_mut().find(|one| one.cause == cause) {
            one.over = None;
            one.denied |= denied;
            return false;
        }
        self.there.push(Outage::new(cause, denied, reason()));
        true
    }

    /// Whether one of this cause isn't over, as far as is known.
    pub(super) fn lasts(&self, cause: Cause) -> bool {
        self.there.iter().any(|one| one.cause == cause && one.over.is_none())
    }

    /// An event that is due at `now`, for which [`Self::mark_told`] is called once it is recorded. `lasts` says of a cause whether
    /// it isn't over; at the end of the record, `last`, nothing is put off.
    pub(super) fn next(&mut self, now: Timestamp, last: bool, lasts: impl Fn(Cause) -> bool) -> Option<What> {
        let instant = Instant::now();
        for one in &mut self.there {
            one.over = if lasts(one.cause) { None } else { one.over.or(Some(instant)) };
        }
        self.there.retain(|one| !one.is_nothing());
        let due = |one: &&Outage| one.is_to_be_told() && (last || self.put_off(one).is_none());
        let one = self.there.iter().find(due)?;
        let (telling, event) = ((one.cause, one.over.is_some()), one.event(now));
        self.telling = Some(telling);
        Some(event)
    }

    /// The event that [`Self::next`] gave is recorded.
    pub(super) fn mark_told(&mut self) {
        let Some((cause, was_over)) = self.telling.take() else { return };
        let Some(place) = self.there.iter().position(|one| one.cause == cause) else { return };
        if !was_over {
            self.there[place].told = true;
            return;
        }
        let gone = self.there.swap_remove(place);
        if gone.over.is_none() {
            // It came again while that was being recorded.
            self.there.push(Outage::new(cause, gone.denied, gone.reason));
        }
        self.told.retain(|(told, _)| *told != cause);
        self.told.push((cause, Instant::now()));
    }

    /// When to look again whether something is due; none if nothing is put off.
    pub(super) fn due(&self) -> Option<Instant> {
        self.there.iter().filter(|one| one.is_to_be_told()).filter_map(|one| self.put_off(one)).min()
    }

    /// Until when an outage isn't told. What has begun ends at once.
    fn put_off(&self, one: &Outage) -> Option<Instant> {
        let told = self.told.iter().find(|(cause, _)| *cause == one.cause).filter(|_| !one.told);
        told.map(|(_, at)| *at + APART).filter(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests;
