//! Why a workload, launched or adopted, isn't served.

use crate::launch::LaunchError;
use crate::transport::namespace;

/// Why a workload can't be served; its launch is undone then.
#[derive(Debug, thiserror::Error)]
pub enum EngageError {
    /// The launcher's part failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It would have holes that its configuration doesn't accept.
    #[error("it wouldn't be contained: {0}")]
    NotContained(String),
    /// Its sockets can't be opened.
    #[error("its sockets can't be opened: {0}")]
    Sockets(#[from] namespace::NamespaceError),
    /// It can't be steered.
    #[error("it can't be steered: {0}")]
    Kernel(#[from] crate::bpf::BpfError),
    /// One of those to be adopted can't be.
    #[error("`{workload}` can't be adopted: {source}")]
    Adopt {
        /// The workload.
        workload: crate::ids::WorkloadName,
        /// Why.
        source: Box<EngageError>,
    },
    /// Its names can't be kept.
    #[error("its names can't be kept: {0}")]
    Names(#[from] crate::transport::names::NamesError),
    /// A published port can't be opened.
    #[error("its published port {0} can't be opened: {1}")]
    Publish(std::net::SocketAddr, std::io::Error),
    /// Its connections can't be accepted.
    #[error("its connections can't be accepted: {0}")]
    Accept(#[from] std::io::Error),
    /// It can't be recorded.
    #[error("it can't be recorded: {0}")]
    Record(#[from] crate::record::RecordError),
}
