//! How a connection to a client ends. Cut: by a reset, so that the client can't take what it got for the whole. In order:
//! with what the client still sends read for a moment, so that our last words aren't overtaken by a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// A stream over a TCP connection that can be reset.
pub trait Severable {
    /// The TCP connection below.
    fn tcp(&self) -> &TcpStream;

    /// Whether there is something to read, or an end; takes nothing.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Severable for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map(drop)
    }
}

impl Severable for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(self).poll_fill_buf(cx).map(drop)
    }
}

/// What a connection's stream and those who look after it know of each other. Atomic because hyper wants to be able to send
/// a connection that is upgraded to another thread; here none is.
#[derive(Debug, Default)]
pub struct Line {
    severed: AtomicBool,
    unflushed: AtomicBool,
    heard: AtomicBool,
}

impl Line {
    /// Lets the connection end with a reset, or not.
    pub fn sever(&self, severed: bool) {
        self.severed.store(severed, Ordering::Relaxed);
    }

    /// Whether all that was written has gone to the kernel.
    pub fn is_flushed(&self) -> bool {
        !self.unflushed.load(Ordering::Relaxed)
    }

    /// Notes from now on whether anything is read.
    pub fn listen(&self) {
        self.heard.store(false, Ordering::Relaxed);
    }

    /// Whether anything was read since [`Line::listen`].
    pub fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    fn flushed(&self, flushed: bool) {
        self.unflushed.store(!flushed, Ordering::Relaxed);
    }
}

/// How long a client's bytes are read after our last ones: a client may send all of a refused upload before it reads.
const LINGER: Duration = Duration::from_secs(1);

/// A stream that is reset when it is dropped, if its line is severed by then.
#[derive(Debug)]
pub struct Severed<S: Severable> {
    stream: S,
    line: Arc<Line>,
    /// What was read, and is to be read again.
    unread: Bytes,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S: Severable> Severed<S> {
    /// `stream`, with what says how it ends.
    pub fn new(stream: S, line: Arc<Line>) -> Self {
        Self { stream, line, unread: Bytes::new(), lingering: None }
    }

    /// Gives back what was read; to be called when nothing is left of what was given back before.
    pub fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// Whether there is something to read, or an end; takes nothing.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unread.is_empty() { self.stream.poll_readable(cx) } else { Poll::Ready(()) }
    }
}

impl<S: Severable> Drop for Severed<S> {
    fn drop(&mut self) {
        if self.line.severed.load(Ordering::Relaxed)
            && let Err(error) = self.stream.tcp().set_zero_linger()
        {
            tracing::debug!(%error, "a connection could not be reset");
        }
    }
}

impl<S: Severable + AsyncRead + Unpin> AsyncRead for Severed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
            self.line.heard.store(true, Ordering::Relaxed);
            return Poll::Ready(read);
        }
        self.line.heard.store(true, Ordering::Relaxed);
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: Severable + AsyncRead + AsyncWrite + Unpin> AsyncWrite for Severed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.line.flushed(false);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.line.flushed(false);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.line.flushed(flushed.is_ok());
        Poll::Ready(flushed)
    }

    /// Says that nothing follows, then waits until the client has closed too, or for [`LINGER`].
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let end = this.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut bytes = [0; 4096];
        while end.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // The client is done, one way or the other.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
