//! Deciding an operation that people may have to say yes to: it is read in full, held while they are asked, and decided
//! again when they have answered, or policy has changed. Nothing of it goes on before.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep_until};

use super::authenticate::{Authenticated, Identified, Wanted};
use super::digest::JUSTIFICATION;
use super::gate::not_recorded;
use super::live::Live;
use super::operation::{Decided, busy};
use super::payload::exhibit;
use super::request::Decoded;
use super::ruling::{Known, PENDING, Ruling, not_askable};
use crate::approve::{Outcome, Unasked, Waiting, seconds};
use crate::detect::secrets;
use crate::error::{Blame, Fault};
use crate::ids::{ApprovalId, Digest};
use crate::policy::{Operation, Shape, Terms};
use crate::record::event::ApprovalRequest;
use crate::transport::http::RequestBody;
use crate::who::LATE;

/// How long a client may take to send what people are to be asked about.
const PATIENCE: Duration = Duration::from_secs(30);

/// For how long, and how much at most, a client is heard out that sends more than people can be asked about.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 8 << 20;

impl Authenticated {
    /// Decides it in the world of the moment. What has to be approved waits here.
    pub(super) async fn decide(mut self, live: &Rc<Live>) -> Decided {
        let mut digest = None;
        let mut held: Option<Held> = None;
        loop {
            let ruling = live.rule(self.who.as_ref(), self.wanted.operation(live), Known { digest, using: None });
            let Some(terms) = ruling.hold.clone() else {
                return self.decided(live, ruling, digest, held).await;
            };
            if held.is_none() && digest.is_none() {
                match self.whole(live).await {
                    // What it is known by may be let through already.
                    Ok(known) => digest = Some(known),
                    Err(fault) => return Decided::refused(ruling.refused_for(fault.into(), None)),
                }
                continue;
            }
            let Some(known) = digest else { continue };
            let until = held.as_ref().map(|held| held.until);
            // After a yes that another request has used there is nothing to wait for: people are asked anew.
            let still = held.take().filter(|held| held.terms == terms && !held.waiting.is_over());
            let mut now = match still {
                Some(held) => held,
                None => match self.ask(live, &ruling, &terms, known) {
                    Ok(waiting) => Held::new(live, waiting, terms, until),
                    Err(fault) => return Decided::refused(ruling.refused_for(fault.into(), None)),
                },
            };
            match now.wait(ruling, self.who.as_mut()).await {
                Ok(()) => held = Some(now),
                Err(ruling) => return Decided::refused(*ruling),
            }
        }
    }

    /// What isn't held, or no longer. A use of a grant that somebody else took is decided again, by what is left.
    async fn decided(self, live: &Rc<Live>, ruling: Ruling, digest: Option<Digest>, held: Option<Held>) -> Decided {
        // It is looked at now and then only, and may have gone just before it was answered.
        let gone = held.as_ref().filter(|held| held.live.is_client_gone()).map(Held::gone);
        let approval = held.map(Held::end);
        if let Some(gone) = gone.filter(|_| ruling.verdict.is_ok()) {
            return Decided::refused(ruling.refused_for(gone.into(), approval));
        }
        let ruling = Ruling { approval, ..ruling };
        let grant = ruling.verdict.as_ref().ok().and_then(|permit| permit.basis().grant);
        let Some(grant) = grant else { return Decided::new(ruling, self, (digest, None)) };
        match live.session().worker.pipeline.desk.take(grant) {
            Some(usage) => Decided::new(ruling, self, (digest, Some(usage))),
            // Whoever comes later asks anew.
            None => Decided::refused(ruling.refused_for(used_up().into(), approval)),
        }
    }

    /// Reads the request in full, and gives what it is known by.
    async fn whole(&mut self, live: &Rc<Live>) -> Result<Digest, Fault> {
        let Wanted::Http { credential, websocket, .. } = &self.wanted else { return Err(not_askable()) };
        let (credential, websocket) = (*credential, *websocket);
        let most = live.session().limits().hold.body;
        let body = std::mem::take(&mut self.decoded.body);
        let bytes = match body {
            RequestBody::Whole(bytes) => bytes,
            RequestBody::Streaming(body) => {
                // Nobody has been asked yet, but it is kept already.
                let _seat = live.seat().ok_or_else(busy)?;
                let read = tokio::time::timeout(PATIENCE, collect(body, most)).await;
                read.map_err(|_elapsed| too_slow())??
            }
        };
        self.decoded.body = RequestBody::Whole(bytes.clone());
        let key = &live.session().worker.pipeline.approval_key;
        Ok(key.digest(live, (self.who.as_ref(), credential), (&self.decoded.parts, websocket), &bytes))
    }

    /// Asks people.
    fn ask(&self, live: &Rc<Live>, ruling: &Ruling, terms: &Terms, digest: Digest) -> Result<Waiting, Fault> {
        let session = live.session();
        let at = session.worker.now();
        let (RequestBody::Whole(body), Some(target)) = (&self.decoded.body, ruling.target.clone()) else {
            return Err(not_askable());
        };
        let Operation::Http(request) = self.wanted.operation(live) else { return Err(not_askable()) };
        let basis = ruling.basis();
        let asked = ApprovalRequest {
            approval: ApprovalId::new(),
            until: at.saturating_add(seconds(terms.within)).unwrap_or(at),
            session: session.id,
            launch: session.subject.launch,
            workload: session.subject.workload.clone(),
            process: session.process.clone(),
            initiator: session.subject.asker.initiator,
            loginuid: session.subject.asker.loginuid,
            callers: session.worker.pipeline.callers.within(&session.subject.workload, LATE),
            identity: ruling.who.as_ref().map(|who| Box::new(who.recorded())),
            credential: ruling.credential,
            target,
            action: ruling.action.to_string(),
            summary: ruling.summary.clone(),
            digest,
            shape: Shape::of(&request),
            policies: basis.policies.clone(),
            reasons: basis.reasons.clone(),
            terms: terms.clone(),
            justification: justification(&self.decoded),
            masked: !basis.obligations.masks.is_empty(),
        };
        let limits = session.limits().hold;
        let shown = exhibit(&self.decoded, body);
        let desk = &session.worker.pipeline.desk;
        desk.ask(asked, shown, at, (limits.each, limits.all)).map_err(|error| match error {
            Unasked::Full => too_many(),
            Unasked::Record(error) => {
                tracing::error!(%error, "an approval could not be recorded, so the operation is denied");
                not_recorded(&error)
            }
        })
    }
}

/// An operation that waits.
struct Held {
    live: Rc<Live>,
    waiting: Waiting,
    terms: Terms,
    /// Until when its client is kept waiting, however often it is decided again.
    until: Instant,
    /// What is recorded if its client goes away.
    ruling: Option<Ruling>,
}

impl Held {
    /// `until`: as it waited before on other terms.
    fn new(live: &Rc<Live>, waiting: Waiting, terms: Terms, until: Option<Instant>) -> Self {
        live.begin();
        let until = until.unwrap_or_else(|| Instant::now() + live.session().limits().hold.patience);
        Self { live: Rc::clone(live), waiting, terms, until, ruling: None }
    }

    /// Waits until it is to be decided again, on what is known then of who sends it.
    ///
    /// # Errors
    /// The refusal that the client gets.
    async fn wait(&mut self, ruling: Ruling, who: Option<&mut Identified>) -> Result<(), Box<Ruling>> {
        let session = Rc::clone(self.live.session());
        let mut worlds = session.worlds.clone();
        let mut grants = session.worker.pipeline.desk.watch();
        worlds.mark_unchanged();
        grants.mark_unchanged();
        let action = ruling.action.clone();
        self.ruling = Some(ruling);
        let fault = tokio::select! {
            biased;
            outcome = self.waiting.outcome() => match outcome {
                Outcome::Granted => None,
                Outcome::Denied => Some(refused("approval-denied", "somebody who was asked said no", DENIED)),
                Outcome::Expired => Some(refused("approval-expired", "nobody answered in time", EXPIRED)),
            },
            Ok(()) = worlds.changed() => None,
            Ok(()) = grants.changed() => None,
            () = self.live.client_gone() => Some(self.gone()),
            () = sleep_until(self.until) => Some(refused(PENDING, "it waits for a person to approve it", WAITS)),
        };
        if fault.is_none() {
            if let Some(who) = who {
                self.live.refresh(who, &action).await;
            }
            catch_up().await;
        }
        let approval = self.waiting.approval();
        match (fault, self.ruling.take()) {
            (Some(fault), Some(ruling)) => Err(Box::new(ruling.refused_for(fault.into(), Some(approval)))),
            _ => Ok(()),
        }
    }

    fn gone(&self) -> Fault {
        Fault {
            code: self.live.ended().unwrap_or("client-gone"),
            blame: Blame::Client,
            told: "the client went away while people were asked".into(),
            next: "send it again",
        }
    }

    /// It waits no longer.
    fn end(self) -> ApprovalId {
        self.waiting.approval()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.live.finish();
        // Its client went away: nothing of it is done later. What people let through stays, for when it comes again.
        let Some(ruling) = self.ruling.take() else { return };
        let ruling = ruling.refused_for(self.gone().into(), Some(self.waiting.approval()));
        if let Ok((operation, _recorded)) = self.live.session().record(&ruling) {
            self.live.session().finish(operation, ruling.code(), None);
        }
    }
}

/// Lets what the client sent before now take effect before what is waited for does: a stream that was reset isn't run by a
/// yes that came later, if it is read in one turn. In the first its connection is read, in the second hyper looks at what was
/// read, and drops whoever still waits.
async fn catch_up() {
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

/// Reads a body of at most `most` bytes.
async fn collect(mut body: impl Body<Data = Bytes> + Unpin, most: usize) -> Result<Bytes, Fault> {
    let mut bytes = Vec::new();
    while body.size_hint().lower() <= (most - bytes.len()) as u64 {
        let Some(frame) = body.frame().await else { return Ok(bytes.into()) };
        let Ok(data) = frame.map_err(|_broken| ended_early())?.into_data() else { continue };
        if data.len() > most - bytes.len() {
            break;
        }
        bytes.extend_from_slice(&data);
    }
    drop(bytes);
    let _done = tokio::time::timeout(LINGER, discard(body)).await;
    Err(too_large())
}

/// Takes what the client is still sending, for a while: one that sends when its connection is closed doesn't read why
/// (RFC 9112 section 9.6).
async fn discard(mut body: impl Body<Data = Bytes> + Unpin) {
    let mut left = LINGER_BYTES;
    while body.size_hint().lower() <= left {
        let Some(Ok(frame)) = body.frame().await else { return };
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
    }
}

/// Why its sender says it is wanted.
fn justification(decoded: &Decoded) -> Option<String> {
    let value = decoded.parts.headers.get(JUSTIFICATION)?;
    let kept = secrets::header(JUSTIFICATION.as_str(), value.as_bytes());
    Some(String::from_utf8_lossy(&kept).chars().take(1000).collect())
}

const WAITS: &str = "a person has to approve it: tell the user, and send exactly the same request again later";
const DENIED: &str = "don't retry: tell the user that it was refused by a person";
const EXPIRED: &str = "ask the user whether it is still wanted, then send it again";

fn refused(code: &'static str, told: &str, next: &'static str) -> Fault {
    Fault { code, blame: Blame::Policy, told: told.into(), next }
}

fn too_large() -> Fault {
    refused(
        "too-large-to-approve",
        "its body is larger than people can be asked about (`limits.approvable_body`)",
        "send less at once",
    )
}

fn ended_early() -> Fault {
    Fault {
        code: "client-gone",
        blame: Blame::Client,
        told: "the request's body ended early".into(),
        next: "send it again",
    }
}

fn too_slow() -> Fault {
    Fault {
        code: "request-timeout",
        blame: Blame::Client,
        told: "the request's body took too long".into(),
        next: "send it again",
    }
}

fn too_many() -> Fault {
    Fault {
        code: "too-many-holds",
        blame: Blame::Interceptor,
        told: "as many operations wait for an answer as may (`limits.holds`, `limits.holds_in_all`)".into(),
        next: "wait until some are answered, then try again",
    }
}

fn used_up() -> Fault {
    refused("grant-used-up", "what was approved was used by another request", "send it again: people are asked anew")
}
