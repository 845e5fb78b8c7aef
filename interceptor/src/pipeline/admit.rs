//! Admission: may the connection be? Decided and recorded before the daemon resolves or dials. A refusal is told in the
//! client's protocol: TLS is still completed to deliver it.

use std::rc::Rc;

use tokio::net::TcpStream;

use super::connection::{Detected, Ending, Session, Spoken, refused_handshake};
use super::gate::unrecorded;
use super::live::Live;
use super::reply::Refusal;
use super::ruling::Ruling;
use super::serve::{self, Serving};
use crate::config::Host;
use crate::enforce;
use crate::error::{Blame, Fault};
use crate::ids::OperationId;
use crate::transport::dial::Upstream;
use crate::transport::hello::{Hello, reset};
use crate::transport::http::{Hop, Version};
use crate::transport::sever::Client;

/// A connection that may be, with its upstream at hand.
pub(super) struct Admitted {
    session: Rc<Session>,
    host: Host,
    spoken: Permitted,
    upstream: Upstream,
    max_session: Option<u64>,
    /// Whether only a grant or the broken glass admits it.
    let_through: bool,
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
        let let_through = permit.basis().is_let_through();
        let (host, spoken) = match (session.host.clone(), spoken) {
            (Some(host), Spoken::Tls(hello)) => (host, Permitted::Tls(hello)),
            (Some(host), Spoken::Http(stream)) => (host, Permitted::Http(stream)),
            (_, spoken) => {
                let refusal = Refusal::from(unknown_protocol());
                return Err(Refused { session, spoken, refusal, operation: Some(operation) });
            }
        };
        let alpn = match &spoken {
            Permitted::Tls(hello) => Some(offered(hello)),
            Permitted::Http(_) => None,
        };
        let world = session.world();
        let to = (&host, session.port);
        match enforce::connect(permit, recorded, &world.dialer, to, alpn.as_deref(), &session.limits()).await {
            Ok(upstream) => {
                session.finish(operation, "done", None);
                Ok(Admitted { session, host, spoken, upstream, max_session, let_through })
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
    let ruling = session.rule_connect(host, !matches!(spoken, Spoken::Http(_) | Spoken::Http2(_)));
    if ruling.verdict.is_err() {
        return ruling;
    }
    match spoken {
        Spoken::Unknown(_) => refused(&host.to_string(), ruling.target, unknown_protocol()),
        Spoken::Http2(_) => refused(&host.to_string(), ruling.target, h2c()),
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
                Spoken::Http(stream) => {
                    serve::refuse(&session, Client::Plain(stream), Version::Http1, refusal, operation).await;
                }
                Spoken::Http2(stream) => {
                    serve::refuse(&session, Client::Plain(stream), Version::Http2, refusal, operation).await;
                }
                Spoken::Tls(hello) => {
                    // An address that stands for no name has nothing that a client could verify.
                    let host = hello.server_name().cloned().map(Host::Name).or_else(|| session.host.clone());
                    match host {
                        None => hello.deny().await,
                        Some(host) => {
                            // HTTP/2 where it is offered: a client that speaks nothing else has to be able to read it.
                            let version = if offers(&hello, Version::Http2) { Version::Http2 } else { Version::Http1 };
                            match complete(&session, hello, &host, version).await {
                                Ok(stream) => serve::refuse(&session, stream, version, refusal, operation).await,
                                Err(Ending(why)) => tracing::debug!(why, "a refusal could not be told"),
                            }
                        }
                    }
                }
            }
        };
        // A client that takes its time to be refused isn't waited for.
        let _in_time = tokio::time::timeout(limits.detect_timeout * 2, answered).await;
        ending
    }
}

/// Completes TLS with a leaf for `host` and the version that was chosen; ALPN says so if the client offers
/// it.
///
/// # Errors
/// The ending, when there is no certificate or the client doesn't take it.
async fn complete(session: &Session, hello: Box<Hello>, host: &Host, chosen: Version) -> Result<Client, Ending> {
    let alpn = offers(&hello, chosen).then(|| chosen.alpn());
    let config = match session.worker.pipeline.authority.server_config(host, alpn).await {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "no certificate could be issued");
            hello.deny().await;
            return Err(Ending("no-certificate"));
        }
    };
    match hello.accept(config, session.limits().detect_timeout).await {
        Ok(stream) => Ok(Client::Tls(Box::new(stream))),
        Err(error) => Err(refused_handshake(session, &error)),
    }
}

fn offers(hello: &Hello, version: Version) -> bool {
    hello.alpn().iter().any(|name| name == version.alpn())
}

/// What the upstream is offered: what the client offers of it that is mediated, in the client's order. A client without
/// ALPN speaks HTTP/1.1.
fn offered(hello: &Hello) -> Vec<Vec<u8>> {
    let mediated = |name: &&Vec<u8>| [Version::Http1, Version::Http2].iter().any(|version| **name == version.alpn());
    let offered: Vec<_> = hello.alpn().iter().filter(mediated).cloned().collect();
    if offered.is_empty() { vec![Version::Http1.alpn().to_vec()] } else { offered }
}

impl Admitted {
    /// Serves the connection's operations until it ends or is ended. What only the beginning needs is gone by then.
    pub(super) fn serve(self) -> impl Future<Output = Ending> {
        let begun = Box::pin(self.begin());
        async move {
            match begun.await {
                Ok(served) => served.await,
                Err(ending) => ending,
            }
        }
    }

    async fn begin(self) -> Result<Serving, Ending> {
        let Admitted { session, host, spoken, upstream, max_session, let_through } = self;
        let tls = matches!(spoken, Permitted::Tls(_));
        let hop = Hop::over(upstream, &session.limits()).await.map_err(|_broken| Ending("upstream-closed"))?;
        let version = hop.version();
        let live = Live::new(Rc::clone(&session), host.clone(), tls, hop);
        live.allow_for(max_session);
        live.let_through(let_through);
        match spoken {
            Permitted::Http(stream) => Ok(serve::serve(live, Client::Plain(stream))),
            Permitted::Tls(hello) => Ok(serve::serve(live, complete(&session, hello, &host, version).await?)),
        }
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

fn h2c() -> Fault {
    Fault {
        code: "h2c-refused",
        blame: Blame::Policy,
        told: "HTTP/2 in clear is not served".into(),
        next: "use HTTP/1.1, or HTTP/2 in TLS",
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
