//! An HTTP operation once it is decoded: decided, recorded, then forwarded or refused. What is under way is decided
//! again whenever the world changes, and ends when it no longer may go on.

use std::rc::Rc;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use super::authenticate::{Authenticated, Identified, Wanted};
use super::credential::has_body;
use super::live::Live;
use super::onward::Way;
use super::payload::Taking;
use super::reply::{Cut, Passing, Refusal, ReplyBody, problem, status};
use super::request::Decoded;
use super::ruling::Ruling;
use super::token::Observing;
use super::websocket;
use crate::enforce::upstream_fault;
use crate::error::{Blame, Fault};
use crate::identity::challenge::{self, Challenge};
use crate::identity::provenance::Death;
use crate::ids::OperationId;
use crate::policy::Permit;
use crate::record::Recorded;
use crate::record::event::{Payload, What};
use crate::transport::http::{Meter, Version, strip_hop_by_hop};

/// How many frames of an answer may wait for the client. Each is at most a read buffer of hyper's.
const FRAMES_AHEAD: usize = 2;

/// A decided operation, not yet recorded.
pub(super) struct Decided {
    ruling: Ruling,
    authenticated: Option<Box<Authenticated>>,
}

/// An operation that may go on: decided and recorded.
pub(super) struct Permitted {
    operation: OperationId,
    pub(super) permit: Permit,
    pub(super) recorded: Recorded,
    pub(super) decoded: Box<Decoded>,
    asked: Asked,
    observing: Option<Observing>,
}

/// An operation that may not.
pub(super) struct RefusedOperation {
    operation: Option<OperationId>,
    refusal: Box<Refusal>,
}

impl Decided {
    pub(super) fn new(ruling: Ruling, authenticated: Authenticated) -> Self {
        Self { ruling, authenticated: Some(Box::new(authenticated)) }
    }

    pub(super) fn refused(ruling: Ruling) -> Self {
        Self { ruling, authenticated: None }
    }

    /// Records the verdict, before anything of the operation goes on.
    ///
    /// # Errors
    /// The refusal: of policy, of the decoder, or because the record can't be written.
    pub(super) fn record(self, live: &Live) -> Result<Permitted, RefusedOperation> {
        let stored = live.session().record(&self.ruling);
        let refused = |operation, refusal| RefusedOperation { operation, refusal: Box::new(refusal) };
        let (operation, recorded) = stored.map_err(|refusal| refused(None, refusal))?;
        match (self.ruling.verdict, self.authenticated) {
            (Ok(permit), Some(authenticated)) => {
                live.allow_for(permit.basis().obligations.max_session);
                let Authenticated { decoded, wanted, who, observing } = *authenticated;
                let asked = Asked { wanted, who };
                Ok(Permitted { operation, permit, recorded, decoded: Box::new(decoded), asked, observing })
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
        tokio::task::spawn_local(exchange(live, self, reply));
        head.await.unwrap_or_else(|_ended| problem(&nothing_decoded().into(), session, Some(operation), close))
    }
}

/// What is kept of a request to decide it again.
#[derive(Clone)]
struct Asked {
    wanted: Wanted,
    who: Option<Identified>,
}

impl Asked {
    /// A service that asks for a newer token has ended the one that it got, for everybody.
    fn note_challenge(&self, live: &Live, response: &Response<Incoming>) {
        let Some(who) = &self.who else { return };
        let values =
            response.headers().get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        if response.status() != StatusCode::UNAUTHORIZED || challenge::find(values) != Some(Challenge::Renew) {
            return;
        }
        let worker = &live.session().worker;
        if worker.pipeline.judge.challenged(&who.token) {
            worker.record_end(What::TokenEnded { token: who.token, reason: Death::Challenged });
        }
    }

    /// Ends when the operation no longer may go on: its connection is ending, or the world has changed and neither the
    /// connection nor the operation would be permitted now.
    async fn interrupted(&self, live: &Live) -> Refusal {
        let mut ended = live.endings();
        let mut worlds = live.session().worlds.clone();
        loop {
            if let Some(code) = *ended.borrow_and_update() {
                return cut_off(code).into();
            }
            tokio::select! {
                Ok(()) = ended.changed() => {}
                Ok(()) = worlds.changed() => {
                    let again = || live.rule(self.who.as_ref(), self.wanted.operation(live)).verdict;
                    match live.may_go_on().and_then(|()| again()) {
                        Ok(permit) => live.allow_for(permit.basis().obligations.max_session),
                        Err(refusal) => return Refusal { fault: cut_off("policy-changed"), ..refusal },
                    }
                }
                else => return cut_off("stopped").into(),
            }
        }
    }
}

/// One request and its answer, with the outcome recorded at the end.
async fn exchange(live: Rc<Live>, mut permitted: Permitted, mut reply: oneshot::Sender<Response<ReplyBody>>) {
    live.begin();
    let (sent, received) = (meter("request"), meter("response"));
    let operation = permitted.operation;
    let (asked, observing) = (permitted.asked.clone(), permitted.observing.take());
    let client = permitted.decoded.parts.extensions.remove::<OnUpgrade>();
    let level = permitted.permit.basis().obligations.record;
    let taking = Taking::begin(&live, &permitted.decoded, level, &sent);
    let seat = live.seat();
    let mut way = Way::of(&live).await;
    let head = match &seat {
        None => Err(busy().into()),
        Some(_) => tokio::select! {
            biased;
            refusal = asked.interrupted(&live) => Err(refusal),
            () = reply.closed() => Err(client_gone().into()),
            fault = taking.too_large() => Err(fault.into()),
            head = way.send(&live, permitted, &sent, &taking) => head,
        },
    };
    let head = head.and_then(|response| {
        let (mut parts, body) = response.into_parts();
        strip_hop_by_hop(&mut parts.headers, live.version());
        taking.answered(&mut parts, has_body(&body))?;
        Ok(Response::from_parts(parts, body))
    });
    let (outcome, status) = match head {
        Ok(response) => match observing {
            Some(observing) => {
                release(&live, &asked, operation, (&observing, response), reply, (&received, &taking)).await
            }
            None => {
                let status = response.status();
                asked.note_challenge(&live, &response);
                let outcome = match (status, client) {
                    (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
                        taking.opaque();
                        join(&live, &asked, (client, response), reply, (&sent, &received)).await
                    }
                    _ => match pass(&live, &asked, &way, response, reply, (&sent, &received, &taking)).await {
                        Ok(()) => sent_whole(&live, &asked, &sent, &taking).await,
                        Err(code) => Err(code),
                    },
                };
                (outcome, Some(status))
            }
        },
        Err(refusal) => {
            let response = problem(&refusal, live.session().id, Some(operation), false);
            let status = response.status();
            let taken = reply.send(response).is_ok();
            (Err(refusal.fault.code), taken.then_some(status))
        }
    };
    // What ends upstream because the client broke off its request is the client's doing.
    let outcome = outcome.map_err(|code| match code {
        "upstream-closed" | "upstream-reset" | "upstream-malformed" if sent.is_broken() => "client-gone",
        code => code,
    });
    if outcome.is_err() {
        sent.cut();
        way.give_up();
    }
    // Others may go on while what was taken down is prepared.
    drop((way, seat));
    taking.keep(operation, &sent, &received).await;
    live.finish();
    live.session().worker.record_end(What::OperationFinished {
        operation,
        outcome: outcome.err().unwrap_or("done").to_owned(),
        status: status.map(|status| status.as_u16()),
        request: payload(&sent),
        response: payload(&received),
    });
}

/// Releases the answer of a token endpoint, once what is in it is recorded; in its stead, why it isn't released.
async fn release(
    live: &Live,
    asked: &Asked,
    operation: OperationId,
    (observing, response): (&Observing, Response<Incoming>),
    reply: oneshot::Sender<Response<ReplyBody>>,
    (received, taking): (&Meter, &Taking),
) -> (Result<(), &'static str>, Option<StatusCode>) {
    let observed = tokio::select! {
        biased;
        refusal = asked.interrupted(live) => Err(refusal),
        observed = observing.observe(live, operation, response) => observed,
    };
    let (response, outcome) = match observed {
        Ok(response) => {
            received.count(response.body());
            let (parts, body) = response.into_parts();
            (Response::from_parts(parts, Either::Left(Full::new(taking.released(body)))), Ok(()))
        }
        Err(refusal) => (problem(&refusal, live.session().id, Some(operation), false), Err(refusal.fault.code)),
    };
    let status = response.status();
    match reply.send(response) {
        Ok(()) => (outcome, Some(status)),
        Err(_gone) => (outcome.and(Err("client-gone")), None),
    }
}

/// An answer can be complete before its request is: then the operation is still under way, and may still be cut.
///
/// # Errors
/// The code of what ended it.
async fn sent_whole(live: &Live, asked: &Asked, sent: &Meter, taking: &Taking) -> Result<(), &'static str> {
    tokio::select! {
        biased;
        () = sent.ended() => Ok(()),
        fault = taking.too_large() => {
            end(live, fault.code);
            Err(fault.code)
        }
        refusal = asked.interrupted(live) => {
            end(live, refusal.fault.code);
            Err(refusal.fault.code)
        }
    }
}

/// An operation that is cut in the middle takes its connection with it where that is all its own.
fn end(live: &Live, code: &'static str) {
    if live.version() == Version::Http1 {
        live.end(code);
    }
}

fn meter(direction: &'static str) -> Meter {
    Meter::new(metrics::counter!("interceptor_payload_bytes_total", "direction" => direction))
}

fn payload(meter: &Meter) -> Payload {
    Payload { bytes: meter.bytes(), digest: meter.digest() }
}

/// Passes the answer on, frame by frame, at the client's pace.
///
/// # Errors
/// The code of what ended it before it was complete.
async fn pass(
    live: &Live,
    asked: &Asked,
    way: &Way<'_>,
    response: Response<Incoming>,
    reply: oneshot::Sender<Response<ReplyBody>>,
    (sent, received, taking): (&Meter, &Meter, &Taking),
) -> Result<(), &'static str> {
    let (parts, mut body) = response.into_parts();
    let is_http2 = live.version() == Version::Http2;
    if is_http2 && body.is_end_stream() {
        // An answer that ends with its head does so for the client too: gRPC tells an error by that.
        let whole = Response::from_parts(parts, Either::Left(Full::default()));
        return reply.send(whole).map_err(|_gone| "client-gone");
    }
    let (passing, mut sender, mut unread) = Passing::new(FRAMES_AHEAD);
    if reply.send(Response::from_parts(parts, Either::Right(passing))).is_err() {
        return Err("client-gone");
    }
    let interrupted = asked.interrupted(live);
    let mut interrupted = std::pin::pin!(interrupted);
    loop {
        let step = async {
            match body.frame().await {
                None if is_http2 && is_reset(&body, sent) => Err("upstream-reset"),
                None => match taking.rest() {
                    Some(rest) => {
                        sender.send(Frame::data(rest)).await.map(|()| false).map_err(|_dropped| "client-gone")
                    }
                    None => Ok(false),
                },
                Some(Err(error)) => Err(upstream_fault(&error).code),
                Some(Ok(frame)) => {
                    count(&frame, received);
                    way.took(frame.data_ref().map_or(0, Bytes::len));
                    if frame.is_trailers()
                        && let Some(rest) = taking.rest()
                    {
                        sender.send(Frame::data(rest)).await.map_err(|_dropped| "client-gone")?;
                    }
                    let frame = taking.passing(frame, received)?;
                    sender.send(frame).await.map(|()| true).map_err(|_dropped| "client-gone")
                }
            }
        };
        let step = tokio::select! {
            biased;
            refusal = interrupted.as_mut() => Err(refusal.fault.code),
            step = step => step,
            // In HTTP/1.1 the connection's own end tells.
            _ = &mut unread, if is_http2 => Err("client-gone"),
        };
        match step {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(code) => {
                let code = if code == "client-gone" { live.ended().unwrap_or(code) } else { code };
                // The client must not take what it got for the whole.
                end(live, code);
                sender.abort(Cut::new(code));
                return Err(code);
            }
        }
    }
}

/// Whether a server's body that hyper takes for ended was reset instead. Without an error a server may do so only to stop
/// a request that it has answered in full (RFC 9113 section 8.1).
fn is_reset(body: &Incoming, sent: &Meter) -> bool {
    let is_short = body.size_hint().exact().is_some_and(|left| left > 0);
    is_short || (!body.is_end_stream() && sent.is_ended())
}

/// Tells the client that the server goes on as a WebSocket, and joins the two until one ends it or it no longer may be.
///
/// # Errors
/// The code of what ended it before both sides had closed.
async fn join(
    live: &Live,
    asked: &Asked,
    (client, mut response): (OnUpgrade, Response<Incoming>),
    reply: oneshot::Sender<Response<ReplyBody>>,
    (sent, received): (&Meter, &Meter),
) -> Result<(), &'static str> {
    let server = hyper::upgrade::on(&mut response);
    let (mut parts, _no_body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers, live.version());
    websocket::announce(&mut parts.headers);
    live.join();
    if reply.send(Response::from_parts(parts, Either::Left(Full::default()))).is_err() {
        return Err("client-gone");
    }
    let ended = tokio::select! {
        biased;
        refusal = asked.interrupted(live) => Err(refusal.fault.code),
        ended = websocket::join(client, server, sent, received) => ended,
    };
    if let Err(code) = ended {
        let code = live.ended().unwrap_or(code);
        live.end(code);
        live.sever(true);
        return Err(code);
    }
    ended
}

fn count(frame: &Frame<Bytes>, received: &Meter) {
    if let Some(data) = frame.data_ref() {
        received.count(data);
    }
}

fn cut_off(code: &'static str) -> Fault {
    let told = match code {
        "policy-changed" => "policy changed, and no longer permits this",
        "max-session" => "the connection reached the longest time that policy allows it",
        _ => "the connection was ended by the operator of this host",
    };
    Fault { code, blame: Blame::Policy, told: told.into(), next: "open a new connection, which is decided anew" }
}

pub(super) fn client_gone() -> Fault {
    Fault { code: "client-gone", blame: Blame::Client, told: "the client went away".into(), next: "send it again" }
}

fn busy() -> Fault {
    Fault {
        code: "too-many-operations",
        blame: Blame::Interceptor,
        told: "this workload has as many operations under way as it may (`limits.operations`)".into(),
        next: "wait for one to end, then try again",
    }
}

pub(super) fn nothing_decoded() -> Fault {
    Fault {
        code: "internal",
        blame: Blame::Interceptor,
        told: "the request could not be forwarded".into(),
        next: "try again, or ask the operator of this host",
    }
}
