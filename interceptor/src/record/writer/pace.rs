//! How much of a busy processor the writer takes. What it moves is recorded already, and those who wait for an answer come
//! first: it runs with a low priority (sched(7), nice) for as long as nobody waits for it and it isn't far behind. Once it
//! is, it comes first, so that a load that goes on is slowed down instead of denied. Where processors idle none of that
//! changes anything.

use rustix::process::setpriority_process;

use crate::record::backlog::Urgency;

/// A tenth of what each of the workers gets where they want a processor as well.
const LOW: i32 = 10;
const NORMAL: i32 = 0;
/// Nine times what each of them gets.
const HIGH: i32 = -10;
/// Tried at the start: a thread that can't come back from it stays there.
const TRIED: i32 = 1;

/// The priority of the thread that made it.
#[derive(Debug)]
pub(super) struct Pace {
    now: i32,
    /// Whether the thread may raise its priority, which takes CAP_SYS_NICE.
    free: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        let free = setpriority_process(None, TRIED).and_then(|()| setpriority_process(None, NORMAL)).is_ok();
        if !free {
            tracing::debug!("the record's writer can't yield to requests: CAP_SYS_NICE is missing");
        }
        Self { now: NORMAL, free }
    }

    /// Takes the priority of work that is so urgent.
    pub(super) fn set(&mut self, urgency: Urgency) {
        let wanted = match urgency {
            Urgency::Later => LOW,
            Urgency::Awaited => NORMAL,
            Urgency::Late => HIGH,
        };
        if self.free && wanted != self.now && setpriority_process(None, wanted).is_ok() {
            self.now = wanted;
        }
    }
}

#[cfg(test)]
mod tests;
