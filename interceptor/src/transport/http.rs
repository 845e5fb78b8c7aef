//! HTTP/1.1 on both sides of the proxy: hyper's settings, the hop upstream, the headers that belong to one hop only,
//! and bodies that are counted and digested as they pass. Not here: what may be sent (policy, pipeline).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1 as client};
use hyper::server::conn::http1 as server;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::dial::Upstream;
use crate::config::Limits;

/// Header fields that mean something between two neighbours only (RFC 9110 section 7.6.1, and those that predate it).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Takes out what belongs to the hop it came over: the listed fields and those that `Connection` names. `TE: trailers`
/// stays, with the `Connection: te` that goes with it, because this proxy passes trailers on. A length beside a transfer
/// coding is no length (RFC 9112 section 6.3) and doesn't survive it.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|te| te.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
    });
    for name in HOP_BY_HOP.iter().chain(&named).chain([&header::TE]) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("te"));
    }
}

/// hyper's server with our bounds. A client that half-closes after a complete request still gets its answer.
pub fn server(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .timer(TokioTimer::new())
        .half_close(true)
        .preserve_header_case(true)
        .auto_date_header(false)
        .header_read_timeout(limits.idle_timeout)
        .max_headers(limits.header_fields)
        .max_buf_size(limits.header_bytes);
    builder
}

/// One connection upstream, for one connection downstream.
#[derive(Debug)]
pub struct Hop {
    sender: client::SendRequest<Metered>,
    driver: AbortHandle,
}

impl Hop {
    /// Speaks HTTP/1.1 over `upstream`. To be called inside a `LocalSet`: the connection is driven on this thread.
    ///
    /// # Errors
    /// When the connection ended before the first request.
    pub async fn over(upstream: Upstream, limits: &Limits) -> hyper::Result<Hop> {
        let (sender, connection) = client::Builder::new()
            .preserve_header_case(true)
            .max_headers(limits.header_fields)
            .max_buf_size(limits.header_bytes)
            .handshake(TokioIo::new(upstream.stream))
            .await?;
        let driver = tokio::task::spawn_local(async move {
            // What ends the connection reaches the request that was under way; there is nobody else to tell.
            let _ended = connection.await;
        });
        Ok(Hop { sender, driver: driver.abort_handle() })
    }

    /// Whether another request can be sent over it.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// hyper's; it holds the request where the connection broke before anything of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Metered>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Metered>>> {
        self.sender.try_send_request(request).await
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// How much of a body has passed, and its digest.
#[derive(Debug, Clone)]
pub struct Meter(Rc<Counted>);

struct Counted {
    total: metrics::Counter,
    bytes: Cell<u64>,
    digest: RefCell<blake3::Hasher>,
    ended: Cell<bool>,
    end: Notify,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.get())
    }
}

impl Meter {
    /// Nothing yet. What it counts is added to `total` as well.
    pub fn new(total: metrics::Counter) -> Self {
        let (bytes, digest) = (Cell::default(), RefCell::default());
        Self(Rc::new(Counted { total, bytes, digest, ended: Cell::default(), end: Notify::new() }))
    }

    /// Waits until the body that is counted is done with: sent to its end, or given up.
    pub async fn ended(&self) {
        // Only one task waits, and a notice that comes first is kept for it.
        while !self.0.ended.get() {
            self.0.end.notified().await;
        }
    }

    /// Counts these bytes in.
    pub fn count(&self, data: &[u8]) {
        self.0.total.increment(data.len() as u64);
        self.0.bytes.set(self.0.bytes.get() + data.len() as u64);
        self.0.digest.borrow_mut().update(data);
    }

    /// The bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// BLAKE3 of the bytes so far in hex; none if there were none.
    pub fn digest(&self) -> Option<String> {
        (self.bytes() > 0).then(|| self.0.digest.borrow().finalize().to_hex().to_string())
    }
}

/// A request body on its way upstream.
#[derive(Debug)]
pub struct Metered {
    body: Incoming,
    meter: Meter,
}

impl Metered {
    /// `body`, counted into `meter`.
    pub fn new(body: Incoming, meter: Meter) -> Self {
        Self { body, meter }
    }

    /// What counts it.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.0.ended.set(true);
        self.meter.0.end.notify_one();
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.meter.count(data.chunk());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
