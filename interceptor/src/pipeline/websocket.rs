//! WebSocket (RFC 6455), by a policy of its own: what opens one, and the two ends joined once the server has agreed. What
//! goes over it is opaque: counted and digested, not read. Only where its frames end is followed, so that both ends are told
//! why it is cut.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy, copy_bidirectional, sink};
use tokio::time::{Instant, timeout_at};

use super::live::Live;
use super::reply::Refusal;
use super::request::refuse;
use super::serve::LAST_WORDS;
use crate::error::{Blame, Fault};
use crate::transport::http::Meter;

mod frames;

use frames::{Frames, close};

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
        && one(&parts.headers, &header::SEC_WEBSOCKET_KEY).is_some_and(is_nonce)
        && one(&parts.headers, &header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13")
        && !parts.headers.contains_key(header::TRANSFER_ENCODING)
        && one(&parts.headers, &header::CONTENT_LENGTH).is_none_or(|length| length == "0");
    if well_formed {
        Ok(true)
    } else {
        Err(refuse("websocket-malformed", Blame::Client, "that is no opening handshake of WebSocket version 13"))
    }
}

/// Whether this is 16 bytes in base64, as a key has to be. People aren't asked about another one, so it is to say nothing more.
fn is_nonce(key: &HeaderValue) -> bool {
    let digits = key.as_bytes().strip_suffix(b"==").unwrap_or_default();
    digits.len() == 22 && digits.iter().all(|&digit| digit.is_ascii_alphanumeric() || digit == b'+' || digit == b'/')
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

/// Passes what comes from each end on to the other, until both have closed, or it no longer may be. Then both are told why, where
/// that can be put between two frames; a client that can't be told is reset, a server's connection just closes.
///
/// # Errors
/// The code of what ended it: `client-gone` or `upstream-closed` when one end breaks, after which there is no telling which
/// bytes arrived.
pub(super) async fn join(
    live: &Live,
    mut interrupted: Pin<&mut impl Future<Output = Refusal>>,
    (client, server): (OnUpgrade, OnUpgrade),
    (sent, received): (&Meter, &Meter),
) -> Result<(), &'static str> {
    let end = |code| {
        let code = live.ended().unwrap_or(code);
        live.end(code);
        code
    };
    let upgraded = async {
        let server = server.await.map_err(|_broken| "upstream-closed")?;
        let client = client.await.map_err(|_broken| "client-gone")?;
        Ok::<_, &'static str>((client, server))
    };
    let upgraded = tokio::select! {
        biased;
        refusal = interrupted.as_mut() => Err(refusal.fault.code),
        upgraded = upgraded => upgraded,
    };
    let (client, server) = upgraded.map_err(end)?;
    let mut client = Counted::new(TokioIo::new(client), (sent, "client-gone"), Frames::of_server());
    let mut server = Counted::new(TokioIo::new(server), (received, "upstream-closed"), Frames::of_client());
    let ended = tokio::select! {
        biased;
        refusal = interrupted => Err((refusal.fault.code, true)),
        passed = copy_bidirectional(&mut client, &mut server) => passed.map_err(|error| (broken(&error), false)),
    };
    let (code, is_cut) = match ended {
        Err((code, is_cut)) if is_cut || code != "client-gone" || !server.ended => (end(code), is_cut),
        // Both have closed; many a client is simply gone once the server has.
        _ => {
            live.line().sever(false);
            return Ok(());
        }
    };
    let to_client = is_cut.then(|| close(code, None));
    let to_server = if is_cut { mask_key().map(|key| close(code, Some(key))) } else { None };
    let (in_order, _) = tokio::join!(client.end(to_client), server.end(to_server));
    live.line().sever(!in_order);
    Err(code)
}

/// A key that nobody foresees (RFC 6455 section 5.3); none where the system gives no random bytes.
fn mask_key() -> Option<[u8; 4]> {
    let mut key = [0; 4];
    aws_lc_rs::rand::fill(&mut key).ok()?;
    Some(key)
}

/// Which end broke.
fn broken(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Broken(code)) => code,
        None => "client-gone",
    }
}

/// One end, with what comes from it counted, and the frames followed that it has taken.
struct Counted<'a, S> {
    stream: S,
    meter: &'a Meter,
    broken: &'static str,
    /// What it has taken. What was only read at the other end, and not written here, isn't among it.
    taken: Frames,
    /// Whether it has closed its side.
    ended: bool,
}

/// Which end broke.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(&'static str);

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Counted<'a, S> {
    /// `broken`: the code for when it breaks; `taken`: of what kind the frames are that go to it.
    fn new(stream: S, (meter, broken): (&'a Meter, &'static str), taken: Frames) -> Self {
        Self { stream, meter, broken, taken, ended: false }
    }

    fn told<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        result.map_err(|_error| io::Error::other(Broken(self.broken)))
    }

    /// Says `last`, a whole Close frame, and that nothing follows; then waits until this end has closed too. All that for as
    /// long as [`LAST_WORDS`] at most. Where a Close frame went before, that was the last. Gives whether a Close frame, of ours
    /// or not, was the end, and it closed too: not where the last frame is in pieces, or what was sent before may still wait to
    /// be taken.
    async fn end(&mut self, last: Option<Vec<u8>>) -> bool {
        let last = match last {
            _ if self.taken.is_closed() => Vec::new(),
            Some(last) if self.taken.is_between() => last,
            _ => return false,
        };
        let until = Instant::now() + LAST_WORDS;
        let said = async {
            self.stream.write_all(&last).await?;
            self.stream.flush().await
        };
        if !matches!(timeout_at(until, said).await, Ok(Ok(()))) {
            return false;
        }
        // What is still sent is read, so that no reset overtakes what was said.
        let heard_out = async {
            self.stream.shutdown().await?;
            copy(&mut self.stream, &mut sink()).await
        };
        timeout_at(until, heard_out).await.is_ok()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        ready!(self.told(read))?;
        self.meter.count(&buffer.filled()[before..]);
        self.ended = buffer.filled().len() == before && buffer.remaining() > 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let count = ready!(self.told(written))?;
        self.taken.pass(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.told(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.taken.end();
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.told(shut)
    }
}

#[cfg(test)]
mod tests;
