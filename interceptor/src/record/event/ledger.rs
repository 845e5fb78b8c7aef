//! What the kernel saw of a workload, beside what the proxy handled.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{LaunchId, WorkloadName};

/// The counts of a workload since it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The launch, or the adoption.
    pub launch: LaunchId,
    /// The workload's name.
    pub workload: WorkloadName,
    /// By kind: `tcp`, `udp`, `dns`, `raw`, `packet`, `unix`, `other`. What never happened isn't there.
    pub kinds: BTreeMap<String, Counts>,
    /// What the proxy says of the record of these connections; none where an earlier version counted, and where it isn't known
    /// that all were counted since the workload began: the file with the numbers was lost, or couldn't be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled: Option<Handled>,
}

/// What becomes in the record of the connections that the proxy had, which is what is mediated of `tcp`: each is a session
/// there, but for these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    /// When they were counted: what was taken later isn't among them.
    pub at: Timestamp,
    /// How many never are a session: look-ups over TCP, and what couldn't be recorded, and was refused for that.
    pub unrecorded: u64,
    /// Of how many it isn't known: they were on their way into the record, or to a daemon that was killed.
    pub unsure: u64,
    /// Whether these are the workload's last counts.
    pub last: bool,
}

/// What became of the attempts of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How often something was tried.
    pub attempted: u64,
    /// How often the proxy had it.
    pub mediated: u64,
    /// How often it was refused, or came to nothing.
    pub refused: u64,
    /// How often it was dropped on its way.
    pub dropped: u64,
    /// How often it was let through, because a rule says so.
    pub allowed: u64,
    /// What got an answer, and not from the proxy, or left a launched workload's network namespace: has to be 0.
    pub unexplained: u64,
}

impl Ledger {
    /// What has to be 0.
    pub fn unexplained(&self) -> u64 {
        self.kinds.values().map(|counts| counts.unexplained).sum()
    }

    /// How many connections of that there are.
    pub fn unexplained_connections(&self) -> u64 {
        self.kinds.get("tcp").map_or(0, |tcp| tcp.unexplained)
    }

    /// How many connections the proxy had.
    pub fn mediated(&self) -> u64 {
        self.kinds.get("tcp").map_or(0, |tcp| tcp.mediated)
    }
}
