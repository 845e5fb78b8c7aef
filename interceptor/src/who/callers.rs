//! Who called a workload at its published ports of late. What it asks for then may be what they had it ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long after a call what the workload asks for may still come of it.
const LATE: Duration = Duration::from_secs(600);

/// How many are kept; beyond it, who called longest ago is forgotten.
const MOST: usize = 1024;

/// The callers of one workload, by uid.
#[derive(Debug, Default)]
pub struct Callers(Mutex<BTreeMap<u32, Called>>);

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
    uid: u32,
}

impl Callers {
    /// Notes that a uid calls, for as long as what this gives is kept, and a while after.
    pub fn enter(self: &Arc<Self>, uid: u32) -> Call {
        let mut callers = self.callers();
        let now = Instant::now();
        if callers.len() >= MOST && !callers.contains_key(&uid) {
            callers.retain(|_, called| called.is_late(now));
            let resting = callers.iter().filter(|(_, called)| called.open == 0);
            let first = resting.min_by_key(|(_, called)| called.last).map(|(uid, _)| *uid);
            if let Some(uid) = first {
                callers.remove(&uid);
            }
        }
        let called = callers.entry(uid).or_insert(Called { open: 0, last: now });
        (called.open, called.last) = (called.open + 1, now);
        Call { callers: Arc::clone(self), uid }
    }

    /// Who calls at this moment, or did within the last ten minutes. Sorted.
    pub fn of_late(&self) -> Vec<u32> {
        let now = Instant::now();
        let mut callers = self.callers();
        callers.retain(|_, called| called.is_late(now));
        callers.keys().copied().collect()
    }

    fn callers(&self) -> MutexGuard<'_, BTreeMap<u32, Called>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Called {
    fn is_late(&self, now: Instant) -> bool {
        self.open > 0 || now.saturating_duration_since(self.last) < LATE
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(called) = self.callers.callers().get_mut(&self.uid) {
            (called.open, called.last) = (called.open.saturating_sub(1), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
