//! The way on to the upstream: the connection that an operation has for itself or shares, opened again when the upstream
//! closed it, and the request as it goes there.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header, uri};
use hyper::body::Incoming;
use tokio::sync::MutexGuard;

use super::credential::inject;
use super::digest::JUSTIFICATION;
use super::live::Live;
use super::operation::{Permitted, client_gone, nothing_decoded};
use super::reply::Refusal;
use super::request::{Decoded, field_bytes};
use super::screen::Masked;
use super::websocket;
use crate::config::{Host, Limits};
use crate::enforce::{self, Unforwarded, upstream_fault};
use crate::error::{Blame, Fault};
use crate::mask;
use crate::transport::http::{Hop, Meter, Metered, RequestBody, Version, strip_hop_by_hop};
use crate::vault::Echo;

/// What an operation has of the connection upstream.
pub(super) enum Way<'a> {
    /// All of it, for as long as the operation lasts: HTTP/1.1.
    Alone(MutexGuard<'a, Option<Hop>>),
    /// A share of it, once there is one: HTTP/2.
    Shared(Option<Hop>),
}

impl<'a> Way<'a> {
    /// The way of one operation; in HTTP/1.1 the one before has to be done.
    pub(super) async fn of(live: &'a Live) -> Self {
        match live.version() {
            Version::Http1 => Way::Alone(live.hop.lock().await),
            Version::Http2 => Way::Shared(None),
        }
    }

    /// What is left on the way belongs to an operation that failed: nobody else may read it. A stream of HTTP/2 ends
    /// with its own share, and its siblings go on.
    pub(super) fn give_up(&mut self) {
        match self {
            Way::Alone(slot) => **slot = None,
            Way::Shared(share) => *share = None,
        }
    }

    /// A piece of the answer's body was taken.
    pub(super) fn took(&self, bytes: usize) {
        if let Way::Shared(Some(hop)) = self
            && let Some(allowance) = hop.allowance()
        {
            allowance.took(bytes);
        }
    }

    /// Sends the request upstream and waits for the head of the answer; gives what finds the echo of a credential that was
    /// put in. A connection that the upstream closed meanwhile
    /// is dialled again, which is decided and recorded like the first time.
    pub(super) async fn send(
        &mut self,
        live: &Live,
        permitted: Permitted,
        sent: &Meter,
    ) -> Result<(Response<Incoming>, Echo), Refusal> {
        let limits = live.session().limits();
        let Permitted { permit, recorded, decoded, asked, .. } = permitted;
        let websocket = decoded.websocket;
        let mut request = rewrite(*decoded, live, sent)?;
        if let Some(Masked { plan, key }) = asked.masked(live)
            && !plan.is_blind()
        {
            mask::answer::prepare(&key, request.headers_mut());
        }
        let (request, echo) = inject(live, &permit, &recorded, request).await?;
        let mut right = (permit, recorded, request);
        for last_try in [false, true] {
            let hop = self.open(live).await?;
            match enforce::forward(right.0, right.1, hop, right.2, &limits).await {
                Ok(response) => return Ok((acceptable(response, websocket, &limits)?, echo)),
                Err(Unforwarded::Failed(fault)) => return Err(fault.into()),
                Err(Unforwarded::Unsent { fault, .. }) if last_try => return Err(fault.into()),
                Err(Unforwarded::Unsent { permit, recorded, request, .. }) => right = (*permit, recorded, *request),
            }
            self.forget(live).await;
        }
        Err(switched().into())
    }

    /// The hop, opened again if the upstream closed it.
    async fn open(&mut self, live: &Live) -> Result<&mut Hop, Refusal> {
        match self {
            Way::Alone(slot) => {
                ensure_open(live, slot).await?;
                slot.as_mut().ok_or_else(|| client_gone().into())
            }
            Way::Shared(share) => {
                let mut slot = live.hop.lock().await;
                ensure_open(live, &mut slot).await?;
                *share = slot.as_ref().and_then(Hop::share);
                share.as_mut().ok_or_else(|| client_gone().into())
            }
        }
    }

    /// The connection turned out to be closed.
    async fn forget(&mut self, live: &Live) {
        match self {
            Way::Alone(slot) => **slot = None,
            Way::Shared(share) => {
                let mut slot = live.hop.lock().await;
                // A sibling may have opened another one by now.
                if let (Some(mine), Some(now)) = (share.take(), slot.as_ref())
                    && mine.is(now)
                {
                    *slot = None;
                }
            }
        }
    }
}

/// What a server may answer: a switch of protocols only if that was asked for, to who asked for a WebSocket no success but that,
/// and no more fields than are taken.
fn acceptable(response: Response<Incoming>, websocket: bool, limits: &Limits) -> Result<Response<Incoming>, Refusal> {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !(websocket && websocket::is_granted(response.headers())) {
        return Err(switched().into());
    }
    // Who knows no WebSockets runs the plain request (RFC 9110 section 7.8), which is another operation, and nobody decided it.
    if websocket && response.status().is_success() {
        return Err(malformed("the server opened no WebSocket, and answered a plain GET".to_owned()).into());
    }
    // hyper undoes `chunked` alone: in another coding the body couldn't be read by a mask.
    let mut codings = response.headers().get_all(header::TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Err(malformed("the server's answer is in a transfer coding that wasn't asked for".to_owned()).into());
    }
    check_fields(response.headers(), limits)?;
    Ok(response)
}

/// A header or trailer section of an answer: hyper and h2 take more than they are to, and h2 counts bytes only.
///
/// # Errors
/// It is larger than it may be.
pub(super) fn check_fields(fields: &HeaderMap, limits: &Limits) -> Result<(), Fault> {
    let fits = fields.len() <= limits.header_fields && field_bytes(fields) <= limits.header_bytes;
    if fits { Ok(()) } else { Err(enforce::section_too_large()) }
}

async fn ensure_open(live: &Live, slot: &mut Option<Hop>) -> Result<(), Refusal> {
    // An upstream that answered and doesn't take the rest of the last request isn't waited for without bound.
    let patience = live.session().limits().response_timeout;
    let open = match slot {
        Some(hop) => tokio::time::timeout(patience, hop.is_open()).await.unwrap_or(false),
        None => false,
    };
    if !open {
        *slot = Some(redial(live).await?);
    }
    Ok(())
}

/// Dials again, in the version that the client speaks.
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
    let alpn = live.tls().then(|| vec![live.version().alpn().to_vec()]);
    let world = session.world();
    let to = (live.host(), live.port());
    let dialled = enforce::connect(permit, recorded, &world.dialer, to, alpn.as_deref(), &limits).await;
    let dialled = dialled.and_then(|upstream| match Version::of_alpn(upstream.alpn.as_deref()) {
        version if version == live.version() => Ok(upstream),
        _ => Err(other_version(live.version())),
    });
    session.finish(operation, dialled.as_ref().err().map_or("done", |fault| fault.code), None);
    Hop::over(dialled?, &limits).await.map_err(|error| upstream_fault(&error).into())
}

/// The request as it goes upstream: the host's one name, and nothing that belongs to the client's own hop. In HTTP/1.1 in
/// origin form (RFC 9112 section 3.2.1); in HTTP/2 `:authority` stands for Host (RFC 9113 section 8.3.1). `Expect` was
/// answered by us: the client was told to go on when its body was first read.
fn rewrite(decoded: Decoded, live: &Live, sent: &Meter) -> Result<Request<Metered>, Refusal> {
    let Decoded { mut parts, body, path, websocket, .. } = decoded;
    let target = |uri: &Uri| match uri.query() {
        Some(query) => format!("{}?{query}", path.raw()),
        None => path.raw().to_owned(),
    };
    strip_hop_by_hop(&mut parts.headers, live.version());
    parts.headers.remove(header::EXPECT);
    parts.headers.remove(JUSTIFICATION);
    match live.version() {
        Version::Http1 => {
            parts.version = http::Version::HTTP_11;
            // As a rule it is in this form, and names the host so.
            if parts.uri.scheme().is_some() || parts.uri.authority().is_some() || parts.uri.path() != path.raw() {
                parts.uri = Uri::try_from(target(&parts.uri)).map_err(|_invalid| nothing_decoded())?;
            }
            let mut hosts = parts.headers.get_all(header::HOST).iter();
            let is_called = hosts.next().is_some_and(|host| live.is_called(host.as_bytes()));
            if !is_called || hosts.next().is_some() {
                let authority = HeaderValue::try_from(authority(live)).map_err(|_invalid| nothing_decoded())?;
                parts.headers.insert(header::HOST, authority);
            }
        }
        Version::Http2 => {
            let scheme = if live.tls() { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
            let to = (authority(live), target(&parts.uri));
            let full = Uri::builder().scheme(scheme).authority(to.0).path_and_query(to.1).build();
            parts.version = http::Version::HTTP_2;
            parts.uri = full.map_err(|_invalid| nothing_decoded())?;
            parts.headers.remove(header::HOST);
        }
    }
    if websocket {
        websocket::announce(&mut parts.headers);
    }
    // What was read in full has a length, which signatures cover (SharedKey), however it came.
    if let RequestBody::Whole(whole) = &body
        && !whole.is_empty()
    {
        parts.headers.insert(header::CONTENT_LENGTH, whole.len().into());
    }
    Ok(Request::from_parts(parts, Metered::new(body, sent.clone(), live.allowance().cloned())))
}

fn authority(live: &Live) -> String {
    let default_port = if live.tls() { 443 } else { 80 };
    let host = match live.host() {
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        host => host.to_string(),
    };
    if live.port() == default_port { host } else { format!("{host}:{}", live.port()) }
}

fn switched() -> Fault {
    malformed("the server switched protocols unasked".to_owned())
}

fn malformed(told: String) -> Fault {
    Fault { code: "upstream-malformed", blame: Blame::Upstream, told, next: "ask the operator of the server" }
}

fn other_version(version: Version) -> Fault {
    Fault {
        code: "upstream-version",
        blame: Blame::Upstream,
        told: format!("the server spoke {} before, and now no longer does", version.name()),
        next: "open a new connection, which agrees on a version anew",
    }
}
