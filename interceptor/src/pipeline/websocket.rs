//! WebSocket (RFC 6455), by a policy of its own: what opens one, and the two ends joined once the server has agreed. What
//! goes over it is opaque: counted and digested, not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use super::request::refuse;
use crate::error::{Blame, Fault};
use crate::transport::http::Meter;

/// Whether a request asks for a WebSocket (RFC 6455 section 4.1).
///
/// # Errors
/// Any other upgrade is refused, and one that isn't asked for as it has to be.
pub(super) fn is_asked(parts: &Parts) -> Result<bool, Fault> {
    if !parts.headers.contains_key(header::UPGRADE) {
        return Ok(false);
    }
    let protocols = tokens(&parts.headers, &header::UPGRADE);
    if protocols.iter().any(|protocol| protocol == "h2c") {
        let told = "HTTP/2 in clear is not served";
        return Err(Fault { next: "use HTTP/1.1, or HTTP/2 in TLS", ..refuse("h2c-refused", Blame::Policy, told) });
    }
    if protocols != ["websocket"] {
        return Err(refuse("upgrade-refused", Blame::Policy, "no protocol upgrade but one to WebSocket is served"));
    }
    let well_formed = parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && tokens(&parts.headers, &header::CONNECTION).iter().any(|option| option == "upgrade")
        && one(&parts.headers, &header::SEC_WEBSOCKET_KEY).is_some()
        && one(&parts.headers, &header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13")
        && !parts.headers.contains_key(header::TRANSFER_ENCODING)
        && one(&parts.headers, &header::CONTENT_LENGTH).is_none_or(|length| length == "0");
    if well_formed {
        Ok(true)
    } else {
        Err(refuse("websocket-malformed", Blame::Client, "that is no opening handshake of WebSocket version 13"))
    }
}

/// The elements of a comma-separated field, in lower case; of all its lines.
fn tokens(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(|token| String::from_utf8_lossy(token.trim_ascii()).to_ascii_lowercase())
        .collect()
}

/// The value of a field that has one line.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Asks for it on the next hop, or grants it on the last.
pub(super) fn announce(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Whether a server that switches protocols switches to WebSocket.
pub(super) fn is_granted(headers: &HeaderMap) -> bool {
    tokens(headers, &header::UPGRADE) == ["websocket"]
}

/// Passes what comes from each end on to the other, until both have closed.
///
/// # Errors
/// `client-gone` or `upstream-closed` when one end breaks, after which there is no telling which bytes arrived.
pub(super) async fn join(
    client: OnUpgrade,
    server: OnUpgrade,
    sent: &Meter,
    received: &Meter,
) -> Result<(), &'static str> {
    let server = server.await.map_err(|_broken| "upstream-closed")?;
    let client = client.await.map_err(|_broken| "client-gone")?;
    let mut client = Counted { stream: TokioIo::new(client), meter: sent, broken: "client-gone", ended: false };
    let mut server = Counted { stream: TokioIo::new(server), meter: received, broken: "upstream-closed", ended: false };
    let Err(error) = copy_bidirectional(&mut client, &mut server).await else { return Ok(()) };
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        // Many a client is simply gone once the server has closed.
        Some(Broken("client-gone")) if server.ended => Ok(()),
        Some(Broken(code)) => Err(code),
        None => Err("client-gone"),
    }
}

/// One end, with what comes from it counted.
struct Counted<'a> {
    stream: TokioIo<Upgraded>,
    meter: &'a Meter,
    broken: &'static str,
    /// Whether it has closed its side.
    ended: bool,
}

/// Which end broke.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(&'static str);

impl Counted<'_> {
    fn told<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        result.map_err(|_error| io::Error::other(Broken(self.broken)))
    }
}

impl AsyncRead for Counted<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        ready!(self.told(read))?;
        self.meter.count(&buffer.filled()[before..]);
        self.ended = buffer.filled().len() == before && buffer.remaining() > 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.told(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.told(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.told(shut)
    }
}

#[cfg(test)]
mod tests;
