//! What journals and writer share: what waits, how long already, and who is to be woken. Not here: the entries
//! themselves, which are in the files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::RecordError;
use super::outage::{Cause, Outages};
use super::reserve::Reserve;
use super::rotate::{Asker, Rotated};
use super::segment::SegmentId;
use crate::config::{Anchor, RecordSettings};
use hashing::Hash;
use unanchored::Unanchored;

mod denial;
mod hashing;
mod health;
mod unanchored;

pub use health::Health;

/// How long the writer lets entries gather before it moves them. Many at once cost less: each batch writes the pages that
/// it touches once, and the longer it is, the more operations have their outcome in it.
const GATHER: Duration = Duration::from_millis(40);
/// How many waiting bytes make it move them at once.
const EAGER: u64 = 1 << 20;

/// How long entries may wait for a writer that fails, whatever `record.backlog_age` says of one that is slow.
const FAILING: Duration = Duration::from_millis(1_500);

/// How old the oldest event that no sink outside the host has a checkpoint of may be, where that is required.
pub(super) const ANCHOR: SignedDuration = SignedDuration::from_mins(10);

/// A segment that a journal writes, or that an earlier daemon left.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its journal and index.
    pub(super) id: SegmentId,
    /// Its file.
    pub(super) path: PathBuf,
    /// Up to here frames are complete. For one that was left behind: its end.
    pub(super) committed: AtomicU64,
    /// Whether nothing will be appended to it any more.
    pub(super) closed: AtomicBool,
    /// Whether an earlier daemon left it, so that its end isn't known.
    pub(super) left: bool,
}

/// What a pass of the writer is to do.
#[derive(Debug)]
pub(super) struct Work {
    /// The last [`Backlog::flush`] that this pass answers.
    ticket: u64,
    /// When the pass began.
    began: Instant,
    /// Whether it is the last.
    pub(super) last: bool,
}

/// How urgent it is that entries are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Nobody waits for it.
    Later,
    /// Somebody waits for it.
    Awaited,
    /// Half of what denies operations is reached, or was, and more than a quarter is left.
    Late,
}

/// What journals and writer share.
#[derive(Debug)]
pub(super) struct Backlog {
    database: PathBuf,
    limit: u64,
    age_limit: Duration,
    anchor: Anchor,
    reserve: Mutex<Reserve>,
    state: Mutex<State>,
    work: Condvar,
    flushed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    segments: Vec<Arc<Segment>>,
    waiting: u64,
    since: Option<Instant>,
    tidy: bool,
    idle: bool,
    late: bool,
    wanted: u64,
    served: u64,
    stop: bool,
    seq: u64,
    damaged: u64,
    /// Since when events wait for a checkpoint, and when it is due.
    uncovered: Option<(Instant, Instant)>,
    /// Whether the writer has more to do, and when it is to look for more.
    again: bool,
    look_at: Option<Instant>,
    writer_failed: Option<String>,
    journal_failed: Option<String>,
    unanchored: Unanchored,
    /// Whether the reserve is given up, because the disk is full.
    released: bool,
    /// What isn't over yet, or wasn't told.
    outages: Outages,
    /// Who asked for a new database, and what came of it.
    rotate: Option<Asker>,
    renewals: u64,
    rotated: Option<Result<Rotated, RecordError>>,
    /// The hash of the file of the database before.
    hash: Hash,
}

impl Backlog {
    pub(super) fn new(settings: &RecordSettings, database: PathBuf) -> Self {
        Self {
            limit: settings.backlog_bytes,
            age_limit: settings.backlog_age,
            anchor: settings.anchor,
            reserve: Mutex::new(Reserve::take(
                database.with_file_name("reserve"),
                settings.reserve,
                settings.segment_bytes,
            )),
            state: Mutex::default(),
            database,
            work: Condvar::new(),
            flushed: Condvar::new(),
        }
    }

    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// Events up to the last one that was moved came into the database at `now`.
    pub(super) fn unanchored(&self, now: Timestamp) {
        let mut state = self.state();
        if self.anchor == Anchor::Required {
            let last = state.seq;
            state.unanchored.came(last, now, Instant::now());
        }
    }

    /// A sink outside the host has a checkpoint of event `seq` of the database that was the newest after so many renewals; the
    /// next one happened at `next`, if there is one. What it has of an earlier database says nothing of this one.
    pub(super) fn anchored(&self, seq: u64, renewals: u64, next: Option<Timestamp>) {
        let mut state = self.state();
        if self.anchor == Anchor::Required && renewals == state.renewals {
            let last = state.seq;
            state.unanchored.known(seq, last, next, Instant::now());
            if state.outages.lasts(Cause::Unanchored) {
                // The writer sees whether it is over.
                state.tidy = true;
                self.work.notify_one();
            }
        }
    }

    /// Whether a sink outside the host has to know what is recorded.
    pub(super) fn is_anchor_required(&self) -> bool {
        self.anchor == Anchor::Required
    }

    /// An entry of `bytes` was appended to `segment`, which has complete frames up to `end` now.
    // INVARIANT: the writer sees it only once it is counted; it takes off what it moves.
    pub(super) fn appended(&self, segment: &Segment, end: u64, bytes: u64) {
        let mut state = self.state();
        segment.committed.store(end, Ordering::Release);
        state.waiting += bytes;
        state.since.get_or_insert_with(Instant::now);
        state.journal_failed = None;
        if state.idle || (state.waiting >= EAGER && state.waiting - bytes < EAGER) {
            state.idle = false;
            self.work.notify_one();
        }
    }

    /// A segment was made.
    pub(super) fn add(&self, segment: Arc<Segment>) {
        self.state().segments.push(segment);
    }

    /// A segment is complete.
    pub(super) fn close(&self, segment: &Segment) {
        segment.closed.store(true, Ordering::Release);
        let mut state = self.state();
        state.tidy = true;
        if state.idle {
            state.idle = false;
            self.work.notify_one();
        }
    }

    pub(super) fn flush(&self, within: Duration) -> Result<(), RecordError> {
        let mut state = self.state();
        state.wanted += 1;
        let ticket = state.wanted;
        self.work.notify_one();
        let (state, _) = self
            .flushed
            .wait_timeout_while(state, within, |state| state.served < ticket)
            .unwrap_or_else(PoisonError::into_inner);
        if state.served >= ticket {
            return Ok(());
        }
        Err(RecordError::Lagging { behind: state.since.map_or(within, |since| since.elapsed()), limit: within })
    }

    /// Has the writer begin a new database. Blocks until it has, at most for `within`. One call at a time. While the file of the
    /// one before is hashed, it waits for that, because its hash belongs into the one that is to be sealed; not where that can't
    /// be written, since a new one may be what mends it.
    pub(super) fn rotate(&self, by: Asker, within: Duration) -> Result<Rotated, RecordError> {
        let began = Instant::now();
        let is_hashing = |state: &mut State| matches!(state.hash, Hash::Reads(_)) && state.writer_failed.is_none();
        let (mut state, waited) =
            self.flushed.wait_timeout_while(self.state(), within, is_hashing).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out()
            && let Hash::Reads(previous) = &state.hash
        {
            return Err(RecordError::Hashing { previous: previous.clone() });
        }
        (state.rotate, state.rotated) = (Some(by), None);
        self.work.notify_one();
        let left = within.saturating_sub(began.elapsed());
        let (mut state, _) = self
            .flushed
            .wait_timeout_while(state, left, |state| state.rotated.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.rotate = None;
        state.rotated.take().unwrap_or(Err(RecordError::Lagging { behind: within, limit: within }))
    }

    /// Who asks for a new database, if somebody does.
    pub(super) fn asked_to_rotate(&self) -> Option<Asker> {
        self.state().rotate.take()
    }

    /// What came of it.
    pub(super) fn rotated(&self, result: Result<Rotated, RecordError>) {
        self.state().rotated = Some(result);
        self.flushed.notify_all();
    }

    /// The database is another one since `now`, and its last event `seq`: nobody outside knows anything of it.
    pub(super) fn renewed(&self, seq: u64, now: Timestamp) {
        let mut state = self.state();
        state.seq = seq;
        state.renewals += 1;
        if self.anchor == Anchor::Required {
            state.unanchored.renewed(seq, now, Instant::now());
        }
    }

    pub(super) fn health(&self) -> Health {
        let state = self.state();
        Health {
            seq: state.seq,
            lag_ms: state.since.map_or(0, |since| millis(since.elapsed())),
            backlog: state.waiting,
            backlog_limit: self.limit,
            failed: state
                .writer_failed
                .clone()
                .or_else(|| state.journal_failed.clone())
                .or_else(|| state.released.then(|| "the disk is full, and the reserve is in use".into())),
            damaged: state.damaged,
            checkpoint_age_ms: state.uncovered.map_or(0, |(since, _)| millis(since.elapsed())),
            unanchored_since: state.unanchored.since(),
            unanchored_ms: millis(state.unanchored.waits(Instant::now())),
            renewals: state.renewals,
        }
    }

    /// How urgent the writer's work is. It is late from half of what denies until no more than a quarter is left: a disk
    /// that stands still is nearer to the limit otherwise.
    pub(super) fn urgency(&self) -> Urgency {
        let mut state = self.state();
        let part = if state.late { 4 } else { 2 };
        let age = state.since.map(|since| since.elapsed()).unwrap_or_default();
        state.late = age > self.age_limit / part || state.waiting > self.limit / u64::from(part);
        if state.late {
            Urgency::Late
        } else if state.stop || state.rotate.is_some() || state.wanted > state.served {
            Urgency::Awaited
        } else {
            Urgency::Later
        }
    }

    pub(super) fn stop(&self) {
        self.state().stop = true;
        self.work.notify_one();
    }

    /// Blocks until there is something to move or a checkpoint is due, and then a little longer, so that entries gather.
    pub(super) fn wait(&self) -> Work {
        let mut state = self.state();
        while !(state.waiting > 0
            || state.rotate.is_some()
            || state.tidy
            || state.again
            || state.stop
            || state.wanted > state.served)
        {
            let due = state.uncovered.map(|(_, due)| due).into_iter().chain(state.look_at).min();
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            state.idle = true;
            state = match left {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        state.idle = false;
        let hurry = |state: &State| state.stop || state.wanted > state.served || state.waiting >= EAGER;
        let (mut state, _) =
            self.work.wait_timeout_while(state, GATHER, |state| !hurry(state)).unwrap_or_else(PoisonError::into_inner);
        state.tidy = false;
        Work { ticket: state.wanted, began: Instant::now(), last: state.stop }
    }

    /// Begins a pass without waiting for anything.
    pub(super) fn begin(&self) -> Work {
        let state = self.state();
        Work { ticket: state.wanted, began: Instant::now(), last: false }
    }

    /// The segments, oldest first for each journal.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        self.state().segments.clone()
    }

    /// Entries are in the database up to `seq`; `bytes` of journal fewer wait.
    pub(super) fn moved(&self, bytes: u64, seq: u64, damaged: u64) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(bytes);
        state.seq = seq;
        state.damaged += damaged;
    }

    /// Since when events wait for a checkpoint, and when it is due; none if all have one.
    pub(super) fn uncovered(&self, uncovered: Option<(Instant, Instant)>) {
        self.state().uncovered = uncovered;
    }

    /// Whether the writer has more to do, and when it is to look for more.
    pub(super) fn again(&self, again: bool, look_at: Option<Instant>) {
        let mut state = self.state();
        let unanchored = state.unanchored.due().filter(|_| !state.outages.lasts(Cause::Unanchored));
        state.look_at = look_at.into_iter().chain(unanchored).chain(state.outages.due()).min();
        state.again = again;
    }

    /// A pass moved all that it found.
    pub(super) fn passed(&self, work: &Work) {
        let mut state = self.state();
        // What waits now was appended after the pass looked, so it is younger than the pass.
        state.since = (state.waiting > 0).then_some(work.began);
        state.served = work.ticket;
        state.writer_failed = None;
        // Only now it can be seen whether that is over.
        if state.outages.lasts(Cause::Behind) {
            state.tidy = true;
        }
        self.flushed.notify_all();
    }

    /// A pass failed. Blocks for `pause`, or until the record is closed.
    pub(super) fn failed(&self, why: String, pause: Duration) {
        let mut state = self.state();
        // A full disk is an outage of its own.
        if !state.released {
            state.outages.note(Cause::Failing, false, || why.clone());
        }
        state.writer_failed = Some(why);
        state.tidy = true;
        self.flushed.notify_all();
        drop(self.work.wait_timeout_while(state, pause, |state| !state.stop));
    }

    /// These segments are in the database and gone.
    pub(super) fn remove(&self, gone: &[SegmentId]) {
        self.state().segments.retain(|segment| !gone.contains(&segment.id));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
