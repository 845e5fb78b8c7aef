//! The desk: held operations that people are asked about, their answers, and the grants that come of them. Every change
//! is in the record before it takes effect. What a grant lets through is `policy`'s to say; who waits, and for how long,
//! is `pipeline`'s. What ends by the clock ends by the time that passes as well: setting the clock back prolongs nothing.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Required;
use crate::ids::{ApprovalId, BreakGlassId, Digest, GrantId, PrincipalId, WorkloadName};
use crate::policy::{Grants, Width};
use crate::record::RecordError;
use crate::record::approval::{Answer, Approval, Granted};
use crate::record::break_glass::Broken;
use crate::record::event::{ApprovalAnswer, ApprovalRequest, Evidence, What};
use crate::record::payload::Message;

mod break_glass;
pub mod evidence;
mod grants;
mod rules;

use break_glass::Glass;
use grants::Live;
pub use grants::Use;
pub use rules::{asked, lets_through, seconds};
use rules::{granted, is_enough, may_answer};

/// How a held operation was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// People said yes: there is a grant.
    Granted,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time.
    Expired,
}

/// Why an answer doesn't count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// There is no such approval, or it is closed.
    #[error("`{0}` isn't open any more, or never was")]
    Closed(String),
    /// It is somebody's own operation.
    #[error(
        "who launched the workload, logged in as who did, called it of late, or is whom its token names doesn't answer for it"
    )]
    Own,
    /// Their uid isn't enough.
    #[error("an answer needs {0}")]
    Unsigned(&'static str),
    /// They aren't one of those who are asked.
    #[error("only {} are asked", .0.join(" and "))]
    NotAsked(Vec<String>),
    /// They have answered.
    #[error("you have answered already")]
    Twice,
    /// The yes would be wider than policy lets it be.
    #[error("policy lets the yes be no wider than `{0}`")]
    TooWide(Width),
    /// It can't be recorded.
    #[error("it can't be recorded: {0}")]
    Record(String),
}

/// Why nobody is asked.
#[derive(Debug, thiserror::Error)]
pub enum Unasked {
    /// As many wait as may.
    #[error("as many operations wait for an answer as may (`limits.holds`, `limits.holds_in_all`)")]
    Full,
    /// It can't be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Who answers.
#[derive(Debug, Clone, Default)]
pub struct Answerer {
    /// Their uid.
    pub uid: u32,
    /// As whom they logged in, where the kernel knows it.
    pub loginuid: Option<u32>,
    /// Who that is, if `[people]` or a sign-in says so; who is in a group always is known.
    pub person: Option<PrincipalId>,
    /// Who they are known to be: that person, and who they logged in as.
    pub persons: BTreeSet<PrincipalId>,
    /// The other uids that are known to be the same person, also as whom they logged in.
    pub others: BTreeSet<u32>,
    /// The groups of approvers that they are in.
    pub groups: BTreeSet<String>,
    /// Those that an Entra group of their sign-in puts them in.
    pub by_sign_in: BTreeSet<String>,
    /// What proves who they are.
    pub evidence: Option<Box<Evidence>>,
    /// What their answer needs.
    pub required: Required,
    /// Who answered before, by uid, for a group that they aren't in any more: their yes counts for it no longer.
    pub lapsed: BTreeSet<(u32, String)>,
}

impl Answerer {
    /// Whether a uid is known to be theirs: their own, as whom they logged in, another one of the same person.
    pub fn is(&self, uid: u32) -> bool {
        self.uid == uid || self.others.contains(&uid)
    }
}

/// Takes down what happens, before it takes effect.
pub type Recorder = Box<dyn Fn(What) -> Result<(), RecordError> + Send + Sync>;

/// The desk.
pub struct Desk {
    record: Recorder,
    state: Mutex<State>,
    grants: watch::Sender<Arc<Grants>>,
}

/// How many questions may be open for each operation that may wait.
const OPEN_FOR_EACH: usize = 4;

/// How many bytes of bodies may be kept for people to see, of one workload: two of the largest.
const MOST_SHOWN: usize = 32 << 20;

/// How many of all workloads.
const MOST_SHOWN_IN_ALL: usize = 8 * MOST_SHOWN;

#[derive(Default)]
struct State {
    open: HashMap<ApprovalId, Open>,
    /// The approval of an operation, also once it was denied.
    of: HashMap<(WorkloadName, Digest), ApprovalId>,
    /// What was denied, and until when that lasts.
    denied: HashMap<ApprovalId, Instant>,
    grants: HashMap<GrantId, Live>,
    broken: HashMap<BreakGlassId, Glass>,
    waiting: HashMap<WorkloadName, usize>,
    /// What was granted and is closed, which isn't recorded yet.
    unclosed: Vec<ApprovalId>,
}

struct Open {
    approval: Approval,
    asked: Instant,
    ends: Instant,
    shown: Arc<Message>,
    /// Each operation that waits has a receiver of it.
    outcome: watch::Sender<Option<Outcome>>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Desk {
    /// A desk with the grants of an earlier one, and the glass that was broken. `since` is now, or when the last thing was recorded, if that is later:
    /// then the clock was set back, and what was issued after it is over.
    pub fn new(record: Recorder, granted: Vec<Granted>, broken: Vec<Broken>, since: Timestamp) -> Arc<Self> {
        let live = |one: Granted| (one.grant.id, Live::again(one, since));
        let broken = broken.into_iter().map(|one| (one.broken.id, Glass::again(one, since))).collect();
        let state = State { grants: granted.into_iter().map(live).collect(), broken, ..State::default() };
        let grants = watch::Sender::new(Arc::new(state.grants()));
        Arc::new(Self { record, state: Mutex::new(state), grants })
    }

    /// Asks about an operation, or joins those who wait for the answer to the same.
    ///
    /// # Errors
    /// So many of `most` (of the workload, of all) wait already, or it can't be recorded.
    pub fn ask(
        self: &Arc<Self>,
        request: ApprovalRequest,
        shown: Message,
        at: Timestamp,
        most: (usize, usize),
    ) -> Result<Waiting, Unasked> {
        let mut state = self.state();
        let key = (request.workload.clone(), request.digest);
        if let Some(id) = state.of.get(&key).copied() {
            if state.denied.get(&id).is_some_and(|until| Instant::now() < *until) {
                // It is answered at once, so it takes nobody's seat, and is answered where all are taken, too.
                let outcome = watch::Sender::new(Some(Outcome::Denied)).subscribe();
                return Ok(Waiting { desk: Arc::clone(self), seat: None, approval: id, outcome });
            }
            if let Some(open) = state.open.get(&id).filter(|open| open.approval.request.terms == request.terms) {
                let outcome = open.outcome.subscribe();
                return self.seat(&mut state, &key.0, (id, outcome), most).ok_or(Unasked::Full);
            }
        }
        if !state.has_room_for(&key.0, &shown, most) {
            return Err(Unasked::Full);
        }
        let id = request.approval;
        let outcome = watch::Sender::new(None);
        let waiting = self.seat(&mut state, &key.0, (id, outcome.subscribe()), most).ok_or(Unasked::Full)?;
        let event = What::ApprovalRequested(Box::new(request.clone()));
        let ends = in_seconds(request.terms.within);
        let approval = Approval { request, asked_at: at, answers: Vec::new(), closed_at: None, outcome: None };
        state.open.insert(id, Open { approval, asked: Instant::now(), ends, shown: Arc::new(shown), outcome });
        state.of.insert(key.clone(), id);
        // Under the lock: nobody may answer what isn't recorded.
        if let Err(error) = (self.record)(event) {
            state.open.remove(&id);
            state.of.remove(&key);
            // It takes the lock to leave.
            drop(state);
            drop(waiting);
            return Err(Unasked::Record(error));
        }
        Ok(waiting)
    }

    fn seat(
        self: &Arc<Self>,
        state: &mut State,
        workload: &WorkloadName,
        (approval, outcome): (ApprovalId, watch::Receiver<Option<Outcome>>),
        (each, all): (usize, usize),
    ) -> Option<Waiting> {
        let in_all: usize = state.waiting.values().sum();
        let own = state.waiting.entry(workload.clone()).or_default();
        if *own >= each || in_all >= all {
            return None;
        }
        *own += 1;
        Some(Waiting { desk: Arc::clone(self), seat: Some(workload.clone()), approval, outcome })
    }

    /// What people are asked, the oldest first.
    pub fn open(&self) -> Vec<Approval> {
        let mut open: Vec<_> = self.state().open.values().map(|open| open.approval.clone()).collect();
        open.sort_by_key(|approval| approval.request.approval);
        open
    }

    /// One open approval, with the request as it is shown, and how many wait for it; by its id or the beginning of it.
    pub fn find(&self, id: &str) -> Option<(Approval, Arc<Message>, usize)> {
        let state = self.state();
        let mut fits = state.open.values().filter(|open| open.approval.request.approval.to_string().starts_with(id));
        let found = fits.next()?;
        let waiting = found.outcome.receiver_count();
        fits.next().is_none().then(|| (found.approval.clone(), Arc::clone(&found.shown), waiting))
    }

    /// How long ago an open approval was asked for, whatever became of the clock since; none where it isn't open.
    pub fn age(&self, id: ApprovalId) -> Option<Duration> {
        self.state().open.get(&id).map(|open| open.asked.elapsed())
    }

    /// Remembers what was denied at an earlier desk: a no lasts as long as it says. `since` as [`Desk::new`] has it; where the
    /// clock was set back nobody knows how much of that has passed, and it begins anew.
    pub fn remember_denied(&self, denied: Vec<Approval>, since: Timestamp) {
        let mut state = self.state();
        for Approval { request, closed_at, .. } in denied {
            let whole = seconds(request.terms.grant_for);
            let passed = closed_at.filter(|_| since != Timestamp::MAX).map(|at| since.duration_since(at));
            let left = passed.map_or(whole, |passed| whole.min(whole.saturating_sub(passed)));
            let left = Duration::try_from(left).unwrap_or_default();
            if !left.is_zero() {
                state.denied.insert(request.approval, in_seconds(left.as_secs().saturating_add(1)));
                state.of.insert((request.workload, request.digest), request.approval);
            }
        }
    }

    /// Takes somebody's answer.
    ///
    /// # Errors
    /// Why it doesn't count.
    pub fn answer(
        &self,
        id: ApprovalId,
        by: &Answerer,
        (yes, width, note): (bool, Option<Width>, Option<String>),
        at: Timestamp,
    ) -> Result<Approval, NoAnswer> {
        let mut state = self.state();
        let open = state.open.get(&id).filter(|open| !open.is_over(at));
        let open = open.ok_or_else(|| NoAnswer::Closed(id.to_string()))?;
        let request = open.approval.request.clone();
        let standing = may_answer(&open.approval, by)?;
        let width = width.unwrap_or(Width::Operation);
        if yes && width > request.terms.grant_scope {
            return Err(NoAnswer::TooWide(request.terms.grant_scope));
        }
        let width = yes.then_some(width);
        let record = |what| (self.record)(what).map_err(|error| NoAnswer::Record(error.to_string()));
        record(What::ApprovalAnswered(Box::new(ApprovalAnswer {
            approval: id,
            yes,
            person: by.person.clone(),
            uid: by.uid,
            loginuid: by.loginuid,
            groups: standing.groups.clone(),
            confirms: standing.confirms,
            width,
            note: note.clone(),
            evidence: by.evidence.clone(),
        })))?;
        let answer = Answer {
            at,
            person: by.person.as_ref().map(ToString::to_string),
            uid: by.uid,
            loginuid: by.loginuid,
            yes,
            groups: standing.groups,
            by_sign_in: by.by_sign_in.clone(),
            confirms: standing.confirms,
            width: width.map(|width| width.to_string()),
            note,
            signed: by.evidence.as_ref().map(|evidence| evidence.bound),
        };
        let Some(open) = state.open.get_mut(&id) else { return Err(NoAnswer::Closed(id.to_string())) };
        open.approval.answers.push(answer);
        let approval = open.approval.clone();
        if !yes {
            record(What::ApprovalClosed { approval: id, outcome: "denied".into() })?;
            state.denied.insert(id, in_seconds(request.terms.grant_for));
            return Ok(state.close(id, Outcome::Denied, at).unwrap_or(approval));
        }
        if !is_enough(&approval, &by.lapsed) {
            return Ok(approval);
        }
        let grant = granted(&approval, at);
        record(What::GrantIssued { grant: Box::new(grant.clone()), by: None })?;
        // From here on there is one, so the question is closed, and isn't answered into another one.
        state.of.remove(&(request.workload, request.digest));
        let ends = in_seconds(request.terms.grant_for);
        state.grants.insert(grant.id, Live::new(grant, ends));
        self.publish(&state);
        let closed = record(What::ApprovalClosed { approval: id, outcome: "granted".into() });
        if closed.is_err() {
            state.unclosed.push(id);
        }
        Ok(state.close(id, Outcome::Granted, at).unwrap_or(approval))
    }

    /// Ends what is over at `at`. What can't be recorded as ended is tried again; it lets nothing through any more. Gives when
    /// the next of what there is ends, so that somebody looks then.
    pub fn expire(&self, at: Timestamp) -> Option<Instant> {
        let mut state = self.state();
        // Before anything is judged: what ends from here on is what is looked for next.
        let now = Instant::now();
        let over = state.open.values().filter(|open| open.is_over(at));
        let over: Vec<ApprovalId> = over.map(|open| open.approval.request.approval).collect();
        for id in over {
            if (self.record)(What::ApprovalClosed { approval: id, outcome: "expired".into() }).is_ok() {
                state.close(id, Outcome::Expired, at);
            }
        }
        state
            .unclosed
            .retain(|id| (self.record)(What::ApprovalClosed { approval: *id, outcome: "granted".into() }).is_err());
        let over = state.grants.values().filter(|live| live.ends <= now || live.grant.until <= at);
        let over: Vec<(GrantId, Option<u32>)> = over.map(|live| (live.grant.id, live.revoked_by)).collect();
        let ended = !over.is_empty() | self.expire_glass(&mut state, at);
        for (grant, by) in over {
            let reason = if by.is_some() { "revoked" } else { "expired" };
            if (self.record)(What::GrantEnded { grant, reason: reason.into(), by }).is_ok() {
                state.grants.remove(&grant);
            }
        }
        state.denied.retain(|_, until| now < *until);
        let State { of, open, denied, .. } = &mut *state;
        of.retain(|_, id| open.contains_key(id) || denied.contains_key(id));
        if ended {
            self.publish(&state);
        }
        state.next_end(now)
    }

    fn publish(&self, state: &State) {
        self.grants.send_replace(Arc::new(state.grants()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The grants, with the uses that are left.
    fn grants(&self) -> Grants {
        let now = Instant::now();
        let grants = self.grants.values().filter(|live| now < live.ends).map(Live::left).collect();
        let broken =
            self.broken.values().filter(|glass| glass.lasts()).map(|glass| Arc::clone(&glass.broken)).collect();
        Grants::new(grants, broken)
    }

    /// Whether one more question may be open. Who hangs up waits no longer, but what he asked stays, so that there are more
    /// of them than of those who wait; not without end, or a workload could fill the memory, and the list that people read.
    fn has_room_for(&self, workload: &WorkloadName, shown: &Message, (each, all): (usize, usize)) -> bool {
        let own = || self.open.values().filter(|open| open.approval.request.workload == *workload);
        let bytes: usize = own().map(|open| open.shown.body.len()).sum();
        let bytes_in_all: usize = self.open.values().map(|open| open.shown.body.len()).sum();
        own().count() < each.saturating_mul(OPEN_FOR_EACH)
            && self.open.len() < all.saturating_mul(OPEN_FOR_EACH)
            && bytes + shown.body.len() <= MOST_SHOWN
            && bytes_in_all + shown.body.len() <= MOST_SHOWN_IN_ALL
    }

    /// When the next grant, question or broken glass ends that hasn't at `now`.
    fn next_end(&self, now: Instant) -> Option<Instant> {
        let (grants, open) = (self.grants.values().map(|live| live.ends), self.open.values().map(|open| open.ends));
        let all = grants.chain(open).chain(self.broken.values().map(Glass::ends));
        all.filter(|ends| *ends > now).min()
    }

    fn close(&mut self, id: ApprovalId, outcome: Outcome, at: Timestamp) -> Option<Approval> {
        let mut open = self.open.remove(&id)?;
        open.approval.closed_at = Some(at);
        open.approval.outcome = Some(outcome.to_string());
        open.outcome.send_replace(Some(outcome));
        Some(open.approval)
    }
}

impl Open {
    fn is_over(&self, at: Timestamp) -> bool {
        self.ends <= Instant::now() || self.approval.request.until <= at
    }
}

fn in_seconds(count: u64) -> Instant {
    // A century is as good as for ever, and can be added to any instant.
    Instant::now() + Duration::from_secs(count.min(100 * 365 * 86_400))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Granted => "granted",
            Outcome::Denied => "denied",
            Outcome::Expired => "expired",
        })
    }
}

/// An operation that waits for an answer. It waits no longer once this is dropped; what is asked stays.
#[derive(Debug)]
pub struct Waiting {
    desk: Arc<Desk>,
    /// The workload of whose seats it takes one, if it does.
    seat: Option<WorkloadName>,
    approval: ApprovalId,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Waiting {
    /// What people are asked.
    pub fn approval(&self) -> ApprovalId {
        self.approval
    }

    /// Whether it was answered, or is over: there is nothing to wait for any more.
    pub fn is_over(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Waits for the answer.
    pub async fn outcome(&mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.unwrap_or(Outcome::Expired),
            // Nobody can answer any more.
            Err(_gone) => Outcome::Expired,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(workload) = &self.seat else { return };
        let mut state = self.desk.state();
        if let Some(count) = state.waiting.get_mut(workload) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.waiting.remove(workload);
            }
        }
    }
}

#[cfg(test)]
mod tests;
