//! The memory that bodies may take up while they are taken down: bounded for a worker, and for each workload on it, so
//! that none keeps others from being recorded.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::ids::LaunchId;

/// Bytes for all of a worker's operations.
const WORKER: usize = 64 << 20;
/// Bytes for those of one launch.
const LAUNCH: usize = 16 << 20;

/// What is taken up.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Budget(RefCell<Used>);

#[derive(Debug, Default)]
struct Used {
    all: usize,
    launches: HashMap<LaunchId, usize>,
}

impl Budget {
    /// Takes up `bytes` for a launch; false if there is no room for them.
    pub(in crate::pipeline) fn take(&self, launch: LaunchId, bytes: usize) -> bool {
        let mut used = self.0.borrow_mut();
        let own = used.launches.get(&launch).copied().unwrap_or(0);
        if used.all + bytes > WORKER || own + bytes > LAUNCH {
            return false;
        }
        used.all += bytes;
        used.launches.insert(launch, own + bytes);
        true
    }

    /// Gives `bytes` back.
    pub(in crate::pipeline) fn give_back(&self, launch: LaunchId, bytes: usize) {
        let mut used = self.0.borrow_mut();
        used.all = used.all.saturating_sub(bytes);
        let left = used.launches.get(&launch).copied().unwrap_or(0).saturating_sub(bytes);
        if left == 0 {
            used.launches.remove(&launch);
        } else {
            used.launches.insert(launch, left);
        }
    }
}
