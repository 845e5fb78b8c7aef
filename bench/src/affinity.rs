//! Which cores a process may use. In the cells of one core all parts share it, so that what is measured is the sum of
//! what they cost and not how well the scheduler places them.

use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// How many cores there are.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Confines the calling thread, and those that it starts, to one core.
pub(crate) fn confine_self(core: usize) -> Result<()> {
    sched_setaffinity(Pid::from_raw(0), &one(core)?).context("can't choose a core")
}

/// Confines all threads of these processes to one core, or to none in particular.
pub(crate) fn confine(pids: &[u32], core: Option<usize>) -> Result<()> {
    let set = match core {
        Some(core) => one(core)?,
        None => {
            let mut all = CpuSet::new();
            (0..CpuSet::count()).try_for_each(|core| all.set(core))?;
            all
        }
    };
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            if let Some(tid) = thread.file_name().to_str().and_then(|tid| tid.parse().ok()) {
                // A thread may have ended since it was listed.
                let _ = sched_setaffinity(Pid::from_raw(tid), &set);
            }
        }
    }
    Ok(())
}

fn one(core: usize) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(set)
}
