//! People who sign in: what they have begun, and who is signed in by which uid. All of it is in memory only and lost at a
//! restart. Access tokens are dropped; the ID token is kept, as the evidence of the answers that are given with it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::people::{People, Said, unknown, unrecorded};
use super::reload::OwnJournal;
use crate::approve::evidence;
use crate::approve::seconds;
use crate::config::{Login, Tenant};
use crate::control::peer::Peer;
use crate::control::protocol::{Begin, Begun, Response, Step, ToSign};
use crate::control::server::{Answer, Caller};
use crate::identity::login::{self, Ask, Device, LoginError};
use crate::identity::{FetchError, JudgeError, Secret, SignedIn};
use crate::ids::{ApprovalId, ClientId, PrincipalId, TenantId};
use crate::policy::Width;
use crate::record::Reader;
use crate::record::event::{Evidence, Way, What};
use crate::transport::fetch::Fetcher;

/// How long a sign-in may take, and the span in which a uid may begin [`TRIES`] of them.
const WITHIN: Duration = Duration::from_mins(10);
/// How many sign-ins a uid may begin in that time: each asks the login host something.
const TRIES: u32 = 20;
/// How many answers one sign-in may sign: each has the whole list in its evidence.
const MOST_SIGNED: usize = 100;
/// How many may be under way, and how many uids may be signed in.
const MOST_PENDING: usize = 256;
const MOST_PEOPLE: usize = 4096;

/// The sign-ins of this host.
pub(super) struct Logins {
    fetcher: Fetcher,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pending: HashMap<String, Pending>,
    people: HashMap<u32, Arc<Session>>,
    /// Since when a uid has begun how many.
    tries: HashMap<u32, (Instant, u32)>,
}

/// A sign-in that was begun.
struct Pending {
    uid: u32,
    tenant: TenantId,
    client: ClientId,
    step: Waiting,
    ends: Instant,
    answer: Option<Asked>,
}

enum Waiting {
    Browser { state: Secret, verifier: Secret, redirect: String, nonce: String },
    Device { code: Secret, interval: Duration, next: Instant },
}

/// The answer that a sign-in is for.
struct Asked {
    /// The question; of a list, all in their order.
    ids: Vec<ApprovalId>,
    said: Said,
    salt: String,
    /// As [`Evidence`] has it.
    list: Vec<String>,
}

/// Somebody who signed in.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) person: PrincipalId,
    /// The Entra groups that he is in, `<tenant>/<id>`.
    pub(super) groups: BTreeSet<String>,
    pub(super) evidence: Evidence,
    tenant: TenantId,
    client: ClientId,
    ends: Instant,
}

impl Session {
    /// Whether it is of the tenant and the application that people sign in to now.
    pub(super) fn is_of(&self, login: &Login) -> bool {
        (self.tenant, self.client) == (login.tenant, login.client)
    }
}

/// Why a sign-in isn't to be.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no sign-in of yours is called that, or it took longer than 10 minutes")]
    Unknown,
    #[error("you signed in as `{0}`, and `[people]` says that you are somebody else")]
    OtherPerson(PrincipalId),
    #[error("a device code could have been entered by anybody; it is for uids of whom `[people]` says who they are")]
    Unmapped,
    #[error("a device code can't sign an answer")]
    Unbound,
    #[error("too many sign-ins were begun")]
    TooMany,
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("the ID token isn't believed: {0}")]
    Token(#[from] JudgeError),
    #[error("the login host can't be asked: {0}")]
    Fetch(#[from] FetchError),
}

impl Refused {
    fn code(&self) -> &'static str {
        match self {
            Refused::Unknown => "login-unknown",
            Refused::OtherPerson(_) => "login-other-person",
            Refused::Unmapped => "login-device-unmapped",
            Refused::Unbound => "login-device-unbound",
            Refused::TooMany => "too-many-logins",
            Refused::Login(LoginError::Foreign) => "login-foreign",
            Refused::Login(LoginError::Malformed(_)) => "login-malformed",
            Refused::Login(LoginError::Random) => "internal",
            Refused::Login(_) => "login-denied",
            Refused::Token(error) => error.code(),
            Refused::Fetch(_) => "login-unreachable",
        }
    }

    fn next(&self) -> &'static str {
        match self {
            Refused::Unknown | Refused::Login(LoginError::Foreign) => "begin anew with `interceptor login`",
            Refused::OtherPerson(_) => "choose your own account, or ask the operator of this host to mend `[people]`",
            Refused::Unmapped | Refused::Unbound => {
                "sign in with a browser: `interceptor login`, with `--port` and `ssh -L` from afar"
            }
            Refused::TooMany => "try again in 10 minutes",
            Refused::Fetch(_) => "see that this host reaches the login host",
            _ => "try again; the operator of this host compares `[login]` with the application's registration",
        }
    }

    /// As it is recorded: the code, and what the login host calls it.
    fn recorded(&self) -> String {
        match self {
            Refused::Login(LoginError::Denied { code, .. }) => format!("{}: {code}", self.code()),
            _ => self.code().to_owned(),
        }
    }
}

impl Logins {
    pub(super) fn new(fetcher: Fetcher) -> Self {
        Self { fetcher, state: Mutex::default() }
    }

    /// As whom a uid is signed in.
    pub(super) fn of(&self, uid: u32) -> Option<Arc<Session>> {
        self.state().people.get(&uid).filter(|one| Instant::now() < one.ends).map(Arc::clone)
    }

    /// The uids that are signed in as this person.
    pub(super) fn uids_of(&self, person: &PrincipalId) -> Vec<u32> {
        self.state().people.iter().filter(|(_, one)| one.person == *person).map(|(uid, _)| *uid).collect()
    }

    /// Ends what is over. That a sign-in is over counts whether it can be recorded or not.
    pub(super) fn expire(&self, journal: &OwnJournal) {
        let now = Instant::now();
        let mut state = self.state();
        state.pending.retain(|_, one| now < one.ends);
        state.tries.retain(|_, (since, _)| now.duration_since(*since) < WITHIN);
        let over: Vec<_> = state.people.extract_if(|_, one| one.ends <= now).collect();
        drop(state);
        for (uid, one) in over {
            journal.note(What::LoginEnded { uid, person: one.person.clone(), reason: "expired".into() });
        }
    }

    /// Counts a sign-in that begins.
    fn count(&self, uid: u32) -> Result<(), Refused> {
        let now = Instant::now();
        let mut state = self.state();
        if state.pending.len() >= MOST_PENDING || state.tries.len() >= MOST_PEOPLE {
            return Err(Refused::TooMany);
        }
        let (since, count) = state.tries.entry(uid).or_insert((now, 0));
        if now.duration_since(*since) >= WITHIN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > TRIES { Err(Refused::TooMany) } else { Ok(()) }
    }

    /// Takes a sign-in of this uid that is under way; another uid's stays where it is.
    fn take(&self, id: &str, uid: u32) -> Result<Pending, Refused> {
        let mut state = self.state();
        match state.pending.get(id) {
            Some(one) if one.uid == uid && Instant::now() < one.ends => state.pending.remove(id),
            _ => None,
        }
        .ok_or(Refused::Unknown)
    }

    fn put(&self, id: String, pending: Pending) {
        self.state().pending.insert(id, pending);
    }

    /// Posts a form to an endpoint of the login host.
    fn submit(&self, url: &str, form: &str) -> Result<bytes::Bytes, FetchError> {
        // What asks stands on a thread of its own that may block.
        Handle::current().block_on(self.fetcher.submit(url, form))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl People<'_> {
    /// Begins a sign-in.
    pub(super) fn begin(&self, caller: &Caller, begin: Begin, reader: &Reader) -> Answer {
        let peer = &caller.peer;
        let Some((login, tenant)) = self.login() else { return not_configured() };
        let asked = match begin.answer.map(|to_sign| self.asked(peer, to_sign, reader)).transpose() {
            Ok(asked) => asked,
            Err(refused) => return refused,
        };
        match self.begun(peer.uid, (&login, &tenant), begin.port, asked) {
            Ok(begun) => Answer::done(json!(begun)),
            Err(refused) => self.turn_away(peer, None, &refused),
        }
    }

    /// What somebody wants to sign, where he could answer it, with the nonce that stands for it.
    fn asked(&self, peer: &Peer, to_sign: ToSign, reader: &Reader) -> Result<(Asked, String), Answer> {
        let ToSign { id, others, yes, width, note } = to_sign;
        if others.len() >= MOST_SIGNED {
            let message = format!("one sign-in signs {MOST_SIGNED} answers at most");
            return Err(Answer::refused("too-many-to-sign", message, "answer some of them one by one"));
        }
        let signed = self.logins.of(peer.uid);
        let by = self.answerer_as(peer, signed.as_deref());
        let (mut ids, mut requested) = (Vec::new(), Vec::new());
        for id in std::iter::once(id).chain(others) {
            let id = self.askable(peer, &by, &id, yes)?;
            requested.push(reader.requested(id).map_err(|error| unknown(&error))?);
            ids.push(id);
        }
        let salt = login::random().map_err(|error| self.turn_away(peer, None, &error.into()))?.expose().to_owned();
        let said = Said { yes, width: yes.then_some(width.unwrap_or(Width::Operation)), note };
        let what = evidence::Said { yes, width: said.width, note: said.note.as_deref() };
        let (list, nonce) = match requested.as_slice() {
            [one] => (Vec::new(), evidence::nonce(one, &salt, what)),
            all => {
                let list: Vec<String> = all.iter().map(|one| evidence::fingerprint(one)).collect();
                let nonce = evidence::nonce_of_list(&list, &salt, what);
                (list, nonce)
            }
        };
        Ok((Asked { ids, said, salt, list }, nonce))
    }

    fn begun(
        &self,
        uid: u32,
        (login, tenant): (&Login, &Tenant),
        port: Option<u16>,
        asked: Option<(Asked, String)>,
    ) -> Result<Begun, Refused> {
        self.logins.count(uid)?;
        let id = login::random()?.expose().to_owned();
        let (answer, nonce) = asked.map_or((None, None), |(asked, nonce)| (Some(asked), Some(nonce)));
        let (begun, step, lasts) = match port {
            Some(port) => {
                let (state, verifier) = (login::random()?, login::random()?);
                let nonce = nonce.map_or_else(|| login::random().map(|nonce| nonce.expose().to_owned()), Ok)?;
                let redirect = login::redirect(port);
                let challenge = login::challenge(verifier.expose());
                let ask = Ask { redirect: &redirect, state: state.expose(), nonce: &nonce, challenge: &challenge };
                let url = login::authorize_url(tenant, login.client, ask);
                let known = Some(state.expose().to_owned());
                let begun = Begun { login: id.clone(), url, state: known, user_code: None, wait: 0, within: 0 };
                (begun, Waiting::Browser { state, verifier, redirect, nonce }, WITHIN)
            }
            // Entra takes no nonce with a device code: nothing can be bound.
            None if answer.is_some() => return Err(Refused::Unbound),
            None => {
                self.is_himself(uid, None, Way::Device)?;
                let form = login::device_form(login.client);
                let device = Device::parse(&self.logins.submit(&login::endpoint(tenant, "devicecode"), &form)?)?;
                let Device { code, user_code, uri, lasts, interval } = device;
                let wait = interval.as_secs();
                let begun =
                    Begun { login: id.clone(), url: uri, state: None, user_code: Some(user_code), wait, within: 0 };
                (begun, Waiting::Device { code, interval, next: Instant::now() + interval }, lasts.min(WITHIN))
            }
        };
        let (tenant, client, ends) = (login.tenant, login.client, Instant::now() + lasts);
        self.logins.put(id, Pending { uid, tenant, client, step, ends, answer });
        Ok(Begun { within: lasts.as_secs(), ..begun })
    }

    /// Goes on with a sign-in: exchanges the code, verifies the ID token, and does what it is for.
    pub(super) fn end(&self, caller: &Caller, id: &str, query: Option<&str>) -> Answer {
        let peer = &caller.peer;
        let Some((login, tenant)) = self.login() else { return not_configured() };
        let pending = match self.logins.take(id, peer.uid) {
            Ok(pending) if (pending.tenant, pending.client) == (login.tenant, login.client) => pending,
            Ok(_) => return self.turn_away(peer, None, &Refused::Unknown),
            Err(refused) => return self.turn_away(peer, None, &refused),
        };
        let (way, token, nonce) = match self.token(&pending.step, &login, &tenant, query) {
            Ok(found) => found,
            Err(Refused::Login(LoginError::Pending { slower })) => return self.wait(id, pending, slower),
            Err(refused) => return self.turn_away(peer, None, &refused),
        };
        let judged = self.pipeline.judge.sign_in(&tenant, login.client, token.expose(), nonce.as_deref());
        let signed = match Handle::current().block_on(judged) {
            Ok(signed) => signed,
            Err(error) => return self.turn_away(peer, None, &error.into()),
        };
        if let Err(refused) = self.is_himself(peer.uid, Some(&signed.person), way) {
            return self.turn_away(peer, Some(signed.person), &refused);
        }
        let SignedIn { person, groups, uti, jwk } = signed;
        let (salt, list) = pending.answer.as_ref().map(|answer| (answer.salt.clone(), answer.list.clone())).unzip();
        let (bound, id_token) = (salt.is_some(), token.expose().to_owned());
        let evidence = Evidence { bound, way, salt, list: list.unwrap_or_default(), id_token, jwk };
        let (tenant, client, ends) = (login.tenant, login.client, Instant::now() + login.lasts);
        let session = Session { person, groups, evidence, tenant, client, ends };
        match pending.answer {
            Some(asked) => self.sign(peer, &session, uti, asked),
            None => self.sign_in(peer, session, uti, &login),
        }
    }

    /// The ID token that the login host gives for what somebody brought, and the nonce that it must have.
    fn token(
        &self,
        step: &Waiting,
        login: &Login,
        tenant: &Tenant,
        query: Option<&str>,
    ) -> Result<(Way, Secret, Option<String>), Refused> {
        let url = login::endpoint(tenant, "token");
        match step {
            Waiting::Browser { state, verifier, redirect, nonce } => {
                let code = login::code(query.unwrap_or_default(), state.expose())?;
                let form = login::code_form(login.client, &code, redirect, verifier);
                let token = login::id_token(&self.logins.submit(&url, &form)?)?;
                Ok((Way::Browser, token, Some(nonce.clone())))
            }
            Waiting::Device { next, .. } if Instant::now() < *next => Err(LoginError::Pending { slower: false }.into()),
            Waiting::Device { code, .. } => {
                let form = login::device_code_form(login.client, code);
                Ok((Way::Device, login::id_token(&self.logins.submit(&url, &form)?)?, None))
            }
        }
    }

    /// Nobody has entered the code yet.
    fn wait(&self, id: &str, mut pending: Pending, slower: bool) -> Answer {
        let mut wait = 1;
        if let Waiting::Device { interval, next, .. } = &mut pending.step {
            if slower {
                // RFC 8628 section 3.5.
                *interval += Duration::from_secs(5);
            }
            let now = Instant::now();
            if *next <= now {
                *next = now + *interval;
            }
            wait = next.duration_since(now).as_secs() + 1;
        }
        self.logins.put(id.to_owned(), pending);
        Answer::done(json!(Step::Wait(wait)))
    }

    /// Whether a uid may be this person: the one that `[people]` says it is. Without such a word a device code proves
    /// nothing, since whoever begins it can have another enter it.
    fn is_himself(&self, uid: u32, person: Option<&PrincipalId>, way: Way) -> Result<(), Refused> {
        let world = self.loader.world();
        match (world.snapshot.settings.identities.people.get(&uid), person) {
            (Some(mapped), Some(person)) if mapped != person => Err(Refused::OtherPerson(person.clone())),
            (None, _) if way == Way::Device => Err(Refused::Unmapped),
            _ => Ok(()),
        }
    }

    /// Gives the answer that somebody signed in for. The sign-in is good for nothing else.
    fn sign(&self, peer: &Peer, session: &Session, uti: Option<String>, asked: Asked) -> Answer {
        let (uid, pid, person, client) = (peer.uid, peer.pid, session.person.clone(), session.client);
        let Asked { ids, said, .. } = asked;
        // Of a list the first: the evidence of each answer names them all.
        let (way, approval) = (session.evidence.way, ids.first().copied());
        let event = What::LoginSucceeded { uid, pid, person, client, way, approval, until: None, uti };
        if let Err(error) = self.launches.journal().record(event) {
            return unrecorded(&error);
        }
        let by = self.answerer_as(peer, Some(session));
        let give = |id: &ApprovalId| {
            let answered = self.askable(peer, &by, &id.to_string(), said.yes);
            answered.and_then(|id| self.say(peer, &by, id, said.clone())).unwrap_or_else(|refused| refused)
        };
        match ids.as_slice() {
            [one] => match give(one) {
                Answer { response: Response::Done(approval), .. } => Answer::done(json!({ "answered": approval })),
                refused => refused,
            },
            all => {
                let given = all.iter().map(|one| brief(give(one).response)).collect();
                Answer::done(json!(Step::AnsweredAll(given)))
            }
        }
    }

    /// Has somebody signed in, in place of whoever was by this uid.
    fn sign_in(&self, peer: &Peer, session: Session, uti: Option<String>, login: &Login) -> Answer {
        let (uid, pid, person, client) = (peer.uid, peer.pid, session.person.clone(), session.client);
        let journal = self.launches.journal();
        let until = journal.now().saturating_add(seconds(login.lasts.as_secs())).unwrap_or_else(|_far| journal.now());
        let (way, told) = (session.evidence.way, person.to_string());
        let mut state = self.logins.state();
        if state.people.len() >= MOST_PEOPLE && !state.people.contains_key(&uid) {
            drop(state);
            return self.turn_away(peer, Some(person), &Refused::TooMany);
        }
        // Under the lock: nobody may answer with what isn't recorded.
        let event = What::LoginSucceeded { uid, pid, person, client, way, approval: None, until: Some(until), uti };
        if let Err(error) = journal.record(event) {
            return unrecorded(&error);
        }
        let before = state.people.insert(uid, Arc::new(session));
        drop(state);
        if let Some(before) = before {
            journal.note(What::LoginEnded { uid, person: before.person.clone(), reason: "replaced".into() });
        }
        let by = self.answerer_as(peer, self.logins.of(uid).as_deref());
        Answer::done(json!(Step::SignedIn { person: told, groups: by.groups.into_iter().collect(), until }))
    }

    /// Ends the sign-in of a uid.
    pub(super) fn logout(&self, caller: &Caller) -> Answer {
        let uid = caller.peer.uid;
        let gone = self.logins.state().people.remove(&uid);
        if let Some(gone) = &gone {
            let event = What::LoginEnded { uid, person: gone.person.clone(), reason: "logout".into() };
            self.launches.journal().note(event);
        }
        Answer::done(json!({ "person": gone.map(|gone| gone.person.to_string()) }))
    }

    /// Refuses a sign-in, and records that.
    fn turn_away(&self, peer: &Peer, person: Option<PrincipalId>, refused: &Refused) -> Answer {
        let (uid, pid, code) = (peer.uid, peer.pid, refused.recorded());
        self.launches.journal().note(What::LoginRefused { uid, pid, person, code });
        Answer::refused(refused.code(), refused.to_string(), refused.next())
    }

    /// How people sign in at this moment.
    fn login(&self) -> Option<(Login, Tenant)> {
        let world = self.loader.world();
        let identities = &world.snapshot.settings.identities;
        let login = identities.login.clone()?;
        let tenant = identities.tenant(login.tenant)?.clone();
        Some((login, tenant))
    }
}

/// An answered approval without what may be long of it: a list of them goes into one frame, and who answered has seen it.
fn brief(mut response: Response) -> Response {
    if let Response::Done(approval) = &mut response {
        (approval["summary"], approval["shape"]["path"]) = (json!(""), json!(""));
    }
    response
}

fn not_configured() -> Answer {
    let next = "ask the operator of this host for a table `[login]`";
    Answer::refused("login-not-configured", "this host's configuration has no `[login]`", next)
}
