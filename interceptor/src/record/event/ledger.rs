//! What the kernel saw of a workload, beside what the proxy handled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{LaunchId, WorkloadName};

/// The counts of a workload since it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The launch, or the adoption.
    pub launch: LaunchId,
    /// The workload's name.
    pub workload: WorkloadName,
    /// By kind: `tcp`, `udp`, `dns`, `raw`, `packet`, `unix`. What never happened isn't there.
    pub kinds: BTreeMap<String, Counts>,
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
    /// What got an answer, and not from the proxy: has to be 0.
    pub unexplained: u64,
}

impl Ledger {
    /// What has to be 0.
    pub fn unexplained(&self) -> u64 {
        self.kinds.values().map(|counts| counts.unexplained).sum()
    }
}
