//! How a connection to a client ends. Cut: by a reset, so that the client can't take what it got for the whole. In order:
//! with what the client still sends read for a moment, so that our last words aren't overtaken by a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// A stream over a TCP connection that can be reset.
pub trait Severable {
    /// The TCP connection below.
    fn tcp(&self) -> &TcpStream;
}

impl Severable for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Severable for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// How long a client's bytes are read after our last ones: a client may send all of a refused upload before it reads.
const LINGER: Duration = Duration::from_secs(1);

/// A stream that is reset when it is dropped, if its flag says so by then. The flag is atomic because hyper wants to be
/// able to send a connection that is upgraded to another thread; here none is.
#[derive(Debug)]
pub struct Severed<S: Severable> {
    stream: S,
    severed: Arc<AtomicBool>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S: Severable> Severed<S> {
    /// `stream`, with the flag that decides how it ends.
    pub fn new(stream: S, severed: Arc<AtomicBool>) -> Self {
        Self { stream, severed, lingering: None }
    }
}

impl<S: Severable> Drop for Severed<S> {
    fn drop(&mut self) {
        if self.severed.load(Ordering::Relaxed)
            && let Err(error) = self.stream.tcp().set_zero_linger()
        {
            tracing::debug!(%error, "a connection could not be reset");
        }
    }
}

impl<S: Severable + AsyncRead + Unpin> AsyncRead for Severed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: Severable + AsyncRead + AsyncWrite + Unpin> AsyncWrite for Severed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
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
