//! The resolver that a workload asks: it answers for names of targets only, with synthetic addresses ([`Names`]), after
//! policy allowed the look-up and the verdict is recorded ([`Gate`]), and only for names that exist ([`Lookup`]).
//! `message` holds the bytes and the rules of DNS, `udp` and `tcp` the sockets. Which address pair a name gets is
//! `names`'s; what is allowed, the pipeline's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::Hostname;
use crate::error::{Blame, Fault};
use crate::transport::dial::{Found, Lookup, LookupError};
use crate::transport::names::{Names, NamesError, Pool};
use crate::transport::taken::Taken;
use crate::who::Workload;

mod message;
mod reach;
mod tcp;
mod udp;

use message::{Answer, Query, Why};

/// Questions of one workload that are answered at once; the others wait in the sockets' buffers.
const IN_FLIGHT: usize = 64;
/// How long an upstream look-up may take: less than the 5 s after which resolvers ask again.
const LOOKUP: Duration = Duration::from_secs(4);

/// Decides and records a look-up; a seam to the pipeline.
pub trait Gate: Send + Sync {
    /// Whether `workload` may look `name` up. `qtype` is the type that was asked for: `A`, `HTTPS`.
    ///
    /// When it returns, the verdict is recorded; the name is looked up only after that. An error with
    /// [`Blame::Interceptor`] is answered SERVFAIL, every other one NXDOMAIN, both with what the client may be told.
    fn admit(&self, workload: &Arc<Workload>, name: &Hostname, qtype: &str) -> Result<(), Fault>;
}

/// The resolver of one launched workload.
pub struct Resolver {
    workload: Arc<Workload>,
    names: Arc<Names>,
    gate: Arc<dyn Gate>,
    lookup: Arc<dyn Lookup>,
    taken: Arc<Taken>,
    in_flight: Arc<Semaphore>,
}

/// How a question came; it decides how long the answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Udp,
    Tcp,
}

impl Resolver {
    /// The resolver of this workload, with its names. It counts what it is asked over UDP in `taken`.
    pub fn new(
        workload: Arc<Workload>,
        names: Arc<Names>,
        gate: Arc<dyn Gate>,
        lookup: Arc<dyn Lookup>,
        taken: Arc<Taken>,
    ) -> Arc<Resolver> {
        Arc::new(Resolver { workload, names, gate, lookup, taken, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) })
    }

    /// Answers what comes to these sockets, until one of them fails for good. Dropping the future ends it and all
    /// answers under way.
    ///
    /// The sockets are bound inside the workload's namespace, one per family, with IP_PKTINFO or IPV6_RECVPKTINFO set:
    /// answers go out from the address that was asked.
    pub async fn serve_udp(self: Arc<Self>, sockets: Vec<std::net::UdpSocket>) -> std::io::Result<()> {
        udp::serve(self, sockets).await
    }

    /// Answers the questions that come on a connection, one after the other, until it ends, stands idle, or breaks the
    /// rules.
    pub async fn serve_tcp<S>(self: Arc<Self>, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        tcp::serve(&self, stream).await;
    }

    /// The reply to a message; none if it deserves none.
    async fn reply(&self, bytes: &[u8], via: Via) -> Option<Vec<u8>> {
        if via == Via::Udp {
            self.taken.ask();
        }
        match message::read(bytes) {
            message::Read::Nothing => None,
            message::Read::Refusal(reply) => Some(reply),
            message::Read::Query(query) => {
                let answer = self.answer(&query).await;
                Some(query.reply(answer, via))
            }
        }
    }

    async fn answer(&self, query: &Query) -> Answer {
        let Some(name) = query.hostname() else {
            return Answer::NoSuchName(Some(Why::Blocked("not a host name, so not the name of a target".to_owned())));
        };
        if name.as_str() == "localhost" {
            return query.addresses(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        }
        if let Err(fault) = self.gate.admit(&self.workload, &name, &query.qtype()) {
            let told = format!("{}: {}; {}", fault.code, fault.told, fault.next);
            return match fault.blame {
                Blame::Interceptor => Answer::Failure(Why::Fault(told)),
                _ => Answer::NoSuchName(Some(Why::Blocked(told))),
            };
        }
        if !query.asks_for_address() {
            return Answer::Empty;
        }
        match self.pair(&name).await {
            Ok((v4, v6)) => query.addresses(v4, v6),
            Err(answer) => answer,
        }
    }

    /// The synthetic pair of a name that exists.
    async fn pair(&self, name: &Hostname) -> Result<(Ipv4Addr, Ipv6Addr), Answer> {
        if let Some(pair) = self.names.pair_of(name) {
            return Ok(pair);
        }
        let found = match tokio::time::timeout(LOOKUP, self.lookup.lookup(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(LookupError::NoSuchName)) => return Err(Answer::NoSuchName(None)),
            Ok(Err(LookupError::NoAddress)) => return Err(Answer::Empty),
            Ok(Err(error @ (LookupError::Failed(_) | LookupError::Busy))) => {
                return Err(Answer::Failure(Why::Upstream(format!("upstream-lookup-failed: {error}"))));
            }
            Err(_) => {
                let told = "upstream-lookup-failed: the host's resolver didn't answer in time".to_owned();
                return Err(Answer::Failure(Why::Upstream(told)));
            }
        };
        self.names.assign(name, pool(&found)).map_err(|error| {
            let told = match &error {
                NamesError::Full(_) => format!("too-many-names: {error}"),
                // The text holds a path of the host.
                NamesError::Io { .. } | NamesError::Malformed { .. } => {
                    "names-unavailable: the name's address couldn't be stored".to_owned()
                }
            };
            tracing::warn!(%error, launch = %self.workload.id, "a name got no address");
            Answer::Failure(Why::Fault(told))
        })
    }
}

/// Public-looking for what is reached over the internet, and for what the operator mapped by hand: there a private
/// address is the operator's intention, not the name's. One private address makes a name private, as guards see it.
fn pool(found: &Found) -> Pool {
    let public = |address: &IpAddr| reach::is_global(*address);
    if found.fixed || found.addresses.iter().all(public) { Pool::Public } else { Pool::Private }
}

#[cfg(test)]
mod tests;
