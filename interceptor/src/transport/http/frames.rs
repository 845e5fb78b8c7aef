//! A bound on what a peer of an HTTP/2 connection may make us do without asking for anything: the frames of floods
//! (SETTINGS, PING, WINDOW_UPDATE, empty or tiny DATA, resets, PRIORITY) are counted as their heads pass by, against an
//! allowance that grows with time, with what is sent to the peer and with what is taken in of it. What a frame means is
//! h2's job, and so are the bounds that it holds itself: on CONTINUATION, on header lists and on streams that are reset
//! before they are served.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a connection may cost at once, and what is forgiven each second. The unit is a byte that is sent to the peer:
/// a peer that is sent much may say much in return.
const BURST: i64 = 320_000;
const PER_SECOND: i64 = 32_000;

/// What frames cost. The answer to a PING or SETTINGS must not pay for it.
const SETTINGS: i64 = 256;
const PING: i64 = 128;
const RESET: i64 = 128;
const SMALL: i64 = 32;

/// DATA of fewer bytes is tiny: what it holds is less than what keeping it costs.
const TINY: usize = 256;

/// What a peer may still cost.
#[derive(Debug)]
pub struct Allowance {
    left: Cell<i64>,
    at: Cell<Instant>,
    exceeded: Cell<bool>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: Cell::new(BURST), at: Cell::new(Instant::now()), exceeded: Cell::default() }
    }
}

impl Allowance {
    /// Whether the peer went too far.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded.get()
    }

    /// A piece of a body of `bytes` bytes was taken: it is no longer kept.
    pub fn took(&self, bytes: usize) {
        if (1..TINY).contains(&bytes) {
            self.earn(SMALL);
        }
    }

    fn earn(&self, amount: i64) {
        self.left.set(self.left.get().saturating_add(amount).min(BURST));
    }

    fn pay(&self, amount: i64) -> io::Result<()> {
        if amount > self.left.get() {
            let (before, now) = (self.at.get(), Instant::now());
            self.at.set(now);
            let passed = i64::try_from((now - before).as_millis()).unwrap_or(i64::MAX);
            self.earn(passed.saturating_mul(PER_SECOND / 1000));
        }
        self.left.set(self.left.get() - amount);
        if self.left.get() < 0 {
            self.exceeded.set(true);
            return Err(io::Error::other("a flood of HTTP/2 frames"));
        }
        Ok(())
    }
}

/// Where in the peer's bytes we are.
#[derive(Debug)]
struct Heads {
    /// Bytes to pass over: the rest of a frame, or of the client's preface.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

/// A frame's head: length (3), type, flags, stream (4) (RFC 9113 section 4.1).
const HEAD: usize = 9;
const PREFACE: usize = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

impl Heads {
    /// What the frames that begin in `bytes` cost.
    fn cost(&mut self, mut bytes: &[u8]) -> i64 {
        let mut sum = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.filled).min(bytes.len());
            if taken == 0 {
                return sum;
            }
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                let [high, middle, low, kind, flags, ..] = self.head;
                self.filled = 0;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                sum += price(kind, flags, self.skip);
            }
        }
    }
}

fn price(kind: u8, flags: u8, length: usize) -> i64 {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS_FRAME: u8 = 4;
    const PING_FRAME: u8 = 6;
    const END_STREAM_OR_ACK: u8 = 1;
    match kind {
        DATA if length >= TINY || flags & END_STREAM_OR_ACK != 0 => 0,
        HEADERS => 0,
        RST_STREAM => RESET,
        SETTINGS_FRAME | PING_FRAME if flags & END_STREAM_OR_ACK != 0 => SMALL,
        SETTINGS_FRAME => SETTINGS,
        PING_FRAME => PING,
        _ => SMALL,
    }
}

/// A connection whose peer has an [`Allowance`]; reading fails once that is exceeded.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    allowance: Rc<Allowance>,
    heads: Heads,
}

impl<S> Guarded<S> {
    /// `stream`, with a client at the other end.
    pub fn client(stream: S, allowance: Rc<Allowance>) -> Self {
        Self { stream, allowance, heads: Heads { skip: PREFACE, head: [0; HEAD], filled: 0 } }
    }

    /// `stream`, with a server at the other end.
    pub fn server(stream: S, allowance: Rc<Allowance>) -> Self {
        Self { stream, allowance, heads: Heads { skip: 0, head: [0; HEAD], filled: 0 } }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.allowance.earn(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let cost = this.heads.cost(&buffer.filled()[before..]);
        Poll::Ready(this.allowance.pay(cost))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
