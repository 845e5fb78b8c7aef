//! What happens to adopted workloads besides their connections.

use serde::{Deserialize, Serialize};

use crate::ids::{LaunchId, WorkloadName};

/// A change of an adopted workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// The adoption.
    pub launch: LaunchId,
    /// The workload's name.
    pub workload: WorkloadName,
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A cgroup came under control.
    Adopted {
        /// Its path from the root of cgroup2.
        cgroup: String,
        /// The digest of its image, if it is a container's.
        image: Option<String>,
        /// Its processes that were there already.
        processes: u32,
    },
    /// A cgroup is no longer there.
    Gone {
        /// Its path.
        cgroup: String,
    },
    /// It is contained better or worse than before.
    Contained {
        /// The level, and the holes that lower it.
        containment: String,
        /// Whether its connections are refused, because that isn't enough.
        refused: bool,
    },
    /// A socket that a process had from before or from elsewhere reached past the hooks.
    SocketCut {
        /// The process.
        pid: u32,
        /// What it was: `tcp to 198.51.100.7:443`.
        what: String,
        /// Whether it was cut.
        cut: bool,
    },
    /// The hooks aren't as they have to be. Its processes stand still until they are put right, which is told by itself.
    Detached {
        /// What is wrong.
        what: String,
    },
    /// The hooks weren't as they have to be, and were put right.
    Repaired {
        /// What was wrong.
        what: String,
    },
    /// The hooks aren't as they have to be, and can't be put right: it stands still until they are.
    Broken {
        /// What is wrong, and why it can't be put right.
        what: String,
    },
}
