//! Admission: may the connection be? Decided and recorded before the daemon resolves or dials. A refusal is told in the
//! client's protocol: TLS is still completed to deliver it.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::connection::{Detected, Ending, Session, Spoken, refused_handshake};
use super::gate::unrecorded;
use super::live::Live;
use super::registry::Order;
use super::reply::{Refusal, problem};
use super::ruling::Ruling;
use crate::config::Host;
use crate::enforce;
use crate::error::{Blame, Fault};
use crate::ids::OperationId;
use crate::transport::dial::Upstream;
use crate::transport::hello::{Hello, reset};
use crate::transport::http::{Hop, server};
use crate::transport::sever::{Severable, Severed};

/// The protocols that are spoken inside TLS, as ALPN names them.
pub(super) const HTTP_1_1: &[u8] = b"http/1.1";

/// A connection that may be, with its upstream at hand.
pub(super) struct Admitted {
    session: Rc<Session>,
    host: Host,
    spoken: Permitted,
    upstream: Upstream,
    max_session: Option<u64>,
}

/// What an admitted client speaks.
enum Permitted {
    Tls(Box<Hello>),
    Http(TcpStream),
}

/// A connection that may not be.
pub(super) struct Refused {
    session: Rc<Session>,
    spoken: Spoken,
    refusal: Refusal,
    operation: Option<OperationId>,
}

impl Detected {
    /// Decides the connection, records that, and dials.
    ///
    /// # Errors
    /// The refusal, to be told.
    pub(super) async fn admit(self) -> Result<Admitted, Refused> {
        let Detected { session, spoken } = self;
        if !session.is_recorded {
            return Err(Refused { session, spoken, refusal: unrecorded().into(), operation: None });
        }
        let ruling = rule(&session, &spoken);
        let (operation, recorded) = match session.record(&ruling) {
            Ok(recorded) => recorded,
            Err(refusal) => return Err(Refused { session, spoken, refusal, operation: None }),
        };
        let permit = match ruling.verdict {
            Ok(permit) => permit,
            Err(refusal) => {
                session.finish(operation, "denied", None);
                return Err(Refused { session, spoken, refusal, operation: Some(operation) });
            }
        };
        let max_session = permit.basis().obligations.max_session;
        let (host, spoken) = match (session.host.clone(), spoken) {
            (Some(host), Spoken::Tls(hello)) => (host, Permitted::Tls(hello)),
            (Some(host), Spoken::Http(stream)) => (host, Permitted::Http(stream)),
            (_, spoken) => {
                let refusal = Refusal::from(unknown_protocol());
                return Err(Refused { session, spoken, refusal, operation: Some(operation) });
            }
        };
        let alpn = matches!(spoken, Permitted::Tls(_)).then(|| vec![HTTP_1_1.to_vec()]);
        let world = session.world();
        let to = (&host, session.port);
        match enforce::connect(permit, recorded, &world.dialer, to, alpn.as_deref(), &session.limits()).await {
            Ok(upstream) => {
                session.finish(operation, "done", None);
                Ok(Admitted { session, host, spoken, upstream, max_session })
            }
            Err(fault) => {
                session.finish(operation, fault.code, None);
                let spoken = match spoken {
                    Permitted::Tls(hello) => Spoken::Tls(hello),
                    Permitted::Http(stream) => Spoken::Http(stream),
                };
                Err(Refused { session, spoken, refusal: fault.into(), operation: Some(operation) })
            }
        }
    }
}

/// Rules on a connection: what stands in the way before policy is asked comes first.
fn rule(session: &Session, spoken: &Spoken) -> Ruling {
    let port = session.port;
    let refused = |host: &str, target, fault| {
        Ruling::refused("connect".into(), format!("connect to {host} port {port}"), target, fault)
    };
    let Some(host) = &session.host else {
        return refused("an unallocated address", None, unallocated());
    };
    // What speaks neither is refused as that, not as cleartext.
    let ruling = session.rule_connect(host, !matches!(spoken, Spoken::Http(_)));
    if ruling.verdict.is_err() {
        return ruling;
    }
    match spoken {
        Spoken::Unknown(_) => refused(&host.to_string(), ruling.target, unknown_protocol()),
        Spoken::Tls(hello) => match hello.server_name() {
            Some(sni) if *host != Host::Name(sni.clone()) => {
                refused(&host.to_string(), ruling.target, sni_mismatch(host, sni.as_str()))
            }
            _ => ruling,
        },
        Spoken::Http(_) => ruling,
    }
}

impl Refused {
    /// Tells the client, as its protocol can: inside TLS that is completed for it, in clear, or by a reset.
    pub(super) async fn tell(self) -> Ending {
        let Refused { session, spoken, refusal, operation } = self;
        let ending = Ending(refusal.fault.code);
        let limits = session.limits();
        let answered = async {
            match spoken {
                Spoken::Unknown(stream) => reset(stream),
                Spoken::Http(stream) => answer(&session, stream, &refusal, operation).await,
                Spoken::Tls(hello) => {
                    // An address that stands for no name has nothing that a client could verify.
                    let host = hello.server_name().cloned().map(Host::Name).or_else(|| session.host.clone());
                    match host {
                        None => hello.deny().await,
                        Some(host) => match complete(&session, hello, &host).await {
                            Ok(stream) => answer(&session, stream, &refusal, operation).await,
                            Err(Ending(why)) => tracing::debug!(why, "a refusal could not be told"),
                        },
                    }
                }
            }
        };
        // A client that takes its time to be refused isn't waited for.
        let _in_time = tokio::time::timeout(limits.detect_timeout * 2, answered).await;
        ending
    }
}

/// Answers whatever is asked with the refusal.
async fn answer<S>(session: &Rc<Session>, stream: S, refusal: &Refusal, operation: Option<OperationId>)
where
    S: AsyncRead + AsyncWrite + Unpin + Severable,
{
    let stream = Severed::new(stream, Rc::default());
    let service = service_fn(|_request: Request<Incoming>| {
        let response = problem(refusal, session.id, operation, true);
        async move { Ok::<_, Infallible>(response) }
    });
    if let Err(error) = server(&session.limits()).serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a refusal was not taken");
    }
}

/// Completes TLS with a leaf for `host`.
///
/// # Errors
/// The ending, when there is no certificate or the client doesn't take it.
async fn complete(session: &Session, hello: Box<Hello>, host: &Host) -> Result<TlsStream<TcpStream>, Ending> {
    let alpn = hello.alpn().iter().any(|name| name == HTTP_1_1).then_some(HTTP_1_1);
    let config = match session.worker.pipeline.authority.server_config(host, alpn).await {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "no certificate could be issued");
            hello.deny().await;
            return Err(Ending("no-certificate"));
        }
    };
    hello.accept(config, session.limits().detect_timeout).await.map_err(|error| refused_handshake(session, &error))
}

impl Admitted {
    /// Serves the connection's operations until it ends or is ended.
    pub(super) async fn serve(self) -> Ending {
        let Admitted { session, host, spoken, upstream, max_session } = self;
        let limits = session.limits();
        let tls = matches!(spoken, Permitted::Tls(_));
        let hop = match Hop::over(upstream, &limits).await {
            Ok(hop) => hop,
            Err(_broken) => return Ending("upstream-closed"),
        };
        let live = Live::new(Rc::clone(&session), host.clone(), tls, hop);
        live.allow_for(max_session);
        match spoken {
            Permitted::Http(stream) => drive(live, stream).await,
            Permitted::Tls(hello) => match complete(&session, hello, &host).await {
                Ok(stream) => drive(live, stream).await,
                Err(ending) => ending,
            },
        }
    }
}

/// Drives hyper's side of the connection, and ends it when the world, an order or the time says so.
async fn drive<S>(live: Rc<Live>, stream: S) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin + Severable,
{
    let session = Rc::clone(live.session());
    let severed = Rc::new(Cell::new(false));
    let stream = Severed::new(stream, Rc::clone(&severed));
    let service = service_fn(|request| {
        let live = Rc::clone(&live);
        async move { Ok::<_, Infallible>(super::operation(live, request).await) }
    });
    let mut connection = pin!(server(&session.limits()).serve_connection(TokioIo::new(stream), service));
    let mut order = session.order.clone();
    let mut worlds = session.worlds.clone();
    let mut time_is_up = pin!(live.time_is_up());
    let cut = loop {
        let ended = tokio::select! {
            ended = connection.as_mut() => {
                severed.set(live.ended().is_some());
                if let Some(error) = ended.as_ref().err().filter(|error| error.is_parse()) {
                    record_malformed(&live, error);
                }
                return ending(&live, ended.err().as_ref());
            }
            _ = order.changed() => match *order.borrow_and_update() {
                Order::Live => None,
                Order::Drain => {
                    connection.as_mut().graceful_shutdown();
                    None
                }
                Order::Cut(why) => Some(why),
            },
            _ = worlds.changed() => live.may_go_on().is_err().then_some("policy-changed"),
            () = time_is_up.as_mut() => Some("max-session"),
        };
        if let Some(why) = ended {
            break why;
        }
    };
    live.end(cut);
    // Between two requests nothing is lost by a clean end; in mid-stream the client must not take it for the whole.
    severed.set(live.is_busy());
    Ending(cut)
}

/// What isn't a request was answered by hyper (400 or 431, without a body); the record says that it was refused.
fn record_malformed(live: &Live, error: &hyper::Error) {
    let status = if error.is_parse_too_large() { 431 } else { 400 };
    let summary = "something that is no HTTP/1.1 request".to_owned();
    let ruling = Ruling::refused("http".into(), summary, live.target(), malformed());
    // If it can't be recorded that was logged, and nothing went on anyway.
    if let Ok((operation, _recorded)) = live.session().record(&ruling) {
        live.session().finish(operation, "denied", Some(status));
    }
}

fn ending(live: &Live, error: Option<&hyper::Error>) -> Ending {
    match error {
        _ if live.ended().is_some() => Ending(live.ended().unwrap_or("done")),
        None => Ending("done"),
        Some(error) if error.is_timeout() => Ending("idle"),
        Some(error) if error.is_parse() => Ending("malformed-http"),
        Some(_) => Ending("client-gone"),
    }
}

fn unallocated() -> Fault {
    Fault {
        code: "unallocated-address",
        blame: Blame::Policy,
        told: "this address stands for no name that was looked up".into(),
        next: "look the name up first; retrying will not help",
    }
}

fn unknown_protocol() -> Fault {
    Fault {
        code: "unknown-protocol",
        blame: Blame::Client,
        told: "neither TLS nor HTTP was spoken in time".into(),
        next: "speak TLS or HTTP to this target",
    }
}

fn malformed() -> Fault {
    Fault {
        code: "malformed-http",
        blame: Blame::Client,
        told: "the request is not valid HTTP/1.1, or its header section is too large".into(),
        next: "send valid HTTP/1.1",
    }
}

fn sni_mismatch(host: &Host, sni: &str) -> Fault {
    Fault {
        code: "sni-mismatch",
        blame: Blame::Client,
        told: format!("the address was looked up as `{host}`, but TLS asks for `{sni}`"),
        next: "connect to the host that is meant",
    }
}
