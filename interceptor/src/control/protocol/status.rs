//! What the daemon says of itself and of its workloads.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{LaunchId, WorkloadName};

/// What [`super::Request::Status`] is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether workloads are served.
    pub serving: Serving,
    /// What stands in the way, if it isn't a plain yes; the worst first.
    pub causes: Vec<Cause>,
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Since when it runs.
    pub started: Timestamp,
    /// The generation of the snapshot in force.
    pub generation: u64,
    /// BLAKE3 of its policies in hex; none while there are none.
    pub policies: Option<String>,
    /// Launched workloads that live.
    pub workloads: u32,
    /// Connections that are open.
    pub connections: u32,
    /// The sinks that the record is sent to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<Exported>,
}

/// How far the record is sent to one sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Its name.
    pub name: String,
    /// `syslog`, `http` or `otlp`.
    pub kind: String,
    /// The last event that it acknowledged.
    pub seq: u64,
    /// How many events it doesn't have yet.
    pub behind: u64,
    /// How old the oldest of them is, in milliseconds, as far as is known.
    pub age_ms: Option<u64>,
    /// Why sending fails; none while it doesn't.
    pub error: Option<String>,
}

/// Whether workloads are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serving {
    /// As configured.
    Yes,
    /// In part, or with less than the full protection.
    Degraded,
    /// Not at all: everything is denied.
    No,
}

/// One thing that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The stable code.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub next: String,
}

/// One launched workload, as [`super::Request::Workloads`] lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// The launch.
    pub launch: LaunchId,
    /// The workload's name.
    pub workload: WorkloadName,
    /// The uid of the person who launched it.
    pub initiator: u32,
    /// The uid it runs as.
    pub uid: u32,
    /// Its process 1.
    pub pid: u32,
    /// The file name of its command.
    pub command: String,
    /// Since when it runs, as far as this is known.
    pub started: Option<Timestamp>,
    /// Its open connections.
    pub connections: u32,
    /// `contained` or `steered`.
    pub containment: String,
    /// What lowers the containment, a line each.
    pub holes: Vec<String>,
    /// The cgroups of an adopted workload that are there; none of a launched one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Vec<AdoptedCgroup>>,
}

/// A cgroup of an adopted workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedCgroup {
    /// Its path from the root of cgroup2.
    pub cgroup: String,
    /// The digest of its image, if it is a container's.
    pub image: Option<String>,
}
