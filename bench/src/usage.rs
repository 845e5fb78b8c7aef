//! What processes use, as the kernel counts it: CPU time (proc_pid_stat(5)) and resident memory.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// Clock ticks a second, as user space is told them on every architecture that we run on.
const TICKS: f64 = 100.0;

/// CPU seconds that were used so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu {
    /// By all threads, those that have ended as well.
    pub(crate) all: f64,
    /// By the threads that live, by name.
    pub(crate) threads: BTreeMap<String, f64>,
}

impl Cpu {
    /// Of these processes together.
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        let mut cpu = Self::default();
        for pid in pids {
            cpu.all += seconds(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?.1;
            for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
                // A thread may have ended since it was listed.
                if let Ok(stat) = fs::read_to_string(thread.path().join("stat")) {
                    let (name, ticks) = seconds(&stat)?;
                    // In nanoseconds where the kernel keeps that: a tick is much of what a thread does in a sample.
                    let exact = fs::read_to_string(thread.path().join("sched")).ok().and_then(|text| on_cpu(&text));
                    *cpu.threads.entry(name.to_owned()).or_default() += exact.unwrap_or(ticks);
                }
            }
        }
        Ok(cpu)
    }

    /// Of the threads of this name.
    pub(crate) fn thread(&self, name: &str) -> f64 {
        self.threads.get(name).copied().unwrap_or_default()
    }
}

/// The name, and what was used: utime and stime are fields 14 and 15, the state behind the name is field 3.
fn seconds(stat: &str) -> Result<(&str, f64)> {
    let (before, after) = stat.rsplit_once(") ").context("no name")?;
    let name = before.split_once('(').context("no name")?.1;
    let mut fields = after.split(' ').skip(11).map(str::parse::<u64>);
    let mut next = || fields.next().context("too few fields")?.context("no number");
    let ticks = next()? + next()?;
    Ok((name, ticks as f64 / TICKS))
}

/// The time on a core that `/proc/PID/task/TID/sched` has, in milliseconds with six decimals.
fn on_cpu(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("se.sum_exec_runtime"))?;
    Some(line.rsplit_once(':')?.1.trim().parse::<f64>().ok()? / 1e3)
}

/// Resident memory of these processes together, in KiB; what they share counts for each.
pub(crate) fn resident(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        sum += line.trim().trim_end_matches(" kB").parse::<u64>()?;
    }
    Ok(sum)
}

/// A process and its children.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    std::iter::once(pid).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
}

#[cfg(test)]
mod tests;
