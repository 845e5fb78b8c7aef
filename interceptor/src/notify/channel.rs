//! A channel: what waits to be told by it, and the task that tells it. The queue is bounded and in memory; who puts
//! something in never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::deliver::{Again, Deliver, Undelivered};
use super::notice::Notice;
use crate::clock::Clock;
use crate::config::Occasion;
use crate::ids::ChannelName;
use crate::record::event::What;

/// How much may wait.
pub(super) const MOST: usize = 256;

/// How often one is tried, and for how long at most.
pub(super) const TRIES: u32 = 6;
pub(super) const LIFE: Duration = Duration::from_secs(15 * 60);

/// How long the first pause after a failure is; each further one is three times as long, all of them give or take a fifth.
const PAUSE: Duration = Duration::from_secs(5);

/// Why what was dropped was.
const TOO_MANY: &str = "more waited than may";
const GONE: &str = "the channel is gone";

/// Takes down what became of a notification.
pub type Report = Arc<dyn Fn(What) + Send + Sync>;

/// What a load of the configuration can change of a channel.
pub(super) struct Setting {
    pub(super) on: Vec<Occasion>,
    pub(super) groups: Option<Vec<String>>,
    pub(super) way: Box<dyn Deliver>,
}

/// A channel.
pub(super) struct Channel {
    pub(super) name: ChannelName,
    state: Mutex<State>,
    woken: Notify,
}

struct State {
    setting: Arc<Setting>,
    queue: Queue,
    /// Why the last try failed; none if it didn't.
    failing: Option<String>,
}

/// What waits, in no order.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    /// What was dropped and isn't reported yet.
    lost: Vec<Lost>,
    /// How much more was dropped since.
    uncounted: u64,
    /// Until when the receiver wants to be left alone.
    paused: Option<Instant>,
    /// Whether one was dropped since it was full.
    overflowed: bool,
    closed: bool,
}

/// A notification that waits for its next try.
#[derive(Debug)]
struct Pending {
    notice: Arc<Notice>,
    tries: u32,
    due: Instant,
    /// When it isn't worth another try. The oldest is the one that ends first.
    ends: Instant,
}

/// A notification that nobody will be told.
#[derive(Debug)]
struct Lost {
    notice: Arc<Notice>,
    tries: u32,
    reason: String,
}

/// What is to be done next.
enum Next {
    Try(Pending),
    Report(Vec<Lost>),
    WaitUntil(Instant),
    Wait,
    End,
}

impl Channel {
    pub(super) fn new(name: ChannelName, setting: Setting) -> Self {
        let state = State { setting: Arc::new(setting), queue: Queue::default(), failing: None };
        Self { name, state: Mutex::new(state), woken: Notify::new() }
    }

    /// Goes on in another way, with what waits.
    pub(super) fn change(&self, setting: Setting) {
        self.state().setting = Arc::new(setting);
    }

    /// Puts a notification in, if it is one for this channel. Where too many wait, the oldest isn't told; of an emergency it
    /// is only if nothing else waits.
    pub(super) fn put(&self, notice: &Arc<Notice>) {
        let now = Instant::now();
        let mut state = self.state();
        let Setting { on, groups, .. } = &*state.setting;
        if !notice.is_for(on, groups.as_deref()) {
            return;
        }
        let pending = Pending { notice: Arc::clone(notice), tries: 0, due: now, ends: now + LIFE };
        self.keep(&mut state, pending);
        drop(state);
        self.woken.notify_one();
    }

    /// Ends the task; what waits isn't told, which is reported first.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.queue.closed = true;
        let waiting = std::mem::take(&mut state.queue.waiting);
        let left = waiting.len();
        waiting.into_iter().for_each(|pending| state.queue.lose(pending, GONE));
        drop(state);
        if left > 0 {
            tracing::warn!(channel = %self.name, left, "a channel is gone; what waited for it isn't told");
            self.count("dropped", left as u64);
        }
        self.woken.notify_one();
    }

    /// How many wait, and why the last try failed.
    pub(super) fn doing(&self) -> (usize, Option<String>) {
        let state = self.state();
        (state.queue.waiting.len(), state.failing.clone())
    }

    /// Tries once, whatever waits.
    ///
    /// # Errors
    /// Why it wasn't told.
    pub(super) async fn attempt(&self, notice: &Notice, clock: &dyn Clock) -> Result<String, Undelivered> {
        let setting = Arc::clone(&self.state().setting);
        let answer = setting.way.deliver(notice, clock.now()).await;
        self.state().failing = answer.as_ref().err().map(ToString::to_string);
        answer
    }

    /// Tells what is put in, until the channel is closed.
    pub(super) async fn run(self: Arc<Self>, clock: Arc<dyn Clock>, report: Report) {
        loop {
            let next = self.state().queue.next(Instant::now());
            match next {
                Next::End => return,
                Next::Wait => self.woken.notified().await,
                Next::WaitUntil(when) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(when) => {}
                        () = self.woken.notified() => {}
                    }
                }
                Next::Try(pending) => self.tell(pending, &*clock, &report).await,
                Next::Report(lost) => self.note(lost, &report).await,
            }
        }
    }

    async fn tell(&self, mut pending: Pending, clock: &dyn Clock, report: &Report) {
        pending.tries += 1;
        let error = match self.attempt(&pending.notice, clock).await {
            Ok(_said) => return self.count("delivered", 1),
            Err(error) => error,
        };
        tracing::debug!(channel = %self.name, tries = pending.tries, %error, "a notification wasn't delivered");
        let now = Instant::now();
        let Some(due) = self.due(&pending, &error, now) else {
            return self.give_up(pending, &error, report).await;
        };
        pending.due = due;
        self.keep(&mut self.state(), pending);
    }

    /// When it is tried again, if it is.
    fn due(&self, pending: &Pending, error: &Undelivered, now: Instant) -> Option<Instant> {
        let Again::After(after) = error.again() else { return None };
        if let Some(after) = after {
            self.state().queue.paused = Some(now + after.min(LIFE));
        }
        let wait = pause(pending.tries).max(after.unwrap_or_default());
        let due = now.checked_add(wait)?;
        (pending.tries < TRIES && due <= pending.ends).then_some(due)
    }

    async fn give_up(&self, pending: Pending, error: &Undelivered, report: &Report) {
        self.count("failed", 1);
        let Pending { notice, tries, .. } = pending;
        tracing::warn!(channel = %self.name, about = %notice.about, tries, %error, "nobody was told");
        self.note(vec![Lost { notice, tries, reason: error.to_string() }], report).await;
    }

    /// Takes down what nobody was told.
    async fn note(&self, lost: Vec<Lost>, report: &Report) {
        let failed = |Lost { notice, tries, reason }: Lost| What::NotificationFailed {
            channel: self.name.clone(),
            message: notice.id,
            occasion: notice.kind().into(),
            about: notice.about.clone(),
            tries,
            reason,
        };
        let failed: Vec<What> = lost.into_iter().map(failed).collect();
        let report = Arc::clone(report);
        // It waits for a disk.
        let reported = tokio::task::spawn_blocking(move || failed.into_iter().for_each(|one| report(one))).await;
        if reported.is_err() {
            tracing::error!("that nobody was told couldn't be recorded");
        }
    }

    fn keep(&self, state: &mut State, pending: Pending) {
        let Some(dropped) = state.queue.push(pending) else { return };
        if !std::mem::replace(&mut state.queue.overflowed, true) {
            let about = &dropped.notice.about;
            tracing::warn!(channel = %self.name, %about, "more than {MOST} wait; from here on the oldest aren't told");
        }
        state.queue.lose(dropped, TOO_MANY);
        self.count("dropped", 1);
    }

    fn count(&self, outcome: &'static str, count: u64) {
        let channel = self.name.to_string();
        metrics::counter!("interceptor_notifications_total", "channel" => channel, "outcome" => outcome)
            .increment(count);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Puts one in; gives the oldest, where there is no room for it, and one of an emergency last.
    fn push(&mut self, pending: Pending) -> Option<Pending> {
        self.waiting.push_back(pending);
        if self.waiting.len() <= MOST {
            return None;
        }
        let worth = |one: &Pending| (one.notice.is_emergency(), one.ends);
        let least = self.waiting.iter().enumerate().min_by_key(|(_, one)| worth(one)).map(|(at, _)| at);
        least.and_then(|at| self.waiting.remove(at))
    }

    /// What nobody will be told is reported, as far as there is room to remember it until then; the last one says how many
    /// more there are.
    fn lose(&mut self, pending: Pending, reason: &str) {
        if self.lost.len() < MOST {
            self.lost.push(Lost { notice: pending.notice, tries: pending.tries, reason: reason.to_owned() });
        } else {
            self.uncounted += 1;
        }
    }

    /// What is to be reported.
    fn take_lost(&mut self) -> Vec<Lost> {
        let mut lost = std::mem::take(&mut self.lost);
        let more = std::mem::take(&mut self.uncounted);
        if let Some(last) = lost.last_mut().filter(|_| more > 0) {
            last.reason = format!("{}; so it was with {more} others", last.reason);
        }
        lost
    }

    /// What is to be done: the one that is due first, if the receiver may be asked.
    fn next(&mut self, now: Instant) -> Next {
        if !self.lost.is_empty() {
            return Next::Report(self.take_lost());
        }
        if self.closed {
            return Next::End;
        }
        self.paused = self.paused.filter(|until| now < *until);
        let first = self.waiting.iter().enumerate().min_by_key(|(_, one)| one.due).map(|(at, one)| (at, one.due));
        let Some((at, due)) = first else {
            self.overflowed = false;
            return Next::Wait;
        };
        let when = self.paused.map_or(due, |until| until.max(due));
        if now < when {
            return Next::WaitUntil(when);
        }
        self.waiting.remove(at).map_or(Next::Wait, Next::Try)
    }
}

/// How long it is waited after so many tries.
fn pause(tries: u32) -> Duration {
    let whole = PAUSE * 3_u32.saturating_pow(tries.saturating_sub(1));
    let mut byte = [127];
    // Without random bytes all wait equally long, which works as well.
    let _unspecified = aws_lc_rs::rand::fill(&mut byte);
    whole * 4 / 5 + whole * 2 / 5 * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests;
