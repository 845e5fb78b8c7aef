//! What the client is told, in HTTP: a problem document (RFC 9457) with the stable code, the policies and reasons, the
//! ids to quote, and one sentence on what to do next that a model can act on.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{Either, Full};
use serde::Serialize;
use tokio::sync::oneshot;

use super::ruling::PENDING;
use crate::error::{Blame, Fault};
use crate::ids::{ApprovalId, OperationId, SessionId};
use crate::policy::Basis;

/// Why a body that was on its way ended: a fault of the upstream's, or a decision. The source is what a stream of
/// HTTP/2 is reset with (RFC 9113 section 7).
#[derive(Debug, thiserror::Error)]
#[error("cut: {code}")]
pub(super) struct Cut {
    code: &'static str,
    #[source]
    reset: h2::Error,
}

impl Cut {
    /// For the end that `code` names.
    pub(super) fn new(code: &'static str) -> Self {
        let is_upstreams = code.starts_with("upstream-");
        let reason = if is_upstreams { h2::Reason::INTERNAL_ERROR } else { h2::Reason::CANCEL };
        Self { code, reset: reason.into() }
    }
}

/// A body on its way to the client: one of ours, or the upstream's as it passes.
pub(super) type ReplyBody = Either<Full<Bytes>, Passing>;

/// The upstream's body as it passes.
#[derive(Debug)]
pub(super) struct Passing {
    channel: Channel<Bytes, Cut>,
    /// Ends with the body: so whoever feeds it learns that nobody reads it any more, also while there is nothing to feed.
    _read: oneshot::Sender<Infallible>,
}

impl Passing {
    /// A body with room for `ahead` frames, the way to feed it, and what ends when nobody reads it.
    pub(super) fn new(ahead: usize) -> (Self, Sender<Bytes, Cut>, oneshot::Receiver<Infallible>) {
        let (sender, channel) = Channel::new(ahead);
        let (read, unread) = oneshot::channel();
        (Self { channel, _read: read }, sender, unread)
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Pin::new(&mut self.channel).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.channel.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.channel.size_hint()
    }
}

/// Why something isn't done: the fault, and what determined it.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The fault.
    pub(super) fault: Fault,
    /// What determined it, where policy did.
    pub(super) basis: Box<Basis>,
    /// What `WWW-Authenticate` says, where signing in again helps.
    pub(super) challenge: Option<String>,
    /// What people are asked, or were. Boxed: refusals are moved a lot, and hardly any has one.
    pub(super) approval: Option<Box<ApprovalId>>,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self { fault, basis: Box::default(), challenge: None, approval: None }
    }
}

/// When to come again for what a person has to approve, in seconds.
const RETRY_AFTER: header::HeaderValue = header::HeaderValue::from_static("30");

/// The problem document.
#[derive(Debug, Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    next: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    policies: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reasons: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalId>,
    session: SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<OperationId>,
}

/// The status that tells a client whose fault it was. Policy is 403 and never 404, 410, 429 or 5xx, which SDKs retry.
pub(super) fn status(fault: &Fault) -> StatusCode {
    match (fault.blame, fault.code) {
        (_, "misdirected-request" | "sni-mismatch") => StatusCode::MISDIRECTED_REQUEST,
        (_, "header-too-large") => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        (_, "token-not-seen" | "token-ended" | "token-expired") => StatusCode::UNAUTHORIZED,
        (_, "request-too-large") => StatusCode::PAYLOAD_TOO_LARGE,
        (_, "upstream-timeout") => StatusCode::GATEWAY_TIMEOUT,
        (Blame::Client, _) => StatusCode::BAD_REQUEST,
        (Blame::Policy | Blame::Operator, _) => StatusCode::FORBIDDEN,
        (Blame::Upstream, _) => StatusCode::BAD_GATEWAY,
        (Blame::Interceptor, _) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The answer to a request that was refused. `close` ends the connection after it.
pub(super) fn problem(
    refusal: &Refusal,
    session: SessionId,
    operation: Option<OperationId>,
    close: bool,
) -> Response<ReplyBody> {
    let status = status(&refusal.fault);
    let title = match refusal.fault.blame {
        Blame::Client => "Request not accepted",
        Blame::Policy | Blame::Operator => "Denied by Interceptor",
        Blame::Upstream => "Upstream failed",
        Blame::Interceptor => "Interceptor could not serve this",
    };
    let document = Problem {
        r#type: format!("urn:interceptor:{}", refusal.fault.code),
        title,
        status: status.as_u16(),
        detail: &refusal.fault.told,
        code: refusal.fault.code,
        next: refusal.fault.next,
        policies: &refusal.basis.policies,
        reasons: &refusal.basis.reasons,
        approval: refusal.approval.as_deref().copied(),
        session,
        operation,
    };
    let body = serde_json::to_vec(&document).unwrap_or_default();
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    if let Some(Ok(challenge)) = refusal.challenge.as_deref().map(header::HeaderValue::from_str) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if refusal.fault.code == PENDING {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    if close {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}
