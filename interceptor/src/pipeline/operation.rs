//! An HTTP operation once it is decoded: decided, recorded, then forwarded or refused. What is under way is decided
//! again whenever the world changes, and ends when it no longer may go on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::response::Parts;
use http::{Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use super::answer::{Coming, request_id};
use super::authenticate::{Authenticated, Identified, Wanted};
use super::charge::Charge;
use super::credential::has_body;
use super::live::Live;
use super::membership::Again;
use super::onward::Way;
use super::payload::Taking;
use super::reply::{Refusal, ReplyBody, problem, status};
use super::request::Decoded;
use super::ruling::{Known, Ruling};
use super::screen::{Masked, Screen};
use super::token::Observing;
use super::websocket;
use crate::approve::Use;
use crate::identity::challenge::{self, Challenge};
use crate::identity::provenance::Death;
use crate::ids::{Digest, OperationId};
use crate::mask::Plan;
use crate::policy::{Basis, Permit};
use crate::record::Recorded;
use crate::record::event::{Payload, What};
use crate::transport::http::{Meter, Version, strip_hop_by_hop};

mod faults;

pub(super) use faults::{busy, client_gone, cut_off, nothing_decoded};

/// A decided operation, not yet recorded.
pub(super) struct Decided {
    ruling: Ruling,
    authenticated: Option<Authenticated>,
    digest: Option<Digest>,
    usage: Option<Use>,
}

/// An operation that may go on: decided and recorded.
pub(super) struct Permitted {
    operation: OperationId,
    pub(super) permit: Permit,
    pub(super) recorded: Recorded,
    pub(super) decoded: Box<Decoded>,
    pub(super) asked: Rc<Asked>,
    observing: Option<Observing>,
}

/// An operation that may not.
pub(super) struct RefusedOperation {
    operation: Option<OperationId>,
    refusal: Box<Refusal>,
}

impl Decided {
    /// `digest`: what it is known by, if it was read in full; `usage`: what it uses of a grant.
    pub(super) fn new(
        ruling: Ruling,
        authenticated: Authenticated,
        (digest, usage): (Option<Digest>, Option<Use>),
    ) -> Self {
        Self { ruling, authenticated: Some(authenticated), digest, usage }
    }

    pub(super) fn refused(ruling: Ruling) -> Self {
        Self { ruling, authenticated: None, digest: None, usage: None }
    }

    /// Records the verdict, before anything of the operation goes on.
    ///
    /// # Errors
    /// The refusal: of policy, of the decoder, or because the record can't be written.
    pub(super) fn record(self, live: &Live) -> Result<Permitted, RefusedOperation> {
        let stored = live.session().record(&self.ruling);
        let refused = |operation, refusal| RefusedOperation { operation, refusal: Box::new(refusal) };
        let (operation, recorded) = stored.map_err(|refusal| refused(None, refusal))?;
        if let Some(usage) = self.usage {
            usage.keep();
        }
        match (self.ruling.verdict, self.authenticated) {
            (Ok(permit), Some(authenticated)) => {
                live.allow_for(permit.basis().obligations.max_session);
                let Authenticated { decoded, wanted, who, observing } = authenticated;
                let known = Known { digest: self.digest, using: permit.basis().grant };
                let emergency = permit.basis().break_glass.is_some();
                let plan = self.ruling.plan;
                let asked = Rc::new(Asked { wanted, who, plan, known, emergency, cut_by: RefCell::default() });
                Ok(Permitted { operation, permit, recorded, decoded, asked, observing })
            }
            (Err(refusal), _) => Err(refused(Some(operation), refusal)),
            (Ok(_permit), None) => Err(refused(Some(operation), nothing_decoded().into())),
        }
    }
}

impl RefusedOperation {
    /// Tells the client.
    pub(super) fn tell(self, live: &Live) -> Response<ReplyBody> {
        if let Some(operation) = self.operation {
            live.session().finish(operation, "denied", Some(status(&self.refusal.fault).as_u16()));
        }
        problem(&self.refusal, live.session().id, self.operation, false)
    }
}

impl Permitted {
    /// Forwards it. The exchange runs as a task of its own, so that its outcome is recorded whatever becomes of the
    /// connection; here we wait for the head of the answer.
    pub(super) async fn forward(self, live: Rc<Live>) -> Response<ReplyBody> {
        let (reply, head) = oneshot::channel();
        let (session, operation) = (live.session().id, self.operation);
        let close = live.version() == Version::Http1;
        // On the heap by itself: tokio moves what it runs around.
        tokio::task::spawn_local(Box::pin(exchange(live, self, reply)));
        head.await.unwrap_or_else(|_ended| problem(&nothing_decoded().into(), session, Some(operation), close))
    }
}

/// What is kept of a request to decide it again.
pub(super) struct Asked {
    wanted: Wanted,
    who: Option<Identified>,
    /// What its answer is masked for.
    plan: Option<Arc<Plan>>,
    known: Known,
    /// Whether only the broken glass lets it through.
    emergency: bool,
    /// The policies that it was cut by, once it was.
    cut_by: RefCell<Vec<String>>,
}

impl Asked {
    /// What its answer is masked for, and by which key.
    pub(super) fn masked(&self, live: &Live) -> Option<Masked> {
        let key = live.session().worker.pipeline.mask_key;
        self.plan.as_ref().map(|plan| Masked { plan: Arc::clone(plan), key })
    }

    /// Whether an answer that is masked as this one is may go on as `ruling` says.
    fn is_masked_enough(&self, ruling: &Ruling) -> bool {
        ruling.plan.as_ref().is_none_or(|now| self.plan.as_ref().is_some_and(|then| now.is_within(then)))
    }

    /// Gives whether the service challenges the token that it got. One that asks for a newer token has ended that one,
    /// for everybody, whatever becomes of its answer.
    fn note_challenge(&self, live: &Live, parts: &Parts) -> bool {
        let values = parts.headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = (parts.status == StatusCode::UNAUTHORIZED).then(|| challenge::find(values)).flatten();
        let worker = &live.session().worker;
        if let (Some(Challenge::Renew), Some(who)) = (challenge, &self.who)
            && worker.pipeline.judge.challenged(&who.token)
        {
            worker.record_end(What::TokenEnded { token: who.token, reason: Death::Challenged });
        }
        challenge.is_some()
    }

    /// Ends, once, when the operation no longer may go on: its connection is ending, or the world or the grants have changed and
    /// neither the connection nor the operation would be permitted now.
    pub(super) async fn interrupted(&self, live: &Live) -> Refusal {
        match self.until_interrupted(live).await {
            Err(refusal) => {
                self.cut_by.borrow_mut().clone_from(&refusal.basis.policies);
                *refusal
            }
        }
    }

    async fn until_interrupted(&self, live: &Live) -> Result<Infallible, Box<Refusal>> {
        let mut ended = live.endings();
        let mut worlds = live.session().worlds.clone();
        let mut grants = live.session().worker.pipeline.desk.watch();
        let let_through = self.known.using.is_some() || self.emergency;
        let ending = if self.emergency { "break-glass-ended" } else { "grant-ended" };
        if let_through {
            // It may have ended since the verdict.
            grants.mark_changed();
        }
        let mut who = self.who.clone();
        let mut tokens = live.session().worker.pipeline.judge.watch();
        if who.as_ref().is_some_and(|who| who.seen != *tokens.borrow()) {
            tokens.mark_changed();
        }
        let mut again = Again::default();
        let mut expired = pin!(live.token_expired(who.as_ref().map(|who| who.until)));
        loop {
            if let Some(code) = *ended.borrow_and_update() {
                return Err(Box::new(cut_off(code).into()));
            }
            tokio::select! {
                Ok(()) = ended.changed() => {}
                Ok(()) = worlds.changed() => {
                    live.may_go_on().map_err(|refusal| Box::new(Refusal { fault: cut_off("policy-changed"), ..refusal }))?;
                    Box::pin(live.look_first(who.as_mut(), self.wanted.operation(live).action())).await;
                    self.may_go_on(live, who.as_ref(), "policy-changed")?;
                }
                Ok(()) = grants.changed(), if let_through => self.may_go_on(live, who.as_ref(), ending)?,
                Ok(()) = tokens.changed(), if who.is_some() => {
                    let renewed = who.as_mut().map_or(Ok(false), |who| live.renew(who));
                    if renewed.map_err(|code| Box::new(cut_off(code).into()))? {
                        self.may_go_on(live, who.as_ref(), "groups-changed")?;
                    }
                }
                code = live.groups_lost(&mut again, who.as_mut()), if who.is_some() => {
                    self.may_go_on(live, who.as_ref(), code)?;
                }
                () = expired.as_mut(), if who.is_some() => return Err(Box::new(cut_off("token-expired").into())),
                else => return Err(Box::new(cut_off("stopped").into())),
            }
        }
    }

    /// Decides the operation again. What would go on by another grant, or by the broken glass, is to begin anew: it was
    /// neither taken of that one nor recorded so.
    fn may_go_on(&self, live: &Live, who: Option<&Identified>, code: &'static str) -> Result<(), Box<Refusal>> {
        let again = || {
            let ruling = live.rule(who, self.wanted.operation(live), self.known);
            let is_masked_enough = self.is_masked_enough(&ruling);
            ruling.verdict.map(|permit| (permit, is_masked_enough))
        };
        match again() {
            Ok((permit, true)) if self.is_by_the_same(permit.basis()) => {
                live.allow_for(permit.basis().obligations.max_session);
                Ok(())
            }
            Ok(_otherwise) => Err(Box::new(cut_off(code).into())),
            Err(refusal) => Err(Box::new(Refusal { fault: cut_off(code), ..refusal })),
        }
    }

    /// Whether it would be let through by nothing that it wasn't let through by at first.
    fn is_by_the_same(&self, basis: &Basis) -> bool {
        let is_same_grant = basis.grant.is_none_or(|grant| self.known.using == Some(grant));
        is_same_grant && (basis.break_glass.is_none() || self.emergency)
    }
}

/// One request and its answer, with the outcome recorded at the end.
async fn exchange(live: Rc<Live>, mut permitted: Permitted, mut reply: oneshot::Sender<Response<ReplyBody>>) {
    live.begin();
    let counted = &live.session().worker.counted;
    let (sent, received) = (Meter::new(counted.request.clone()), Meter::new(counted.response.clone()));
    let operation = permitted.operation;
    let (asked, observing) = (Rc::clone(&permitted.asked), permitted.observing.take());
    let client = permitted.decoded.parts.extensions.remove::<OnUpgrade>();
    let level = permitted.permit.basis().obligations.record;
    let masked = asked.masked(&live);
    let (charge, over) = match Charge::of(&live, permitted.permit.basis().grant) {
        Ok(charge) => (charge, None),
        Err(fault) => (None, Some(fault)),
    };
    let taking = Taking::begin(&live, &permitted.decoded, (level, masked), &sent);
    let seat = live.seat();
    let means = (&*asked, observing.is_none(), &charge);
    let mut interrupted = pin!(asked.interrupted(&live));
    let mut way = Way::of(&live).await;
    let head = match (over, &seat) {
        (Some(fault), _) => Err(fault.into()),
        (None, None) => Err(busy().into()),
        (None, Some(_)) => tokio::select! {
            biased;
            refusal = interrupted.as_mut() => Err(refusal),
            () = reply.closed() => Err(client_gone().into()),
            fault = taking.unfit() => Err(fault.into()),
            head = send(&live, permitted, &mut way, (&sent, &received, &taking), means) => head,
        },
    };
    let (mut service_request, mut is_unread) = (None, false);
    let Outcome { ended, status, masked } = match head {
        Ok((parts, coming)) => {
            service_request = request_id(&parts.headers);
            is_unread = coming.is_left_out();
            match (observing, client) {
                (Some(observing), _) => release(interrupted, operation, &observing, (parts, coming), reply).await,
                (None, Some(client)) if parts.status == StatusCode::SWITCHING_PROTOCOLS => {
                    taking.opaque();
                    let response = Response::from_parts(parts, coming.body);
                    if let Some(charge) = charge.clone() {
                        received.tap(move |data| charge.note(data));
                    }
                    join(&live, interrupted, (client, response), reply, (&sent, &received)).await
                }
                (None, _) => pass(interrupted, (parts, coming), reply).await,
            }
        }
        Err(refusal) => {
            let response = problem(&refusal, live.session().id, Some(operation), false);
            let status = response.status();
            let taken = reply.send(response).is_ok();
            Outcome { ended: Err(refusal.fault.code), status: taken.then_some(status), masked: BTreeMap::new() }
        }
    };
    // What ends upstream because the client broke off its request is the client's doing.
    let ended = ended.map_err(|code| taking.fault().map_or(code, |fault| fault.code)).map_err(|code| match code {
        "upstream-closed" | "upstream-reset" | "upstream-malformed" if sent.is_broken() => "client-gone",
        code => code,
    });
    if ended.is_err() {
        sent.cut();
    }
    if ended.is_err() || is_unread {
        way.give_up();
    }
    // Others may go on while what was taken down is prepared.
    drop((way, seat));
    let content = taking.content(operation, &sent, &received).await;
    live.finish();
    let policies = if ended.is_err() { asked.cut_by.take() } else { Vec::new() };
    live.session().end(operation, content, |kept| What::OperationFinished {
        operation,
        policies,
        outcome: ended.err().unwrap_or("done").to_owned(),
        status: status.map(|status| status.as_u16()),
        request: payload(&sent),
        response: payload(&received),
        masked,
        spent: charge.map(|charge| charge.spent()),
        service_request,
        kept,
    });
}

/// How an exchange ended.
struct Outcome {
    ended: Result<(), &'static str>,
    /// The status that the client got.
    status: Option<StatusCode>,
    /// What was masked, and how often.
    masked: BTreeMap<String, u64>,
}

/// Sends the request and waits for the head of the answer, screened, and what is held of its body. `asked`: the request;
/// `hold`: whether anything may be; `charge`: what pays for it.
async fn send<'a>(
    live: &'a Live,
    permitted: Permitted,
    way: &'a mut Way<'_>,
    (sent, received, taking): (&'a Meter, &'a Meter, &'a Taking),
    (asked, hold, charge): (&Asked, bool, &Option<Rc<Charge>>),
) -> Result<(Parts, Coming<'a>), Refusal> {
    let limit = live.session().limits().response_body;
    let (response, echo) = way.send(live, permitted, sent).await?;
    let (mut parts, body) = response.into_parts();
    let is_challenged = asked.note_challenge(live, &parts);
    strip_hop_by_hop(&mut parts.headers, live.version());
    // Free text that nothing masks or records; the process gets the status's own.
    parts.extensions.remove::<hyper::ext::ReasonPhrase>();
    let mut screen = Screen::new(limit, echo, asked.masked(live));
    let has_body = has_body(&body);
    screen.head(&mut parts, has_body)?;
    if let Some(charge) = charge {
        charge.begin(live, &parts, has_body)?;
    }
    taking.answered(&parts);
    let mut coming = Coming::new((body, screen, charge.clone()), live, way, (sent, received, taking));
    if hold && let Err(fault) = coming.hold().await {
        // A challenge is in the head, and its client can't sign in anew without it.
        if !is_challenged || !coming.leave_out(&fault, &mut parts) {
            taking.noted(coming.screen.take_places());
            return Err(fault.into());
        }
        taking.answered(&parts);
    }
    Ok((parts, coming))
}

/// Passes the answer on, and waits for the rest of the request.
async fn pass(
    mut interrupted: Pin<&mut impl Future<Output = Refusal>>,
    (parts, mut coming): (Parts, Coming<'_>),
    reply: oneshot::Sender<Response<ReplyBody>>,
) -> Outcome {
    let status = Some(parts.status);
    let ended = match coming.pass(parts, interrupted.as_mut(), reply).await {
        Ok(()) => sent_whole(coming.live, interrupted, coming.sent, coming.taking).await,
        Err(code) => Err(code),
    };
    if !coming.is_left_out() {
        coming.taking.noted(coming.screen.take_places());
    }
    Outcome { ended, status, masked: coming.screen.take_counts() }
}

/// Releases the answer of a token endpoint, once what is in it is recorded; in its stead, why it isn't released.
async fn release(
    interrupted: Pin<&mut impl Future<Output = Refusal>>,
    operation: OperationId,
    observing: &Observing,
    (parts, coming): (Parts, Coming<'_>),
    reply: oneshot::Sender<Response<ReplyBody>>,
) -> Outcome {
    let Coming { body, mut screen, charge, live, received, taking, .. } = coming;
    let response = Response::from_parts(parts, body);
    let observed = tokio::select! {
        biased;
        refusal = interrupted => Err(refusal),
        observed = observing.observe(live, operation, response) => observed,
    };
    let released = observed.and_then(|response| {
        let (parts, body) = response.into_parts();
        let body: Bytes = [screen.data(body)?, screen.rest()?].concat().into();
        if let Some(charge) = charge {
            charge.take(&body)?;
        }
        received.count(&body);
        taking.passed(&body);
        Ok(Response::from_parts(parts, Either::Left(Full::new(body))))
    });
    let (response, ended) = match released {
        Ok(response) => (response, Ok(())),
        Err(refusal) => (problem(&refusal, live.session().id, Some(operation), false), Err(refusal.fault.code)),
    };
    let status = response.status();
    taking.noted(screen.take_places());
    match reply.send(response) {
        Ok(()) => Outcome { ended, status: Some(status), masked: screen.take_counts() },
        Err(_gone) => Outcome { ended: ended.and(Err("client-gone")), status: None, masked: screen.take_counts() },
    }
}

/// An answer can be complete before its request is: then the operation is still under way, and may still be cut.
///
/// # Errors
/// The code of what ended it.
async fn sent_whole(
    live: &Live,
    interrupted: Pin<&mut impl Future<Output = Refusal>>,
    sent: &Meter,
    taking: &Taking,
) -> Result<(), &'static str> {
    if sent.is_ended() && taking.fault().is_none() {
        return Ok(());
    }
    tokio::select! {
        biased;
        fault = taking.unfit() => {
            end(live, fault.code);
            Err(fault.code)
        }
        () = sent.ended() => Ok(()),
        refusal = interrupted => {
            end(live, refusal.fault.code);
            Err(refusal.fault.code)
        }
    }
}

/// An operation that is cut in the middle takes its connection with it where that is all its own.
pub(super) fn end(live: &Live, code: &'static str) {
    if live.version() == Version::Http1 {
        live.end(code);
    }
}

fn payload(meter: &Meter) -> Payload {
    Payload { bytes: meter.bytes(), digest: meter.digest() }
}

/// Tells the client that the server goes on as a WebSocket, and joins the two until one ends it or it no longer may be.
async fn join(
    live: &Live,
    interrupted: Pin<&mut impl Future<Output = Refusal>>,
    (client, mut response): (OnUpgrade, Response<Incoming>),
    reply: oneshot::Sender<Response<ReplyBody>>,
    (sent, received): (&Meter, &Meter),
) -> Outcome {
    let status = Some(response.status());
    let server = hyper::upgrade::on(&mut response);
    let (mut parts, _no_body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers, live.version());
    websocket::announce(&mut parts.headers);
    live.join();
    let outcome = |ended| Outcome { ended, status, masked: BTreeMap::new() };
    if reply.send(Response::from_parts(parts, Either::Left(Full::default()))).is_err() {
        return outcome(Err("client-gone"));
    }
    // On the heap: hardly any operation comes here, and each has room for it.
    outcome(Box::pin(websocket::join(live, interrupted, (client, server), (sent, received))).await)
}
