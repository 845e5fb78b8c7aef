//! How much of a busy processor the writer takes. What it moves is recorded already, and those who wait for an answer come
//! first: it runs with a low priority (sched(7), nice) for as long as nobody waits for it and it isn't far behind. Where
//! processors idle that changes nothing.

use rustix::process::setpriority_process;

/// A tenth of what the workers get where both want a processor.
const LOW: i32 = 10;
const NORMAL: i32 = 0;
/// Tried at the start: a thread that can't come back from it stays there.
const TRIED: i32 = 1;

/// The priority of the thread that made it.
#[derive(Debug)]
pub(super) struct Pace {
    low: bool,
    /// Whether the thread may raise its priority again, which takes CAP_SYS_NICE.
    free: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        let free = setpriority_process(None, TRIED).and_then(|()| setpriority_process(None, NORMAL)).is_ok();
        if !free {
            tracing::debug!("the record's writer can't yield to requests: CAP_SYS_NICE is missing");
        }
        Self { low: false, free }
    }

    /// Gives way to others, or doesn't.
    pub(super) fn yielding(&mut self, low: bool) {
        if self.free && low != self.low && setpriority_process(None, if low { LOW } else { NORMAL }).is_ok() {
            self.low = low;
        }
    }
}

#[cfg(test)]
mod tests;
