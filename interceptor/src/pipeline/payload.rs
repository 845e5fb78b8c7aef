//! What an operation sends and gets, taken down as it passes and kept, sealed, when it has ended. It goes through the
//! list of secret places first; what policy or the configuration doesn't want kept isn't taken down at all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderMap, StatusCode, Version, header, response};
use tokio::sync::Notify;

use super::live::Live;
use super::request::{self, Decoded};
use super::screen::Masked;
use crate::config::PayloadLevel;
use crate::detect::secrets;
use crate::error::{Blame, Fault};
use crate::ids::{LaunchId, OperationId};
use crate::mask::Places;
use crate::record::Content;
use crate::record::payload::Message;
use crate::transport::http::{Meter, Overseer};

mod budget;
mod coding;
mod conceal;

pub(super) use budget::Budget;

/// Bodies up to this size are prepared at once; larger ones beside the worker, which has others to serve.
const AT_ONCE: usize = 32 << 10;

/// What a body that people are asked about may decode to.
const MOST_SHOWN: usize = 16 << 20;

/// What is taken down of one operation.
pub(super) struct Taking {
    live: Rc<Live>,
    level: PayloadLevel,
    /// The most bytes of one body that are kept.
    most: usize,
    request: RefCell<Taken>,
    /// The most bytes that the request's body may have, and how many have passed.
    limit: u64,
    passed: Cell<u64>,
    response: RefCell<Option<Taken>>,
    /// What the answer is masked for, and so the request, as far as it is kept.
    masked: Option<Masked>,
    /// Why the request can't go on, once its body says so.
    unfit: RefCell<Option<Fault>>,
    is_unfit: Notify,
    opaque: Cell<bool>,
}

/// One direction, as it passed.
#[derive(Default)]
struct Taken {
    start: String,
    headers: HeaderMap,
    trailers: HeaderMap,
    body: Vec<u8>,
    partial: Option<&'static str>,
    /// Where the body is masked, decoded; none where no mask was at work.
    masked: Option<Places>,
}

impl Taking {
    /// Begins with the request: its head now, its body as `sent` counts it.
    pub(super) fn begin(
        live: &Rc<Live>,
        decoded: &Decoded,
        (asked, masked): (Option<PayloadLevel>, Option<Masked>),
        sent: &Meter,
    ) -> Rc<Self> {
        let world = live.session().world();
        let settings = &world.snapshot.settings;
        let level = asked.unwrap_or(settings.payload.level);
        let mut request = Taken::default();
        if level != PayloadLevel::None {
            request.start = request_line(&decoded.parts);
            request.headers = decoded.parts.headers.clone();
        }
        let taking = Rc::new(Self {
            live: Rc::clone(live),
            level,
            most: if level == PayloadLevel::Full { settings.payload.bytes } else { 0 },
            request: RefCell::new(request),
            limit: settings.limits.request_body,
            passed: Cell::default(),
            response: RefCell::default(),
            masked,
            unfit: RefCell::default(),
            is_unfit: Notify::new(),
            opaque: Cell::new(false),
        });
        let overseer = Rc::downgrade(&taking);
        sent.oversee(overseer);
        taking
    }

    /// Why the request can't go on, if its body has said so: it is larger than it may be, or followed by trailers that can't
    /// pass.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.unfit.borrow().clone()
    }

    /// Waits until there is a [`Taking::fault`].
    pub(super) async fn unfit(&self) -> Fault {
        loop {
            if let Some(fault) = self.fault() {
                return fault;
            }
            self.is_unfit.notified().await;
        }
    }

    fn refuse(&self, fault: Fault) {
        self.unfit.borrow_mut().get_or_insert(fault);
        self.is_unfit.notify_one();
    }

    /// The head of the answer, as the process gets it.
    pub(super) fn answered(&self, parts: &response::Parts) {
        if self.level != PayloadLevel::None {
            let (start, headers) = (status_line(parts.status), parts.headers.clone());
            self.response.replace(Some(Taken { start, headers, ..Taken::default() }));
        }
    }

    /// A piece of the answer, as the process gets it.
    pub(super) fn passed(&self, data: &[u8]) {
        if let Some(taken) = self.response.borrow_mut().as_mut() {
            self.take(taken, data);
        }
    }

    /// The trailers of the answer, as the process gets them.
    pub(super) fn trailers(&self, trailers: &HeaderMap) {
        if let Some(taken) = self.response.borrow_mut().as_mut() {
            taken.trailers = trailers.clone();
        }
    }

    /// Where the answer's body was masked, once it has ended.
    pub(super) fn noted(&self, places: Option<Places>) {
        if let Some(taken) = self.response.borrow_mut().as_mut() {
            taken.masked = places;
        }
    }

    /// What follows belongs to another protocol, which can't be searched for secrets: only its size is kept.
    pub(super) fn opaque(&self) {
        self.opaque.set(true);
        self.request.borrow_mut().partial = Some("opaque");
        if let Some(taken) = self.response.borrow_mut().as_mut() {
            taken.partial = Some("opaque");
        }
    }

    /// What was taken down, as it is kept: decoded, without secrets. None where nothing is.
    pub(super) async fn content(&self, operation: OperationId, sent: &Meter, received: &Meter) -> Option<Content> {
        if self.level == PayloadLevel::None {
            return None;
        }
        let (request, response) = (self.request.take(), self.response.take());
        let launch = self.launch();
        let size = request.body.len() + response.as_ref().map_or(0, |taken| taken.body.len());
        let (sent, received, most) = (sent.bytes(), received.bytes(), self.most);
        let whole = self.level == PayloadLevel::Full;
        let (masked, tls) = (self.masked.clone(), self.live.tls());
        let prepare = move || {
            let mut request = request.message(sent, most, whole);
            request.tls = Some(tls);
            if let Some(masked) = &masked {
                masked.conceal(&mut request);
            }
            Content { request, response: response.map(|taken| taken.message(received, most, whole)) }
        };
        let content = if size <= AT_ONCE { Some(prepare()) } else { tokio::task::spawn_blocking(prepare).await.ok() };
        self.live.session().worker.captured.give_back(launch, size);
        if content.is_none() {
            tracing::error!(%operation, "what an operation sent and got could not be prepared, so it isn't kept");
        }
        content
    }

    /// Takes bytes of a body down, as far as there is room.
    fn take(&self, taken: &mut Taken, data: &[u8]) {
        let room = self.most.saturating_sub(taken.body.len()).min(data.len());
        if room < data.len() && self.most > 0 {
            taken.partial = taken.partial.or(Some("cut"));
        }
        if room == 0 || taken.partial == Some("memory") {
            return;
        }
        if self.live.session().worker.captured.take(self.launch(), room) {
            taken.body.extend_from_slice(&data[..room]);
        } else {
            taken.partial = Some("memory");
        }
    }

    fn launch(&self) -> LaunchId {
        self.live.session().subject.launch
    }
}

impl Overseer for Taking {
    fn may_pass(&self, length: usize) -> bool {
        if self.opaque.get() {
            return true;
        }
        self.passed.set(self.passed.get() + length as u64);
        if self.passed.get() > self.limit {
            self.refuse(too_large("request-too-large", "the request's body", "limits.request_body"));
            return false;
        }
        true
    }

    fn passes(&self, data: &[u8]) {
        if !self.opaque.get() {
            self.take(&mut self.request.borrow_mut(), data);
        }
    }

    fn may_follow(&self, trailers: &HeaderMap) -> bool {
        if let Err(fault) = request::check_trailers(&self.live, trailers) {
            self.refuse(fault);
            return false;
        }
        if self.level != PayloadLevel::None {
            self.request.borrow_mut().trailers = trailers.clone();
        }
        true
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let left =
            self.request.borrow().body.len() + self.response.borrow().as_ref().map_or(0, |taken| taken.body.len());
        self.live.session().worker.captured.give_back(self.launch(), left);
    }
}

impl Taken {
    /// As it is kept: decoded, without secrets.
    fn message(self, bytes: u64, most: usize, whole: bool) -> Message {
        let Taken { start, headers, trailers, body, mut partial, mut masked } = self;
        let value = |name: header::HeaderName| {
            let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            let first = values.next().unwrap_or_default();
            values.fold(first, |all, next| all + "," + next)
        };
        let body = match coding::decoded(&value(header::CONTENT_ENCODING), body, most) {
            Some((body, is_whole)) => {
                if !is_whole {
                    partial = partial.or(Some("cut"));
                }
                masked = masked.map(|places| places.within(body.len()));
                secrets::body_telling(&value(header::CONTENT_TYPE), &body, &mut |replaced| {
                    if let Some(places) = &mut masked {
                        places.moved(replaced);
                    }
                })
            }
            // What can't be read can't be searched for secrets.
            None => {
                partial = Some("encoded");
                Vec::new()
            }
        };
        if !whole && bytes > 0 {
            partial = Some("headers-only");
        }
        // Of a body that isn't here there is nothing to tell.
        let is_told = |places: &Places| !body.is_empty() || (partial.is_none() && *places != Places::default());
        let masked = masked.filter(is_told);
        let partial = partial.map(str::to_owned);
        let mut message = Message { start, body, bytes, partial, masked, ..Message::default() };
        (message.headers, message.trailers) = (fields(&headers), fields(&trailers));
        message
    }
}

/// Header fields without their secrets.
fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let field = |name: &header::HeaderName, value: &header::HeaderValue| {
        let kept = secrets::header(name.as_str(), value.as_bytes());
        (name.as_str().to_owned(), String::from_utf8_lossy(&kept).into_owned())
    };
    headers.iter().map(|(name, value)| field(name, value)).collect()
}

/// A request as people see it who are asked about it: decoded, without secrets.
pub(super) fn exhibit(decoded: &Decoded, body: &[u8]) -> Message {
    let (start, headers) = (request_line(&decoded.parts), decoded.parts.headers.clone());
    let taken = Taken { start, headers, body: body.to_vec(), ..Taken::default() };
    taken.message(body.len() as u64, MOST_SHOWN, true)
}

fn request_line(parts: &Parts) -> String {
    let query = parts.uri.query().map(secrets::query);
    let (sign, query) = query.as_ref().map_or(("", ""), |query| ("?", query.as_str()));
    let version = if parts.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" };
    [parts.method.as_str(), " ", &secrets::path(parts.uri.path()), sign, query, " ", version].concat()
}

fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => [status.as_str(), " ", reason].concat(),
        None => status.as_str().to_owned(),
    }
}

/// A body that is larger than the configuration takes.
pub(super) fn too_large(code: &'static str, what: &str, key: &str) -> Fault {
    let blame = if code == "request-too-large" { Blame::Client } else { Blame::Upstream };
    let told = format!("{what} is larger than this host's Interceptor takes (`{key}`)");
    Fault { code, blame, told, next: "send or ask for less; or the operator raises the limit" }
}

#[cfg(test)]
mod tests;
