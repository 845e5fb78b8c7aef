//! An HTTP operation once it is decoded: decided, recorded, then forwarded or refused. What is under way is decided
//! again whenever the world changes, and ends when it no longer may go on.

use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::live::Live;
use super::reply::{Cut, Refusal, ReplyBody, problem, status};
use super::request::Decoded;
use super::ruling::Ruling;
use crate::config::Host;
use crate::enforce::{self, Unforwarded, upstream_fault};
use crate::error::{Blame, Fault};
use crate::ids::OperationId;
use crate::policy::{CanonicalPath, Credential, HttpRequest, Operation, Permit};
use crate::record::Recorded;
use crate::record::event::{Payload, What};
use crate::transport::http::{Hop, Meter, Metered, strip_hop_by_hop};

/// How many frames of an answer may wait for the client. Each is at most a read buffer of hyper's.
const FRAMES_AHEAD: usize = 2;

/// A decided operation, not yet recorded.
pub(super) struct Decided {
    ruling: Ruling,
    decoded: Option<Box<Decoded>>,
}

/// An operation that may go on: decided and recorded.
pub(super) struct Permitted {
    operation: OperationId,
    permit: Permit,
    recorded: Recorded,
    decoded: Box<Decoded>,
}

/// An operation that may not.
pub(super) struct RefusedOperation {
    operation: Option<OperationId>,
    refusal: Refusal,
}

impl Decided {
    pub(super) fn new(ruling: Ruling, decoded: Decoded) -> Self {
        Self { ruling, decoded: Some(Box::new(decoded)) }
    }

    pub(super) fn refused(ruling: Ruling) -> Self {
        Self { ruling, decoded: None }
    }

    /// Records the verdict, before anything of the operation goes on.
    ///
    /// # Errors
    /// The refusal: of policy, of the decoder, or because the record can't be written.
    pub(super) fn record(self, live: &Live) -> Result<Permitted, RefusedOperation> {
        let stored = live.session().record(&self.ruling);
        let (operation, recorded) = stored.map_err(|refusal| RefusedOperation { operation: None, refusal })?;
        match (self.ruling.verdict, self.decoded) {
            (Ok(permit), Some(decoded)) => {
                live.allow_for(permit.basis().obligations.max_session);
                Ok(Permitted { operation, permit, recorded, decoded })
            }
            (Err(refusal), _) => Err(RefusedOperation { operation: Some(operation), refusal }),
            (Ok(_permit), None) => {
                Err(RefusedOperation { operation: Some(operation), refusal: nothing_decoded().into() })
            }
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
        tokio::task::spawn_local(exchange(live, self, reply));
        head.await.unwrap_or_else(|_ended| problem(&nothing_decoded().into(), session, Some(operation), true))
    }
}

/// What is kept of a request to decide it again.
struct Asked {
    method: String,
    path: CanonicalPath,
    query: Option<String>,
    credential: Credential,
}

impl Asked {
    fn of(decoded: &Decoded) -> Self {
        Self {
            method: decoded.parts.method.as_str().to_owned(),
            path: decoded.path.clone(),
            query: decoded.parts.uri.query().map(str::to_owned),
            credential: decoded.credential,
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
                    let request = HttpRequest {
                        method: &self.method,
                        host: live.host(),
                        port: live.port(),
                        tls: live.tls(),
                        path: &self.path,
                        query: self.query.as_deref(),
                        credential: self.credential,
                    };
                    match live.may_go_on().and_then(|()| live.rule(Operation::Http(request)).verdict) {
                        Ok(permit) => live.allow_for(permit.basis().obligations.max_session),
                        Err(refusal) => return Refusal { fault: cut_off("policy-changed"), basis: refusal.basis },
                    }
                }
                else => return cut_off("stopped").into(),
            }
        }
    }
}

/// One request and its answer, with the outcome recorded at the end.
async fn exchange(live: Rc<Live>, permitted: Permitted, mut reply: oneshot::Sender<Response<ReplyBody>>) {
    live.begin();
    let (sent, received) = (meter("request"), meter("response"));
    let operation = permitted.operation;
    let asked = Asked::of(&permitted.decoded);
    let mut slot = live.hop.lock().await;
    let head = tokio::select! {
        biased;
        refusal = asked.interrupted(&live) => Err(refusal),
        () = reply.closed() => Err(client_gone().into()),
        head = send(&live, &mut slot, permitted, &sent) => head,
    };
    let (outcome, status) = match head {
        Ok(response) => {
            let status = response.status();
            let outcome = match pass(&live, &asked, response, reply, &received).await {
                Ok(()) => sent_whole(&live, &asked, &sent).await,
                Err(code) => Err(code),
            };
            (outcome, Some(status))
        }
        Err(refusal) => {
            let response = problem(&refusal, live.session().id, Some(operation), false);
            let status = response.status();
            let taken = reply.send(response).is_ok();
            (Err(refusal.fault.code), taken.then_some(status))
        }
    };
    if outcome.is_err() {
        // What is left on the way belongs to this operation: nobody else may read it.
        *slot = None;
    }
    live.finish();
    live.session().worker.record_end(What::OperationFinished {
        operation,
        outcome: outcome.err().unwrap_or("done").to_owned(),
        status: status.map(|status| status.as_u16()),
        request: payload(&sent),
        response: payload(&received),
    });
}

/// An answer can be complete before its request is: then the operation is still under way, and may still be cut.
///
/// # Errors
/// The code of what ended it.
async fn sent_whole(live: &Live, asked: &Asked, sent: &Meter) -> Result<(), &'static str> {
    tokio::select! {
        biased;
        () = sent.ended() => Ok(()),
        refusal = asked.interrupted(live) => {
            live.end(refusal.fault.code);
            Err(refusal.fault.code)
        }
    }
}

fn meter(direction: &'static str) -> Meter {
    Meter::new(metrics::counter!("interceptor_payload_bytes_total", "direction" => direction))
}

fn payload(meter: &Meter) -> Payload {
    Payload { bytes: meter.bytes(), digest: meter.digest() }
}

/// Sends the request upstream and waits for the head of the answer. A connection that the upstream closed meanwhile is
/// dialled again, which is decided and recorded like the first time.
async fn send(
    live: &Live,
    slot: &mut Option<Hop>,
    permitted: Permitted,
    sent: &Meter,
) -> Result<Response<Incoming>, Refusal> {
    let limits = live.session().limits();
    let Permitted { permit, recorded, decoded, .. } = permitted;
    let mut right = (permit, recorded, rewrite(*decoded, live, sent)?);
    for last_try in [false, true] {
        let hop = open(live, slot).await?;
        match enforce::forward(right.0, right.1, hop, right.2, &limits).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => return Err(switched().into()),
            Ok(response) => return Ok(response),
            Err(Unforwarded::Failed(fault)) => return Err(fault.into()),
            Err(Unforwarded::Unsent { fault, .. }) if last_try => return Err(fault.into()),
            Err(Unforwarded::Unsent { permit, recorded, request, .. }) => right = (permit, recorded, *request),
        }
        *slot = None;
    }
    Err(switched().into())
}

/// The hop, opened again if the upstream closed it.
async fn open<'a>(live: &Live, slot: &'a mut Option<Hop>) -> Result<&'a mut Hop, Refusal> {
    // An upstream that answered and doesn't take the rest of the last request isn't waited for without bound.
    let patience = live.session().limits().response_timeout;
    let open = match slot {
        Some(hop) => tokio::time::timeout(patience, hop.is_open()).await.unwrap_or(false),
        None => false,
    };
    if !open {
        *slot = Some(redial(live).await?);
    }
    slot.as_mut().ok_or_else(|| client_gone().into())
}

async fn redial(live: &Live) -> Result<Hop, Refusal> {
    let session = live.session();
    let ruling = live.rule_connect();
    let (operation, recorded) = session.record(&ruling)?;
    let permit = match ruling.verdict {
        Ok(permit) => permit,
        Err(refusal) => {
            session.finish(operation, "denied", None);
            return Err(refusal);
        }
    };
    live.allow_for(permit.basis().obligations.max_session);
    let limits = session.limits();
    let alpn = live.tls().then(|| vec![super::admit::HTTP_1_1.to_vec()]);
    let world = session.world();
    let to = (live.host(), live.port());
    let dialled = enforce::connect(permit, recorded, &world.dialer, to, alpn.as_deref(), &limits).await;
    session.finish(operation, dialled.as_ref().err().map_or("done", |fault| fault.code), None);
    Hop::over(dialled?, &limits).await.map_err(|error| upstream_fault(&error).into())
}

/// The request as it goes upstream: origin form (RFC 9112 section 3.2.1), the host's one name, nothing that belongs to
/// the client's own hop. `Expect` was answered by us: the client was told to go on when its body was first read.
fn rewrite(decoded: Decoded, live: &Live, sent: &Meter) -> Result<Request<Metered>, Refusal> {
    let Decoded { mut parts, body, path, .. } = decoded;
    let target = match parts.uri.query() {
        Some(query) => format!("{}?{query}", path.raw()),
        None => path.raw().to_owned(),
    };
    parts.uri = Uri::try_from(target).map_err(|_invalid| nothing_decoded())?;
    parts.version = http::Version::HTTP_11;
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::EXPECT);
    let default_port = if live.tls() { 443 } else { 80 };
    let host = match live.host() {
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        host => host.to_string(),
    };
    let authority = if live.port() == default_port { host } else { format!("{host}:{}", live.port()) };
    parts.headers.insert(header::HOST, authority.try_into().map_err(|_invalid| nothing_decoded())?);
    Ok(Request::from_parts(parts, Metered::new(body, sent.clone())))
}

/// Passes the answer on, frame by frame, at the client's pace.
///
/// # Errors
/// The code of what ended it before it was complete.
async fn pass(
    live: &Live,
    asked: &Asked,
    response: Response<Incoming>,
    reply: oneshot::Sender<Response<ReplyBody>>,
    received: &Meter,
) -> Result<(), &'static str> {
    let (mut parts, mut body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    let (mut sender, channel): (Sender<Bytes, Cut>, _) = Channel::new(FRAMES_AHEAD);
    if reply.send(Response::from_parts(parts, Either::Right(channel))).is_err() {
        return Err("client-gone");
    }
    let interrupted = asked.interrupted(live);
    let mut interrupted = std::pin::pin!(interrupted);
    loop {
        let step = async {
            match body.frame().await {
                None => Ok(false),
                Some(Err(error)) => Err(upstream_fault(&error).code),
                Some(Ok(frame)) => {
                    count(&frame, received);
                    sender.send(frame).await.map(|()| true).map_err(|_dropped| "client-gone")
                }
            }
        };
        let step = tokio::select! {
            biased;
            refusal = interrupted.as_mut() => Err(refusal.fault.code),
            step = step => step,
        };
        match step {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(code) => {
                let code = if code == "client-gone" { live.ended().unwrap_or(code) } else { code };
                // The client must not take what it got for the whole.
                live.end(code);
                sender.abort(Cut(code));
                return Err(code);
            }
        }
    }
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

fn client_gone() -> Fault {
    Fault { code: "client-gone", blame: Blame::Client, told: "the client went away".into(), next: "send it again" }
}

fn switched() -> Fault {
    Fault {
        code: "upstream-malformed",
        blame: Blame::Upstream,
        told: "the server switched protocols unasked".into(),
        next: "ask the operator of the server",
    }
}

fn nothing_decoded() -> Fault {
    Fault {
        code: "internal",
        blame: Blame::Interceptor,
        told: "the request could not be forwarded".into(),
        next: "try again, or ask the operator of this host",
    }
}
