//! Looking names up as the host does: `getaddrinfo`, with all that /etc/nsswitch.conf says, on a bounded number of
//! threads, one flight for each name.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType};
use tokio::sync::Semaphore;

use crate::config::Hostname;
use crate::fresh::Fresh;

/// Looks names up; a seam, so that the resolver can be tested without a network.
pub trait Lookup: Send + Sync {
    /// Where a name leads; never an empty answer.
    fn lookup<'a>(&'a self, name: &'a Hostname) -> Looking<'a>;
}

/// A look-up under way.
pub type Looking<'a> = Pin<Box<dyn Future<Output = Result<Found, LookupError>> + Send + 'a>>;

/// Where a name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its addresses, best first.
    pub addresses: Vec<IpAddr>,
    /// Whether the configuration says so (`[upstream.resolve]`), rather than the host's resolver.
    pub fixed: bool,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The name doesn't exist.
    #[error("no such name")]
    NoSuchName,
    /// The name exists and has no address.
    #[error("the name has no address")]
    NoAddress,
    /// The host's resolver failed.
    #[error("the host's resolver failed: {0}")]
    Failed(String),
    /// All look-up threads are waiting for answers.
    #[error("too many look-ups wait for an answer")]
    Busy,
}

/// Look-ups at once; each takes a thread until the host's resolver gives up.
const THREADS: usize = 16;
/// How long a look-up waits for a free thread.
const QUEUE: Duration = Duration::from_secs(3);
/// How long an answer serves: the dial that follows a workload's question doesn't ask again, and a change is seen soon.
const FRESH: Duration = Duration::from_secs(5);
const NAMES: usize = 1024;

/// The host's resolver.
#[derive(Clone)]
pub(super) struct HostResolver {
    threads: Arc<Semaphore>,
    answers: Arc<Fresh<Hostname, Arc<[IpAddr]>, LookupError>>,
}

impl HostResolver {
    pub(super) fn new() -> Self {
        let answers = Arc::new(Fresh::new(NAMES, FRESH));
        HostResolver { threads: Arc::new(Semaphore::new(THREADS)), answers }
    }

    pub(super) async fn lookup(&self, name: &Hostname) -> Result<Vec<IpAddr>, LookupError> {
        let asked = self.answers.get_or_ask(name, self.ask(name.clone())).await;
        asked.map(|addresses| addresses.to_vec()).map_err(|error| (*error).clone())
    }

    async fn ask(&self, name: Hostname) -> Result<Arc<[IpAddr]>, LookupError> {
        let permit = tokio::time::timeout(QUEUE, self.threads.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(LookupError::Busy) };
        let asking = tokio::task::spawn_blocking(move || {
            let answer = getaddrinfo(&name);
            // Not before: a caller that gave up leaves the thread waiting.
            drop(permit);
            answer
        });
        asking.await.map_err(|error| LookupError::Failed(error.to_string()))?.map(Arc::from)
    }
}

/// getaddrinfo(3), whose order is that of RFC 6724. Not by std, which doesn't say whether a name doesn't exist or
/// couldn't be looked up.
fn getaddrinfo(name: &Hostname) -> Result<Vec<IpAddr>, LookupError> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    // Without a final dot, with which /etc/hosts wouldn't be found to have the name.
    let answer =
        dns_lookup::getaddrinfo(Some(name.as_str()), None, Some(hints)).map_err(|error| match error.kind() {
            LookupErrorKind::NoName => LookupError::NoSuchName,
            LookupErrorKind::NoData => LookupError::NoAddress,
            _ => LookupError::Failed(std::io::Error::from(error).to_string()),
        })?;
    let mut addresses = Vec::new();
    for entry in answer.flatten() {
        let address = entry.sockaddr.ip();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(LookupError::NoAddress) } else { Ok(addresses) }
}
