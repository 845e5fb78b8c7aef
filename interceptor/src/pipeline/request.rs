//! Decoding a request: what can't be read one way only is refused before policy sees it, so that what policy saw is
//! what is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, uri};
use hyper::body::Incoming;

use super::digest::JUSTIFICATION;
use super::live::Live;
use super::operation::Decided;
use super::payload::too_large;
use super::ruling::Ruling;
use super::token::RESTRICTIONS;
use super::websocket;
use crate::config::{Host, Target};
use crate::detect::secrets;
use crate::error::{Blame, Fault};
use crate::policy::{self, CanonicalPath, METHOD_OVERRIDE_HEADERS, check_query};
use crate::transport::http::{RequestBody, is_hop_by_hop, strip_hop_by_hop};

/// A request that reads one way only.
pub(super) struct Decoded {
    pub(super) parts: Parts,
    pub(super) body: RequestBody,
    pub(super) path: CanonicalPath,
    pub(super) websocket: bool,
}

/// Reads a request; one that can't be accepted becomes a decided refusal.
pub(super) fn decode(live: &Live, request: Request<Incoming>) -> Result<Box<Decoded>, Box<Decided>> {
    let (mut parts, body) = request.into_parts();
    match read(live, &parts) {
        Ok((path, websocket)) => {
            // Before anything is judged, pinned, shown or recorded by them: `Connection` may name any field, and what it
            // names isn't sent on.
            strip_hop_by_hop(&mut parts.headers, live.version());
            let body = RequestBody::Streaming(body);
            Ok(Box::new(Decoded { parts, body, path, websocket }))
        }
        Err(fault) => {
            let action = format!("http:{}", parts.method);
            let summary = format!("{} {}", parts.method, secrets::path(parts.uri.path()));
            let target = live.target();
            let ruling = Ruling::refused(action.into(), summary, target, fault);
            let session = live.session();
            Err(Box::new(Decided::refused(ruling.concealed(&session.world(), &session.worker.pipeline.mask_key))))
        }
    }
}

impl Decoded {
    /// The name of its action.
    pub(super) fn action(&self) -> &'static str {
        policy::action(self.parts.method.as_str(), self.websocket)
    }
}

fn read(live: &Live, parts: &Parts) -> Result<(CanonicalPath, bool), Fault> {
    // hyper's own bounds are that of its buffer, which a section that comes in one go may exceed, and twice as many fields; h2
    // doesn't count fields.
    let limits = live.session().limits();
    if header_bytes(parts) > limits.header_bytes || parts.headers.len() > limits.header_fields {
        return Err(header_too_large());
    }
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.request_body) {
        return Err(too_large("request-too-large", "the request's body", "limits.request_body"));
    }
    if parts.method == Method::CONNECT {
        return Err(refuse("connect-method-refused", Blame::Policy, "CONNECT is not served: this is no tunnel"));
    }
    let websocket = websocket::is_asked(parts)?;
    if !parts.method.as_str().bytes().all(|c| c.is_ascii_uppercase() || c == b'-' || c == b'_') {
        return Err(refuse("method-not-canonical", Blame::Client, "methods are written in upper case"));
    }
    if let Some(name) = METHOD_OVERRIDE_HEADERS.iter().find(|name| parts.headers.contains_key(**name)) {
        let told = format!("`{name}` would make the server run another method than the one that was decided");
        return Err(refuse("method-override-refused", Blame::Client, told));
    }
    if let Some(name) = parts.headers.keys().find(|name| is_another_for_some(live, name)) {
        let told = format!("some servers read `{name}` as `{}`", name.as_str().replace('_', "-"));
        return Err(refuse("header-not-canonical", Blame::Client, told));
    }
    authority(live, parts)?;
    let path = CanonicalPath::parse(parts.uri.path());
    let query = parts.uri.query().map_or(Ok(()), check_query);
    path.and_then(|path| query.map(|()| (path, websocket)))
        .map_err(|ambiguous| refuse("ambiguous-path", Blame::Client, ambiguous.to_string()))
}

/// A request's header section that is larger than the configuration takes.
pub(super) fn header_too_large() -> Fault {
    Fault {
        code: "header-too-large",
        blame: Blame::Client,
        told: "the header section is larger than this host's Interceptor takes".into(),
        next: "send fewer or shorter header fields; or the operator raises `limits.header_bytes` or `limits.header_fields`",
    }
}

/// Fields that say what the message is, and where it goes: what RFC 9110 section 6.5.1 excludes from trailers, besides what
/// authenticates and what is one hop's.
const HEAD_ONLY: [HeaderName; 16] = [
    header::HOST,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::EXPECT,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::RANGE,
    JUSTIFICATION,
];

/// Judges the trailers of a request. They come when all is decided, and some servers read them as headers: what policy, the
/// target or people looked at in the head can't follow it.
///
/// # Errors
/// What isn't forwarded.
pub(super) fn check_trailers(live: &Live, trailers: &HeaderMap) -> Result<(), Fault> {
    let target = live.target_settings();
    let limits = live.session().limits();
    let decides = |name: &HeaderName, value: &HeaderValue| {
        let read = name.as_str().replace('_', "-");
        is_looked_at(target.as_deref(), &read)
            || target
                .as_ref()
                .and_then(|target| target.credential.as_ref())
                .is_some_and(|own| own.replaces_header(&read))
            || secrets::authenticates_header(&read)
            || !policy::foreign([(read.as_str(), value.as_bytes())], None).is_empty()
            || RESTRICTIONS.contains(&read.as_str())
            || HEAD_ONLY.iter().any(|only| *only == *read)
            || HeaderName::try_from(read).is_ok_and(|name| is_hop_by_hop(&name))
    };
    if let Some((name, _)) = trailers.iter().find(|(name, value)| decides(name, value)) {
        let told = format!("`{name}` follows the body, where it can't be judged any more");
        return Err(refuse("trailer-refused", Blame::Client, told));
    }
    if field_bytes(trailers) > limits.header_bytes || trailers.len() > limits.header_fields {
        return Err(refuse(
            "trailer-refused",
            Blame::Client,
            "the trailers are larger, or more, than `limits.header_bytes` and `limits.header_fields` let them be",
        ));
    }
    Ok(())
}

/// Whether a field's name, read as servers do that know both `-` and `_` as the `_` of CGI (RFC 3875 section 4.1.18), is one
/// that decides: what method runs, or what the target pins. (Who asks: see `authenticates_header`.)
fn is_another_for_some(live: &Live, name: &HeaderName) -> bool {
    if !name.as_str().contains('_') {
        return false;
    }
    is_looked_at(live.target_settings().as_deref(), &name.as_str().replace('_', "-"))
}

/// Whether a field of this name decides what method runs, or is one that the target pins.
fn is_looked_at(target: Option<&Target>, name: &str) -> bool {
    let is_pinned = |target: &Target| target.pin.headers.iter().any(|(pinned, _)| *pinned == *name);
    METHOD_OVERRIDE_HEADERS.contains(&name) || target.is_some_and(is_pinned)
}

/// The request line and the header section as they came, but for white space.
fn header_bytes(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let line = parts.method.as_str().len() + target + " HTTP/1.1\r\n".len();
    line + field_bytes(&parts.headers)
}

/// Header or trailer fields as they came, but for white space.
pub(super) fn field_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

/// The looked-up name, SNI (checked when the connection was admitted), Host and the request's own authority agree, or
/// the request isn't for here (RFC 9110 section 15.5.20). HTTP/2's `:authority` is the request's own.
fn authority(live: &Live, parts: &Parts) -> Result<(), Fault> {
    let host = host_header(&parts.headers)?;
    let own = parts.uri.authority();
    let scheme_fits =
        parts.uri.scheme().is_none_or(|s| *s == if live.tls() { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    // Most name the host as it is known here, which needs no reading.
    let host_fits = match host {
        Some(value) if !live.is_called(value.as_bytes()) => live.is(&host_and_port(value)?),
        _ => true,
    };
    let own_fits = own.is_none_or(|own| live.is_called(own.as_str().as_bytes()) || live.is(own));
    if !scheme_fits || !host_fits || !own_fits {
        return Err(misdirected(live.host()));
    }
    if host.is_none() && own.is_none() {
        return Err(refuse("host-missing", Blame::Client, "the request names no host"));
    }
    Ok(())
}

fn host_header(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Fault> {
    let mut values = headers.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(refuse("host-malformed", Blame::Client, "there is more than one Host header")),
    }
}

fn host_and_port(value: &HeaderValue) -> Result<uri::Authority, Fault> {
    uri::Authority::try_from(value.as_bytes())
        .map_err(|_invalid| refuse("host-malformed", Blame::Client, "the Host header is not a host and port"))
}

/// Whether an authority names this host and port; one with user information names nobody.
pub(super) fn names(authority: &uri::Authority, host: &Host, port: u16, default_port: u16) -> bool {
    let named: Result<Host, _> = authority.host().parse();
    let port_text = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let named_port = match port_text {
        "" => Some(default_port),
        _ => authority.port_u16(),
    };
    let is_it = named.is_ok_and(|named| named == *host || (is_local(host) && is_local(&named)));
    !authority.as_str().contains('@') && is_it && named_port == Some(port)
}

/// The host itself, by its name or by an address of it: who asks for `localhost` may have been told `127.0.0.1`.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Name(name) => name.as_str() == "localhost",
        Host::Address(address) => {
            *address == IpAddr::V4(Ipv4Addr::LOCALHOST) || *address == IpAddr::V6(Ipv6Addr::LOCALHOST)
        }
    }
}

fn misdirected(host: &Host) -> Fault {
    Fault {
        code: "misdirected-request",
        blame: Blame::Client,
        told: format!("this connection is for `{host}`; the request names another host, port or scheme"),
        next: "open a connection to the host that the request names",
    }
}

pub(super) fn refuse(code: &'static str, blame: Blame, told: impl Into<String>) -> Fault {
    Fault { code, blame, told: told.into(), next: "send the request in a form that reads one way only" }
}

#[cfg(test)]
mod tests;
