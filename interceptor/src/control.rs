//! The control socket: who may ask the daemon for what. The peer's cgroup is judged before its uid: from inside a
//! workload everything is refused and recorded. What the answers are is the daemon's business (`server::Host`).

pub mod client;
pub mod metrics;
pub mod peer;
pub mod protocol;
pub mod server;
pub mod wire;

mod socket;

pub use socket::{SocketError, bind};
