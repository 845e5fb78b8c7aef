//! The broken glass: for a time a workload may what the policies of `break-glass.d` permit, which were written and checked
//! before. An input of `decide`. Who begins and ends it is `approve`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{BreakGlassId, WorkloadName};

/// One breaking of the glass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Its id.
    pub id: BreakGlassId,
    /// The workload that it is for.
    pub workload: WorkloadName,
    /// Until when it lasts.
    pub until: Timestamp,
    /// Why, in the words of who began it.
    pub reason: String,
    /// As whom who began it logged in, where the kernel knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loginuid: Option<u32>,
}

impl BreakGlass {
    /// Whether it is for this workload at `at`.
    pub(super) fn covers(&self, workload: &WorkloadName, at: Timestamp) -> bool {
        self.workload == *workload && at < self.until
    }
}

#[cfg(test)]
mod tests;
