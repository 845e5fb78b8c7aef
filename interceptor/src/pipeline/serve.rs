//! Serving a connection, or telling one that it may not be: hyper's side of it, in the version of HTTP that was agreed
//! on, and what ends it.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use super::connection::{Ending, Session};
use super::live::Live;
use super::registry::Order;
use super::reply::{Refusal, ReplyBody, problem};
use super::request::header_too_large;
use super::ruling::Ruling;
use crate::error::{Blame, Fault};
use crate::ids::{OperationId, SessionId};
use crate::transport::http::{Guarded, Local, Version, http1_server, http2_server};
use crate::transport::sever::{Client, Severed};

mod http1;

use http1::Http1;

/// How long a connection that is cut gets to say so: in HTTP/2 resets of its streams, then GOAWAY; in HTTP/1.1, between two
/// requests, that nothing follows; a WebSocket a Close frame.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);

/// Serves the operations of a connection until it ends or is ended.
pub(super) type Serving = Pin<Box<dyn Future<Output = Ending>>>;

/// Begins to serve a connection.
pub(super) fn serve(live: Rc<Live>, stream: Client) -> Serving {
    match live.allowance().cloned() {
        None => Box::pin(drive(Rc::clone(&live), Box::pin(Http1::new(live, stream)))),
        Some(allowance) => {
            let stream = Severed::new(stream, Arc::clone(live.line()));
            let guarded = TokioIo::new(Guarded::client(stream, allowance));
            let builder = http2_server(&live.session().limits());
            let connection = builder.serve_connection(guarded, Answers::Served(Rc::clone(&live)));
            Box::pin(drive(live, Box::pin(Http2(connection))))
        }
    }
}

/// What answers the requests of a connection.
enum Answers {
    Served(Rc<Live>),
    Refused(Rc<Refusing>),
}

/// A connection that is told that it may not be.
struct Refusing {
    session: SessionId,
    refusal: Refusal,
    operation: Option<OperationId>,
    version: Version,
    answered: Notify,
}

impl Service<Request<Incoming>> for Answers {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    // On the heap: hyper keeps room for this for as long as the connection lives.
    type Future = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match self {
            Answers::Served(live) => {
                let live = Rc::clone(live);
                let unanswered = live.asked();
                Box::pin(async move {
                    let response = super::operation(live, request).await;
                    drop(unanswered);
                    Ok(response)
                })
            }
            Answers::Refused(it) => {
                let response = problem(&it.refusal, it.session, it.operation, it.version == Version::Http1);
                it.answered.notify_one();
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}

/// How a connection ended in which nothing went wrong.
enum Ended {
    Over,
    /// Nothing was asked for too long.
    Idle,
}

/// A connection of hyper's that can be asked to end once what is under way is done.
trait Graceful: Future<Output = hyper::Result<Ended>> {
    fn shut_down(self: Pin<&mut Self>);
}

/// hyper's side of a client's connection in HTTP/2.
struct Http2(http2::Connection<TokioIo<Guarded<Severed>>, Answers, Local>);

impl Future for Http2 {
    type Output = hyper::Result<Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(|()| Ended::Over)
    }
}

impl Graceful for Http2 {
    fn shut_down(mut self: Pin<&mut Self>) {
        Pin::new(&mut self.0).graceful_shutdown();
    }
}

/// Drives hyper's side of the connection, and ends it when the world, an order or the time says so.
async fn drive(live: Rc<Live>, mut connection: Pin<Box<dyn Graceful>>) -> Ending {
    let session = Rc::clone(live.session());
    let mut order = session.order.clone();
    let mut worlds = session.worlds.clone();
    let mut grants = session.worker.pipeline.desk.watch();
    let mut let_through = live.is_let_through();
    if let_through {
        // What admitted it may have ended since.
        grants.mark_changed();
    }
    let mut time_is_up = pin!(live.time_is_up());
    let mut idle = pin!(live.idle(session.limits().idle_timeout));
    // hyper has no such bound for HTTP/2; in HTTP/1.1 it waits for the next head no longer.
    let is_http2 = live.version() == Version::Http2;
    let mut joined = false;
    let cut = loop {
        let ended = tokio::select! {
            ended = connection.as_mut(), if !joined => {
                joined = live.is_joined();
                if !joined {
                    live.line().sever(live.ended().is_some());
                    return ending(&live, &ended);
                }
                // hyper has handed it over: it lives on for as long as its WebSocket does, which says how it ends.
                None
            }
            () = live.done(), if joined => return Ending(live.ended().unwrap_or("done")),
            _ = order.changed() => match *order.borrow_and_update() {
                Order::Live => None,
                Order::Drain if joined => None,
                Order::Drain => {
                    connection.as_mut().shut_down();
                    None
                }
                Order::Cut(why) => Some(why),
            },
            _ = worlds.changed() => live.may_go_on().err().map(|refusal| {
                *session.cut_by.borrow_mut() = refusal.basis.policies;
                "policy-changed"
            }),
            // Operations under way are cut by themselves where they may not go on; no others begin.
            Ok(()) = grants.changed(), if let_through => {
                if live.may_go_on().is_err() {
                    let_through = false;
                    if !joined {
                        connection.as_mut().shut_down();
                    }
                }
                None
            }
            () = time_is_up.as_mut() => Some("max-session"),
            () = idle.as_mut(), if is_http2 => Some("idle"),
        };
        if let Some(why) = ended {
            break why;
        }
    };
    // Between two requests nothing is lost by a clean end; in mid-stream the client must not take it for the whole. An
    // operation may have been quicker, and have ended itself and so the connection.
    let mut severed = live.is_busy() || live.ended().is_some();
    live.end(cut);
    if joined {
        // Both ends of it are told; that has to be recorded, too.
        let _late = tokio::time::timeout(LAST_WORDS * 2, live.done()).await;
        return Ending(cut);
    }
    // In HTTP/2 each stream is reset by itself; the connection is only where the client doesn't take that in.
    if is_http2 || !severed {
        connection.as_mut().shut_down();
        let ended = tokio::time::timeout(LAST_WORDS, connection).await;
        severed = ended.is_err() && live.is_busy();
        // It may have been about to end for what the client did; a client that is gone by now did it all the same.
        let error = ended.as_ref().ok().and_then(|ended| ended.as_ref().err());
        if let Some((fault, status)) = fault(&live, error) {
            return refused(&live, fault, status);
        }
        if let Ok(Ok(Ended::Idle)) = ended {
            return Ending("idle");
        }
    }
    live.line().sever(severed);
    Ending(cut)
}

/// Answers whatever is asked with the refusal, and ends.
pub(super) async fn refuse(
    session: &Session,
    stream: Client,
    version: Version,
    refusal: Refusal,
    operation: Option<OperationId>,
) {
    let limits = session.limits();
    let stream = Severed::new(stream, Arc::default());
    let refusing = Rc::new(Refusing { session: session.id, refusal, operation, version, answered: Notify::new() });
    let service = Answers::Refused(Rc::clone(&refusing));
    let done = match version {
        Version::Http1 => http1_server(&limits).serve_connection(TokioIo::new(stream), service).await,
        Version::Http2 => {
            let guarded = TokioIo::new(Guarded::client(stream, Rc::default()));
            let mut connection = pin!(http2_server(&limits).serve_connection(guarded, service));
            tokio::select! {
                done = connection.as_mut() => done,
                () = refusing.answered.notified() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a refusal was not taken");
    }
}

/// How a connection that hyper has ended is recorded; what isn't HTTP is recorded as refused.
fn ending(live: &Live, ended: &hyper::Result<Ended>) -> Ending {
    if let Some(why) = live.ended() {
        return Ending(why);
    }
    match (fault(live, ended.as_ref().err()), ended) {
        (Some((fault, status)), _) => refused(live, fault, status),
        (None, Ok(Ended::Over)) => Ending("done"),
        (None, Ok(Ended::Idle)) => Ending("idle"),
        (None, Err(error)) if error.is_timeout() => Ending("idle"),
        (None, Err(_)) => Ending("client-gone"),
    }
}

/// What the client did that ended the connection, if it did something, and the status that it was answered with.
fn fault(live: &Live, error: Option<&hyper::Error>) -> Option<(Fault, Option<u16>)> {
    if live.allowance().is_some_and(|allowance| allowance.is_exceeded()) {
        return Some((flood(), None));
    }
    let error = error.filter(|error| !error.is_timeout())?;
    let malformed = || malformed(live.version());
    if error.is_parse_too_large() {
        // Answered by hyper, without a body.
        return Some((header_too_large(), Some(431)));
    }
    if error.is_parse() {
        return Some((malformed(), Some(400)));
    }
    match broken_off(error)? {
        // Answered by h2, with GOAWAY.
        h2::Reason::ENHANCE_YOUR_CALM => Some((flood(), None)),
        _ => Some((malformed(), None)),
    }
}

/// Why h2 ended the connection, if it did so by itself.
fn broken_off(error: &hyper::Error) -> Option<h2::Reason> {
    let error = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    error.reason().filter(|_| error.is_library())
}

fn refused(live: &Live, fault: Fault, status: Option<u16>) -> Ending {
    let ending = Ending(fault.code);
    let (action, summary) = match live.version() {
        Version::Http1 if fault.code == "header-too-large" => ("http", "a header section that is too large"),
        Version::Http1 => ("http", "something that is no HTTP/1.1 request"),
        Version::Http2 if fault.code == "http2-flood" => ("http", "a flood of HTTP/2 frames"),
        Version::Http2 => ("http", "something that is no HTTP/2"),
    };
    let ruling = Ruling::refused(action.into(), summary.to_owned(), live.target(), fault);
    // If it can't be recorded that was logged, and nothing went on anyway.
    if let Ok((operation, _recorded)) = live.session().record(&ruling) {
        live.session().finish(operation, "denied", status);
    }
    ending
}

fn malformed(version: Version) -> Fault {
    let told = match version {
        Version::Http1 => "the request is not valid HTTP/1.1",
        Version::Http2 => "the connection's bytes are not valid HTTP/2",
    };
    Fault { code: "malformed-http", blame: Blame::Client, told: told.into(), next: "send valid HTTP" }
}

fn flood() -> Fault {
    Fault {
        code: "http2-flood",
        blame: Blame::Client,
        told: "the connection was busied with frames or resets that ask for nothing".into(),
        next: "open a new connection, and send requests",
    }
}
