//! Where a launched workload's server can be called from outside of its network namespace.

use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `ADDRESS:PORT:PORT`: an address and a port of the host's loopback, and the port that the server listens at inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Publish {
    /// Where the host's callers connect to.
    pub outside: SocketAddr,
    /// The port of the workload's own loopback.
    pub inside: u16,
}

/// Why it can't be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPublish(&'static str);

impl FromStr for Publish {
    type Err = BadPublish;

    fn from_str(text: &str) -> Result<Self, BadPublish> {
        const FORM: BadPublish = BadPublish("it isn't an address, a port and a port");
        let (outside, inside) = text.rsplit_once(':').ok_or(FORM)?;
        let outside: SocketAddr = outside.parse().map_err(|_| FORM)?;
        let inside: u16 = inside.parse().map_err(|_| FORM)?;
        if !outside.ip().is_loopback() {
            return Err(BadPublish("callers from elsewhere can't be known: it has to be a loopback address"));
        }
        if outside.port() == 0 || inside == 0 {
            return Err(BadPublish("port 0 is none"));
        }
        Ok(Self { outside, inside })
    }
}
