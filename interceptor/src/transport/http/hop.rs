//! The connection upstream: one for each connection downstream, in the same version of HTTP.

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::{AbortHandle, JoinHandle};

use super::frames::{Allowance, Guarded};
use super::{Local, MAX_FRAME, Metered, SEND_BUFFER, STREAM_WINDOW, Version, connection_window, counted};
use crate::config::Limits;
use crate::transport::dial::{Stream, Upstream};

mod http1;

use http1::Http1;

/// A connection upstream, or a share of one.
#[derive(Debug)]
pub struct Hop(Way);

#[derive(Debug)]
enum Way {
    Http1(Http1),
    Http2(Http2),
}

/// A share of a connection of HTTP/2.
#[derive(Debug, Clone)]
struct Http2 {
    sender: http2::SendRequest<Metered>,
    allowance: Rc<Allowance>,
    /// The task that drives the connection; it ends with the last share.
    driver: Rc<Driver>,
}

/// A task that ends with this.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Driver {
    fn of<T>(task: &JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The connection was closed before; the request is as it was.
    Closed(Box<Request<Metered>>),
    /// It broke; hyper's error holds the request where nothing of it was sent.
    Broken(Box<TrySendError<Request<Metered>>>),
}

impl Hop {
    /// Speaks the version that `upstream` chose by ALPN. To be called inside a `LocalSet`: the connection is driven on
    /// this thread.
    ///
    /// # Errors
    /// When the connection ended before the first request.
    pub async fn over(upstream: Upstream, limits: &Limits) -> hyper::Result<Hop> {
        match Version::of_alpn(upstream.alpn.as_deref()) {
            Version::Http1 => Ok(Hop(Way::Http1(Http1::over(upstream.stream, limits).await?))),
            Version::Http2 => Hop::http2(upstream.stream, limits).await,
        }
    }

    async fn http2(stream: Stream, limits: &Limits) -> hyper::Result<Hop> {
        let allowance = Rc::<Allowance>::default();
        let guarded = Guarded::server(stream, Rc::clone(&allowance));
        let (sender, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(connection_window(limits))
            .max_frame_size(MAX_FRAME)
            .max_send_buf_size(SEND_BUFFER)
            // Twice of it, so that what is somewhat too large is told as that.
            .max_header_list_size(counted(limits.header_bytes.saturating_mul(2)))
            .handshake(TokioIo::new(guarded))
            .await?;
        let driver = tokio::task::spawn_local(async move {
            // What ends the connection reaches the requests that were under way; there is nobody else to tell.
            let _ended = connection.await;
        });
        Ok(Hop(Way::Http2(Http2 { sender, allowance, driver: Rc::new(Driver::of(&driver)) })))
    }

    /// The version that it speaks.
    pub fn version(&self) -> Version {
        match self.0 {
            Way::Http1(_) => Version::Http1,
            Way::Http2(_) => Version::Http2,
        }
    }

    /// Another way to the same connection, which lives as long as one of them does; none in HTTP/1.1, where one request
    /// has the connection to itself.
    pub fn share(&self) -> Option<Hop> {
        match &self.0 {
            Way::Http1(_) => None,
            Way::Http2(share) => Some(Hop(Way::Http2(share.clone()))),
        }
    }

    /// Whether both are ways to one connection.
    pub fn is(&self, other: &Hop) -> bool {
        match (&self.0, &other.0) {
            (Way::Http2(mine), Way::Http2(other)) => Rc::ptr_eq(&mine.driver, &other.driver),
            _ => false,
        }
    }

    /// Whether another request can be sent over it. Ends its rest.
    pub async fn is_open(&mut self) -> bool {
        match &mut self.0 {
            Way::Http1(connection) => connection.is_open().await,
            Way::Http2(share) => share.sender.ready().await.is_ok(),
        }
    }

    /// Lets it rest: until the next [`Hop::is_open`] it holds nothing but its stream, in HTTP/1.1.
    pub fn rest(&mut self) {
        if let Way::Http1(connection) = &mut self.0 {
            connection.rest();
        }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// When the connection is closed or breaks.
    pub async fn send(&mut self, request: Request<Metered>) -> Result<Response<Incoming>, Unanswered> {
        let answer = match &mut self.0 {
            Way::Http1(connection) => return connection.send(request).await,
            Way::Http2(share) => share.sender.try_send_request(request).await,
        };
        answer.map_err(|broken| Unanswered::Broken(Box::new(broken)))
    }

    /// What the server may still ask of us, where that is counted.
    pub fn allowance(&self) -> Option<&Rc<Allowance>> {
        match &self.0 {
            Way::Http1(_) => None,
            Way::Http2(share) => Some(&share.allowance),
        }
    }
}
