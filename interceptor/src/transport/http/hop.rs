//! The connection upstream: one for each connection downstream, in the same version of HTTP.

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use super::frames::{Allowance, Guarded};
use super::{Local, MAX_FRAME, Metered, SEND_BUFFER, STREAM_WINDOW, Version, connection_window, counted};
use crate::config::Limits;
use crate::transport::dial::{Stream, Upstream};

/// A connection upstream, or a share of one.
#[derive(Debug)]
pub struct Hop {
    sender: Sender,
    driver: Rc<Driver>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Metered>),
    Http2(http2::SendRequest<Metered>, Rc<Allowance>),
}

/// The task that drives the connection; it ends with the last share.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Hop {
    /// Speaks the version that `upstream` chose by ALPN. To be called inside a `LocalSet`: the connection is driven on
    /// this thread.
    ///
    /// # Errors
    /// When the connection ended before the first request.
    pub async fn over(upstream: Upstream, limits: &Limits) -> hyper::Result<Hop> {
        match Version::of_alpn(upstream.alpn.as_deref()) {
            Version::Http1 => Hop::http1(upstream.stream, limits).await,
            Version::Http2 => Hop::http2(upstream.stream, limits).await,
        }
    }

    async fn http1(stream: Stream, limits: &Limits) -> hyper::Result<Hop> {
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(limits.header_fields)
            .max_buf_size(limits.header_bytes)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Hop::driven(Sender::Http1(sender), connection.with_upgrades()))
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
            .max_header_list_size(counted(limits.header_bytes))
            .handshake(TokioIo::new(guarded))
            .await?;
        Ok(Hop::driven(Sender::Http2(sender, allowance), connection))
    }

    fn driven(sender: Sender, connection: impl Future<Output = hyper::Result<()>> + 'static) -> Hop {
        let driver = tokio::task::spawn_local(async move {
            // What ends the connection reaches the requests that were under way; there is nobody else to tell.
            let _ended = connection.await;
        });
        Hop { sender, driver: Rc::new(Driver(driver.abort_handle())) }
    }

    /// The version that it speaks.
    pub fn version(&self) -> Version {
        match self.sender {
            Sender::Http1(_) => Version::Http1,
            Sender::Http2(..) => Version::Http2,
        }
    }

    /// Another way to the same connection, which lives as long as one of them does; none in HTTP/1.1, where one request
    /// has the connection to itself.
    pub fn share(&self) -> Option<Hop> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender, allowance) => Some(Hop {
                sender: Sender::Http2(sender.clone(), Rc::clone(allowance)),
                driver: Rc::clone(&self.driver),
            }),
        }
    }

    /// Whether both are ways to one connection.
    pub fn is(&self, other: &Hop) -> bool {
        Rc::ptr_eq(&self.driver, &other.driver)
    }

    /// Whether another request can be sent over it.
    pub async fn is_open(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// hyper's; it holds the request where the connection broke before anything of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Metered>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Metered>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender, _) => sender.try_send_request(request).await,
        }
    }

    /// What the server may still ask of us, where that is counted.
    pub fn allowance(&self) -> Option<&Rc<Allowance>> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(_, allowance) => Some(allowance),
        }
    }
}
