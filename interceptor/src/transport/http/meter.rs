//! Bodies that are counted and digested as they pass, and that can be cut off in the middle.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;

use super::frames::Allowance;

/// How much of a body has passed, and its digest.
#[derive(Debug, Clone)]
pub struct Meter(Rc<Counted>);

/// Sees the bytes that are counted.
type Tap = Box<dyn Fn(&[u8])>;

/// Looks at a request's body as it passes.
pub trait Overseer {
    /// Whether so many bytes, which come next, may go on. Where it says no nothing of them passes, and the body is broken:
    /// the last piece of a stream of HTTP/2 would end the request upstream.
    fn may_pass(&self, length: usize) -> bool;

    /// These bytes pass.
    fn passes(&self, data: &[u8]);

    /// Whether the trailers that follow may go on. Where it says no they don't pass, and the body is broken.
    fn may_follow(&self, trailers: &HeaderMap) -> bool;
}

struct Counted {
    tap: RefCell<Option<Tap>>,
    overseer: RefCell<Option<Weak<dyn Overseer>>>,
    total: metrics::Counter,
    bytes: Cell<u64>,
    /// None before the first byte: many a body is empty, and a hasher is large.
    digest: RefCell<Option<Box<blake3::Hasher>>>,
    ended: Cell<bool>,
    end: Notify,
    cut: Cell<bool>,
    broken: Cell<bool>,
    reader: RefCell<Option<Waker>>,
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
        let (ended, end) = (Cell::default(), Notify::new());
        let (cut, broken, reader) = (Cell::default(), Cell::default(), RefCell::default());
        let (tap, overseer) = (RefCell::default(), RefCell::default());
        Self(Rc::new(Counted { tap, overseer, total, bytes, digest, ended, end, cut, broken, reader }))
    }

    /// Waits until the body that is counted is done with: sent to its end, or given up.
    pub async fn ended(&self) {
        // Only one task waits, and a notice that comes first is kept for it.
        while !self.0.ended.get() {
            self.0.end.notified().await;
        }
    }

    /// Whether the body that is counted is done with.
    pub fn is_ended(&self) -> bool {
        self.0.ended.get()
    }

    /// Nothing more of the body that is counted shall pass: who reads it on gets an error.
    pub fn cut(&self) {
        self.0.cut.set(true);
        if let Some(reader) = self.0.reader.take() {
            reader.wake();
        }
    }

    /// Whether the body that is counted ended before it was complete.
    pub fn is_broken(&self) -> bool {
        self.0.broken.get()
    }

    /// Lets `tap` see the bytes that are counted from now on.
    pub fn tap(&self, tap: impl Fn(&[u8]) + 'static) {
        self.0.tap.replace(Some(Box::new(tap)));
    }

    /// Lets `overseer` look at the request's body. Once it is gone data passes, and trailers don't.
    pub fn oversee(&self, overseer: Weak<dyn Overseer>) {
        self.0.overseer.replace(Some(overseer));
    }

    /// Whether this piece of the body, or these trailers, may pass.
    fn lets_through(&self, frame: &Frame<Bytes>) -> bool {
        let overseer = self.0.overseer.borrow();
        let Some(overseer) = overseer.as_ref().map(Weak::upgrade) else { return true };
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => overseer.is_none_or(|overseer| overseer.may_pass(data.len())),
            (None, Some(trailers)) => overseer.is_some_and(|overseer| overseer.may_follow(trailers)),
            (None, None) => true,
        }
    }

    /// Counts these bytes in.
    pub fn count(&self, data: &[u8]) {
        self.0.total.increment(data.len() as u64);
        self.0.bytes.set(self.0.bytes.get() + data.len() as u64);
        self.0.digest.borrow_mut().get_or_insert_with(spare).update(data);
        if let Some(tap) = self.0.tap.borrow().as_ref() {
            tap(data);
        }
        if let Some(overseer) = self.0.overseer.borrow().as_ref().and_then(Weak::upgrade) {
            overseer.passes(data);
        }
    }

    /// The bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// BLAKE3 of the bytes so far in hex; none if there were none.
    pub fn digest(&self) -> Option<String> {
        let digest = self.0.digest.borrow();
        digest.as_ref().filter(|_| self.bytes() > 0).map(|digest| digest.finalize().to_hex().to_string())
    }
}

/// How many hashers each thread keeps for later bodies: they are too large to be allocated for each.
const SPARE: usize = 64;

thread_local! {
    #[expect(clippy::vec_box, reason = "2 KiB each, which would be moved in and out")]
    static HASHERS: RefCell<Vec<Box<blake3::Hasher>>> = const { RefCell::new(Vec::new()) };
}

fn spare() -> Box<blake3::Hasher> {
    HASHERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(mut hasher) = self.digest.take() else { return };
        // A thread that ends has none to keep.
        let _kept = HASHERS.try_with(|hashers| {
            let mut hashers = hashers.borrow_mut();
            if hashers.len() < SPARE {
                hasher.reset();
                hashers.push(hasher);
            }
        });
    }
}

/// Why a request body ended before it was complete.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client broke it off.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// The client reset its stream as if without an error; hyper takes that for the end.
    #[error("the body was broken off")]
    Reset(#[source] h2::Error),
    /// It was cut. The source is what a stream of HTTP/2 is reset with.
    #[error("the body was cut")]
    Cut(#[source] h2::Error),
}

/// The body of a request.
#[derive(Debug)]
pub enum RequestBody {
    /// As it comes.
    Streaming(Incoming),
    /// It was read already.
    Whole(Bytes),
}

impl Default for RequestBody {
    /// Nothing more to come.
    fn default() -> Self {
        RequestBody::Whole(Bytes::new())
    }
}

impl RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self {
            RequestBody::Streaming(body) => Pin::new(body).poll_frame(cx),
            RequestBody::Whole(body) if body.is_empty() => Poll::Ready(None),
            RequestBody::Whole(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Streaming(body) => body.is_end_stream(),
            RequestBody::Whole(body) => body.is_empty(),
        }
    }
}

/// A request body on its way upstream.
#[derive(Debug)]
pub struct Metered {
    body: RequestBody,
    meter: Meter,
    allowance: Option<Rc<Allowance>>,
}

impl Metered {
    /// `body`, counted into `meter`, and into what its sender may cost, if that is bounded.
    pub fn new(body: RequestBody, meter: Meter, allowance: Option<Rc<Allowance>>) -> Self {
        Self { body, meter, allowance }
    }

    /// What counts it.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether a body that has ended did so without HTTP/2's END_STREAM.
    fn is_reset(&self) -> bool {
        self.allowance.is_some() && !self.body.is_end_stream()
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
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = if self.meter.0.cut.get() {
            Some(Err(BodyError::Cut(h2::Reason::CANCEL.into())))
        } else {
            self.meter.0.reader.replace(Some(cx.waker().clone()));
            match ready!(self.body.poll_frame(cx)) {
                None if self.is_reset() => Some(Err(BodyError::Reset(h2::Reason::CANCEL.into()))),
                Some(Ok(frame)) if !self.meter.lets_through(&frame) => {
                    Some(Err(BodyError::Cut(h2::Reason::CANCEL.into())))
                }
                frame => frame.map(|frame| frame.map_err(BodyError::Client)),
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.meter.count(data.chunk());
                    if let Some(allowance) = &self.allowance {
                        allowance.took(data.len());
                    }
                }
            }
            Some(Err(_)) => self.meter.0.broken.set(true),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            RequestBody::Streaming(body) => body.size_hint(),
            RequestBody::Whole(body) => SizeHint::with_exact(body.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests;
