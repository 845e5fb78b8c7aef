//! While what nothing goes on, and that it is noted as an outage. Not here: the events that tell of it (`outage`), and who
//! writes them (`writer`).

use std::io;
use std::sync::PoisonError;
use std::time::Instant;

use jiff::Timestamp;

use super::super::event::What;
use super::super::outage::Cause;
use super::{ANCHOR, Backlog, FAILING, RecordError, State};
use crate::config::Anchor;

impl Backlog {
    /// Whether an entry of `bytes` may be appended.
    pub(in crate::record) fn admit(&self, bytes: u64) -> Result<(), RecordError> {
        let mut state = self.state();
        if state.stop {
            return Err(RecordError::Failed(io::Error::other("the record is closed")));
        }
        if state.waiting.saturating_add(bytes) > self.limit {
            let (waiting, limit) = (state.waiting, self.limit);
            return Err(self.denied(&mut state, RecordError::Full { waiting, limit }));
        }
        Ok(())
    }

    /// Whether something may go on at `now`: not while the disk is full, nor while the writer is too far behind, nor while a
    /// sink outside the host that has to know what was recorded doesn't.
    pub(in crate::record) fn lets_go_on(&self, now: Timestamp) -> Result<(), RecordError> {
        let mut state = self.state();
        let no_room = state.released.then_some(RecordError::NoRoom);
        let why = no_room.or_else(|| self.behind(&state)).or_else(|| self.unknown_outside(&state, now));
        why.map_or(Ok(()), |why| Err(self.denied(&mut state, why)))
    }

    /// Whether something may begin that lets nothing go on by itself: not while the writer is too far behind.
    pub(in crate::record) fn keeps_up(&self) -> Result<(), RecordError> {
        let mut state = self.state();
        self.behind(&state).map_or(Ok(()), |why| Err(self.denied(&mut state, why)))
    }

    /// Whether there is room for what is decided, besides what is left for the ends of what goes on.
    pub(in crate::record) fn has_room_for_ends(&self) -> Result<(), RecordError> {
        let mut state = self.state();
        let (waiting, limit) = (state.waiting, self.limit_for_verdicts());
        if waiting > limit { Err(self.denied(&mut state, RecordError::Full { waiting, limit })) } else { Ok(()) }
    }

    /// An eighth is left for ends.
    fn limit_for_verdicts(&self) -> u64 {
        self.limit - self.limit / 8
    }

    fn behind(&self, state: &State) -> Option<RecordError> {
        let limit = if state.writer_failed.is_some() { self.age_limit.min(FAILING) } else { self.age_limit };
        let behind = state.since?.elapsed();
        (behind > limit).then_some(RecordError::Lagging { behind, limit })
    }

    fn unknown_outside(&self, state: &State, now: Timestamp) -> Option<RecordError> {
        let age = state.unanchored.age(now, Instant::now()).filter(|_| self.anchor == Anchor::Required)?;
        (age > ANCHOR).then_some(RecordError::Unanchored { minutes: age.as_mins() })
    }

    /// Notes that something is denied.
    fn denied(&self, state: &mut State, why: RecordError) -> RecordError {
        let (cause, reason) = match &why {
            // What lags behind because the database can't be written is an outage of that.
            RecordError::Lagging { .. } if state.released => (Cause::NoRoom, FULL_DISK.to_owned()),
            RecordError::Lagging { limit, .. } => match state.writer_failed.clone() {
                Some(why) => (Cause::Failing, why),
                None => (Cause::Behind, format!("the database was more than {limit:?} behind the journal")),
            },
            RecordError::Full { limit, .. } => {
                (Cause::Full, format!("as much journal waited for the database as may: {limit} bytes"))
            }
            RecordError::Unanchored { .. } => (Cause::Unanchored, NOBODY_OUTSIDE.to_owned()),
            _ => (Cause::NoRoom, FULL_DISK.to_owned()),
        };
        if state.outages.note(cause, true, || reason) {
            // What can be told at once is, and else it is looked whether it is over.
            state.tidy = true;
            self.work.notify_one();
        }
        why
    }

    /// An entry could not be appended.
    pub(in crate::record) fn append_failed(&self, why: String) {
        let mut state = self.state();
        if !state.released {
            state.outages.note(Cause::Failing, true, || why.clone());
        }
        state.journal_failed = Some(why);
    }

    /// The disk is full. Gives the reserve up; gives whether there was any.
    pub(in crate::record) fn release(&self) -> bool {
        if !self.reserve.lock().unwrap_or_else(PoisonError::into_inner).release() {
            return false;
        }
        tracing::error!("the disk of the record is full; what is left is for denials");
        let mut state = self.state();
        state.released = true;
        state.tidy = true;
        state.outages.note(Cause::NoRoom, true, || FULL_DISK.into());
        self.work.notify_one();
        true
    }

    /// Takes the reserve again, where it was given up and there is room. Gives whether it is still missing.
    pub(in crate::record) fn retake(&self) -> bool {
        if self.state().released && self.reserve.lock().unwrap_or_else(PoisonError::into_inner).retake() {
            tracing::info!("the disk of the record has room again");
            self.state().released = false;
        }
        self.state().released
    }

    /// What there is to tell of an outage at `now`, while the database can be written.
    pub(in crate::record) fn outage(&self, now: Timestamp) -> Option<What> {
        let mut state = self.state();
        let unanchored = self.unknown_outside(&state, now).is_some();
        if unanchored {
            // Also where nobody has asked for anything.
            state.outages.note(Cause::Unanchored, false, || NOBODY_OUTSIDE.into());
        }
        let (no_room, failing) = (state.released, state.journal_failed.is_some());
        let (behind, full) = (self.behind(&state).is_some(), state.waiting > self.limit_for_verdicts());
        let (last, lasts) = (state.stop, move |cause| match cause {
            Cause::NoRoom => no_room,
            Cause::Failing => failing,
            Cause::Behind => behind,
            Cause::Full => full,
            Cause::Unanchored => unanchored,
        });
        state.outages.next(now, last, lasts)
    }

    /// It was told.
    pub(in crate::record) fn outage_told(&self) {
        self.state().outages.mark_told();
    }
}

const FULL_DISK: &str = "the disk is full";
const NOBODY_OUTSIDE: &str = "no sink outside the host has a checkpoint of what was recorded more than ten minutes ago";
