//! Who called a workload at its published ports of late. What it asks for then may be what they had it ask for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::WorkloadName;

/// How long after a call what the workload asks for may still come of it.
pub const LATE: Duration = Duration::from_secs(600);

/// How many are kept of a workload; beyond it, who called longest ago is forgotten.
const MOST: usize = 1024;

/// The callers of workloads, by uid; of all launches that have had the name, since a daemon began.
#[derive(Debug, Default)]
pub struct Callers(Mutex<HashMap<WorkloadName, BTreeMap<u32, Called>>>);

#[derive(Debug)]
struct Called {
    /// Calls that last.
    open: usize,
    /// When the last one began or ended.
    last: Instant,
}

/// A call that lasts.
#[derive(Debug)]
pub struct Call {
    callers: Arc<Callers>,
    workload: WorkloadName,
    uid: u32,
}

impl Callers {
    /// Notes that a uid calls, until what this gives is dropped.
    pub fn enter(self: &Arc<Self>, workload: &WorkloadName, uid: u32) -> Call {
        let mut all = self.all();
        let callers = all.entry(workload.clone()).or_default();
        if callers.len() >= MOST && !callers.contains_key(&uid) {
            let resting = callers.iter().filter(|(_, called)| called.open == 0);
            let first = resting.min_by_key(|(_, called)| called.last).map(|(uid, _)| *uid);
            if let Some(uid) = first {
                callers.remove(&uid);
            }
        }
        let called = callers.entry(uid).or_insert(Called { open: 0, last: Instant::now() });
        (called.open, called.last) = (called.open + 1, Instant::now());
        Call { callers: Arc::clone(self), workload: workload.clone(), uid }
    }

    /// Who calls a workload at this moment, or did within such a time. Sorted.
    pub fn within(&self, workload: &WorkloadName, time: Duration) -> Vec<u32> {
        let all = self.all();
        let now = Instant::now();
        let is_within = |called: &Called| called.open > 0 || now.saturating_duration_since(called.last) < time;
        let callers = all.get(workload).into_iter().flatten();
        callers.filter(|(_, called)| is_within(called)).map(|(uid, _)| *uid).collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<WorkloadName, BTreeMap<u32, Called>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(called) = self.callers.all().get_mut(&self.workload).and_then(|callers| callers.get_mut(&self.uid))
        {
            (called.open, called.last) = (called.open.saturating_sub(1), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
