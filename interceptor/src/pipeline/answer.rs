//! An answer on its way back: screened, taken down, and passed on at the client's pace.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::charge::Charge;
use super::live::Live;
use super::onward::{Way, check_fields};
use super::operation::end;
use super::payload::Taking;
use super::reply::{Cut, Passing, Refusal, ReplyBody};
use super::screen::{Screen, WITHHELD};
use crate::detect::secrets;
use crate::enforce::upstream_fault;
use crate::error::{Blame, Fault};
use crate::mask::answer::empty;
use crate::transport::http::{Meter, Version};

/// How many frames of an answer may wait for the client. Each is at most a read buffer of hyper's.
const FRAMES_AHEAD: usize = 2;
/// How much of a masked answer is held before its head is passed on, and how long: what can't be masked mostly shows by
/// then, and is answered with an error instead of being cut.
const HELD: usize = 64 << 10;
const HELD_FOR: Duration = Duration::from_millis(500);

/// A body that comes in.
pub(super) struct Coming<'a> {
    pub(super) body: Incoming,
    pub(super) screen: Screen,
    /// What pays for it, where that is limited.
    pub(super) charge: Option<Rc<Charge>>,
    pub(super) live: &'a Live,
    pub(super) way: &'a Way<'a>,
    pub(super) sent: &'a Meter,
    pub(super) received: &'a Meter,
    pub(super) taking: &'a Taking,
    /// What may go on.
    ready: VecDeque<Frame<Bytes>>,
    ended: bool,
    /// Whether it goes on without what the server sends.
    left_out: bool,
}

impl<'a> Coming<'a> {
    pub(super) fn new(
        (body, screen, charge): (Incoming, Screen, Option<Rc<Charge>>),
        live: &'a Live,
        way: &'a Way<'a>,
        (sent, received, taking): (&'a Meter, &'a Meter, &'a Taking),
    ) -> Self {
        let (ready, ended, left_out) = (VecDeque::new(), false, false);
        Self { body, screen, charge, live, way, sent, received, taking, ready, ended, left_out }
    }

    /// Holds the beginning of a body that is masked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) async fn hold(&mut self) -> Result<(), Fault> {
        let until = Instant::now() + HELD_FOR;
        while self.screen.is_held() && !self.ended && self.held() < HELD {
            match timeout_at(until, self.pull()).await {
                Ok(pulled) => pulled?,
                Err(_elapsed) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Leaves out a body that is withheld for this fault, and says so in its head. Gives whether it could: not once any of
    /// it is ready to go on, and counted.
    pub(super) fn leave_out(&mut self, fault: &Fault, parts: &mut Parts) -> bool {
        if fault.code != WITHHELD || !self.ready.is_empty() {
            return false;
        }
        empty(&mut parts.headers);
        (self.ended, self.left_out) = (true, true);
        true
    }

    /// Whether [`Coming::leave_out`] did: what the server still sends is nobody's.
    pub(super) fn is_left_out(&self) -> bool {
        self.left_out
    }

    /// Passes it on behind its head, unless it is interrupted.
    ///
    /// # Errors
    /// The code of what ended it before it was complete.
    pub(super) async fn pass(
        &mut self,
        parts: Parts,
        mut interrupted: Pin<&mut impl Future<Output = Refusal>>,
        reply: oneshot::Sender<Response<ReplyBody>>,
    ) -> Result<(), &'static str> {
        let is_http2 = self.live.version() == Version::Http2;
        if let Some(whole) = self.whole() {
            return reply.send(Response::from_parts(parts, Either::Left(whole))).map_err(|_gone| "client-gone");
        }
        let (passing, mut sender, mut unread) = Passing::new(FRAMES_AHEAD);
        if reply.send(Response::from_parts(parts, Either::Right(passing))).is_err() {
            return Err("client-gone");
        }
        let live = self.live;
        loop {
            let step = async {
                match self.next().await {
                    Ok(Some(frame)) => sender.send(frame).await.map(|()| true).map_err(|_dropped| "client-gone"),
                    Ok(None) => Ok(false),
                    Err(fault) => Err(fault.code),
                }
            };
            let step = tokio::select! {
                biased;
                refusal = interrupted.as_mut() => Err(refusal.fault.code),
                step = step => step,
                // In HTTP/1.1 the connection's own end tells.
                _ = &mut unread, if is_http2 => Err("client-gone"),
            };
            match step {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(code) => {
                    let code = if code == "client-gone" { live.ended().unwrap_or(code) } else { code };
                    // The client must not take what it got for the whole.
                    end(live, code);
                    sender.abort(Cut::new(code));
                    return Err(code);
                }
            }
        }
    }

    /// The body, if it needn't be awaited: it was held to its end, or ends with its head, and so it does for the client:
    /// gRPC tells an error by that.
    fn whole(&mut self) -> Option<Full<Bytes>> {
        let is_http2 = self.live.version() == Version::Http2;
        let is_held = self.ended && self.ready.iter().all(Frame::is_data);
        let is_empty = is_http2 && self.ready.is_empty() && self.body.is_end_stream();
        if !is_held && !is_empty {
            return None;
        }
        let mut pieces = self.ready.drain(..).filter_map(|frame| frame.into_data().ok());
        let first = pieces.next().unwrap_or_default();
        Some(Full::new(match pieces.next() {
            // As a rule it comes in one.
            None => first,
            Some(second) => [first, second].into_iter().chain(pieces).collect::<Vec<_>>().concat().into(),
        }))
    }

    /// The next frame for the client; none at the end.
    async fn next(&mut self) -> Result<Option<Frame<Bytes>>, Fault> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            if self.ended {
                return Ok(None);
            }
            self.pull().await?;
        }
    }

    /// Waits for a frame, and readies what may go on. A wait that is given up loses nothing.
    async fn pull(&mut self) -> Result<(), Fault> {
        let is_http2 = self.live.version() == Version::Http2;
        match self.body.frame().await {
            None if is_http2 && is_reset(&self.body, self.sent) => Err(reset()),
            None => {
                self.ended = true;
                let rest = self.screen.rest()?;
                self.give(rest)
            }
            Some(Err(error)) => Err(upstream_fault(&error)),
            Some(Ok(frame)) => self.take(frame),
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Fault> {
        match frame.into_data() {
            Ok(data) => {
                self.way.took(data.len());
                let data = self.screen.data(data)?;
                self.give(data)?;
            }
            Err(frame) => {
                let Ok(mut trailers) = frame.into_trailers() else { return Ok(()) };
                check_fields(&trailers, &self.live.session().limits())?;
                let rest = self.screen.rest()?;
                self.give(rest)?;
                self.screen.trailers(&mut trailers);
                self.taking.trailers(&trailers);
                self.ready.push_back(Frame::trailers(trailers));
            }
        }
        Ok(())
    }

    fn give(&mut self, data: Bytes) -> Result<(), Fault> {
        if !data.is_empty() {
            if let Some(charge) = &self.charge {
                charge.take(&data)?;
            }
            // What the process gets is what is recorded: a digest of what is masked could be guessed.
            self.received.count(&data);
            self.taking.passed(&data);
            self.ready.push_back(Frame::data(data));
        }
        Ok(())
    }

    fn held(&self) -> usize {
        self.ready.iter().filter_map(Frame::data_ref).map(Bytes::len).sum()
    }
}

/// Whether a server's body that hyper takes for ended was reset instead. Without an error a server may do so only to stop
/// a request that it has answered in full (RFC 9113 section 8.1).
fn is_reset(body: &Incoming, sent: &Meter) -> bool {
    let is_short = body.size_hint().exact().is_some_and(|left| left > 0);
    is_short || (!body.is_end_stream() && sent.is_ended())
}

fn reset() -> Fault {
    Fault {
        code: "upstream-reset",
        blame: Blame::Upstream,
        told: "the server reset the request's stream".into(),
        next: "try again; the request may have taken effect",
    }
}

/// What the service calls the request, by which its own log knows it: Microsoft's names first.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    const NAMES: [&str; 4] = ["request-id", "x-ms-request-id", "x-request-id", "x-amzn-requestid"];
    let (name, value) = NAMES.iter().find_map(|name| Some((*name, headers.get(*name)?)))?;
    let value = value.to_str().ok()?;
    // Many a server sends back what its client called the request, which can be anything.
    let is_id = (1..=128).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:;/|+=".contains(&byte))
        && *secrets::header(name, value.as_bytes()) == *value.as_bytes();
    is_id.then(|| value.to_owned())
}

#[cfg(test)]
mod tests;
