//! How long events wait for a sink outside the host to know of them: by the clock, and by a time that nobody can set, as a
//! clock that is set back must make nothing younger. Not here: what is denied for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::ANCHOR;

/// Events that come within this time are as old as the first of them.
const STEP: Duration = Duration::from_secs(5);
/// How many such steps are told apart. Beyond that, the oldest two are one.
const STEPS: usize = 256;

/// The events of the newest database of which no sink outside the host has a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Unanchored {
    /// The last event of which one has.
    anchored: u64,
    /// When the one behind it happened, by the clock; none if there is none.
    since: Option<Timestamp>,
    /// When they came, oldest first: up to which event, and when the first of these did.
    came: VecDeque<(u64, Instant)>,
}

impl Unanchored {
    /// When the oldest one happened, by the clock.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Events up to `last` came into the database at `now`.
    pub(super) fn came(&mut self, last: u64, now: Timestamp, instant: Instant) {
        if last <= self.anchored {
            return;
        }
        self.since.get_or_insert(now);
        match self.came.back_mut() {
            Some((until, _)) if *until >= last => {}
            Some((until, first)) if instant.saturating_duration_since(*first) < STEP => *until = last,
            _ => self.came.push_back((last, instant)),
        }
        if self.came.len() > STEPS
            && let Some((_, oldest)) = self.came.pop_front()
            && let Some((_, first)) = self.came.front_mut()
        {
            *first = oldest;
        }
    }

    /// A sink has a checkpoint of event `seq`; the last one is `last`, and the one behind `seq` happened at `next`, if there
    /// was one when that was looked up.
    pub(super) fn known(&mut self, seq: u64, last: u64, next: Option<Timestamp>, instant: Instant) {
        if seq < self.anchored {
            return;
        }
        self.anchored = seq;
        while self.came.pop_front_if(|(until, _)| *until <= seq).is_some() {}
        // One that came since the question is as old as what was oldest before, at most.
        self.since = if last > seq { next.or(self.since) } else { None };
        if self.since.is_some() && self.came.is_empty() {
            // An earlier daemon left it: its age so far is known by the clock alone.
            self.came.push_back((last, instant));
        }
    }

    /// The database is another one since `now`, and its last event `last`: nobody knows anything of it.
    pub(super) fn renewed(&mut self, last: u64, now: Timestamp, instant: Instant) {
        *self = Self { anchored: 0, since: Some(now), came: VecDeque::from([(last, instant)]) };
    }

    /// How long the oldest one is here.
    pub(super) fn waits(&self, instant: Instant) -> Duration {
        self.came.front().map_or(Duration::ZERO, |(_, first)| instant.saturating_duration_since(*first))
    }

    /// When that is longer than an event may wait, if nobody hears of it meanwhile; none if nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.came.front().map(|(_, first)| *first + ANCHOR.unsigned_abs() + Duration::from_secs(1))
    }

    /// How old the oldest one is at `now`; none if there is none.
    pub(super) fn age(&self, now: Timestamp, instant: Instant) -> Option<SignedDuration> {
        Some(older(now.duration_since(self.since?), self.waits(instant)))
    }
}

/// The longer one of what the clock says and of what passed.
pub(super) fn older(by_clock: SignedDuration, passed: Duration) -> SignedDuration {
    by_clock.max(SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX))
}
