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

/// What both can; told apart when it runs, so that hyper's servers are built once.
trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Io for S {}

/// A client's connection, with what goes on it.
#[derive(Debug)]
pub enum Client {
    /// In clear.
    Plain(TcpStream),
    /// In TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Client {
    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Client::Plain(stream) => stream,
            Client::Tls(stream) => stream.get_ref().0,
        }
    }

    fn io(&mut self) -> Pin<&mut dyn Io> {
        match self {
            Client::Plain(stream) => Pin::new(stream),
            Client::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    /// Whether there is something to read, or an end; takes nothing.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Client::Plain(stream) => stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map(drop),
            Client::Tls(stream) => Pin::new(stream.as_mut()).poll_fill_buf(cx).map(drop),
        }
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
pub struct Severed {
    stream: Client,
    line: Arc<Line>,
    /// What was read, and is to be read again.
    unread: Bytes,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Severed {
    /// `stream`, with what says how it ends.
    pub fn new(stream: Client, line: Arc<Line>) -> Self {
        Self { stream, line, unread: Bytes::new(), lingering: None }
    }

    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
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

impl Drop for Severed {
    fn drop(&mut self) {
        if self.line.severed.load(Ordering::Relaxed)
            && let Err(error) = self.stream.tcp().set_zero_linger()
        {
            tracing::debug!(%error, "a connection could not be reset");
        }
    }
}

impl AsyncRead for Severed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            ready!(self.stream.io().poll_read(cx, buf))?;
        } else {
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(length));
        }
        self.line.heard.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Severed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.line.flushed(false);
        self.stream.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.line.flushed(false);
        self.stream.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Client::Plain(stream) => stream.is_write_vectored(),
            Client::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.stream.io().poll_flush(cx));
        self.line.flushed(flushed.is_ok());
        Poll::Ready(flushed)
    }

    /// Says that nothing follows, then waits until the client has closed too, or for [`LINGER`].
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(this.stream.io().poll_shutdown(cx))?;
        }
        let end = this.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut bytes = [0; 4096];
        while end.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(this.stream.io().poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // The client is done, one way or the other.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
