//! Which part of the work the daemon's CPU time goes to: while a load lasts, `perf` samples the running daemon, and each
//! sample counts for the part that its stack tells of. Sampling takes CPU time itself, so what a request costs in all is
//! measured without it, and perf only says how that is divided.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cells::{Cell, What};
use crate::ground::Ground;
use crate::measure::{Bench, Figures, Sample};
use crate::ours::Shape;
use crate::peers::Running;
use crate::points;
use crate::rounds::{is_interrupted, sample};

pub(crate) use self::stacks::{PARTS, Threads};

mod stacks;

/// What the samples' cells begin with.
pub(crate) const FAMILY: &str = "parts";
/// The figure beside the parts: CPU time in all, microseconds for a request, or for a megabyte of bulk.
pub(crate) const WHOLE: &str = "cpu_us";

/// Samples a second of each thread; no multiple of what the kernel and the daemon do regularly.
const FREQUENCY: &str = "499";
/// How much of the stack is kept with a sample, bytes: what an operation's futures need, one within the other.
const STACK: &str = "dwarf,24000";
/// A share of fewer samples says nothing.
const FEWEST: u64 = 20;

/// Measures the cells of traffic among these.
pub(crate) fn measure(
    ground: &Ground,
    bench: &Bench,
    record: &str,
    cells: &[&Cell],
    rounds: usize,
) -> Result<Vec<Sample>> {
    let traffic = |cell: &&Cell| match cell.what {
        What::Traffic(traffic) => Some((cell.name, traffic)),
        What::Memory | What::Launch => None,
    };
    let cells: Vec<_> = cells.iter().filter_map(traffic).collect();
    ensure!(!cells.is_empty(), "only cells of traffic have parts");
    let perf = Command::new("perf").arg("--version").stdout(Stdio::null()).status();
    ensure!(perf.is_ok_and(|status| status.success()), "perf isn't here; Debian has it in linux-perf");
    let running = Running::governed(ground.ours(&Shape::usual(record))?);
    let mut samples = Vec::new();
    for round in 0..rounds {
        for (cell, traffic) in &cells {
            let tag = |how: &str| format!("{how}-{cell}-{round}");
            let found = bench.traffic(&running, traffic, &tag("whole")).and_then(|whole| {
                let output = ground.site.room.join("perf.data");
                let sampled = bench.sampled(&running, traffic, &tag("parts"), &output)?;
                Ok((whole, sampled, counts(&output)?))
            });
            let name = points::cell(FAMILY, cell);
            match found {
                Ok((whole, sampled, counts)) => {
                    for threads in Threads::ALL {
                        if let Some(figures) = figures(threads, (&whole, &sampled), &counts, traffic.is_bulk()) {
                            samples.push(sample(round, &name, threads.name(), Ok(figures)));
                        }
                    }
                }
                Err(error) => samples.push(sample(round, &name, Threads::Workers.name(), Err(error))),
            }
            if is_interrupted() {
                bail!("interrupted");
            }
        }
    }
    Ok(samples)
}

/// What a daemon's samples say, by threads and parts.
type Counts = BTreeMap<Threads, BTreeMap<&'static str, u64>>;

/// The CPU time of these threads, as a whole and by parts; none where too little was seen of them.
fn figures(
    threads: Threads,
    (whole, sampled): (&Figures, &Figures),
    counts: &Counts,
    is_bulk: bool,
) -> Option<Figures> {
    let seen = |threads| counts.get(&threads).map(|parts| parts.values().sum::<u64>()).filter(|all| *all >= FEWEST);
    let (parts, all) = (counts.get(&threads)?, seen(threads)? as f64);
    // Seconds for 100,000 requests or a gigabyte, in microseconds for a request or a megabyte.
    let scale = if is_bulk { 1e3 } else { 10.0 };
    let workers = whole.get("workers_cpu")? * scale;
    let cpu = match threads {
        Threads::Workers => workers,
        Threads::Writer => whole.get("writer_cpu")? * scale,
        Threads::Others => workers * all / seen(Threads::Workers)? as f64,
    };
    let part = |name: &'static str| (name.to_owned(), cpu * parts.get(name).copied().unwrap_or_default() as f64 / all);
    let mut figures: Figures = PARTS.iter().filter(|part| part.is_of(threads)).map(|found| part(found.name)).collect();
    figures.insert(WHOLE.to_owned(), cpu);
    if threads == Threads::Workers {
        for name in ["requests", "rows"] {
            figures.insert(name.to_owned(), whole.get(name)? + sampled.get(name)?);
        }
    }
    Some(figures)
}

/// perf while it samples.
pub(crate) struct Recording(Child);

impl Recording {
    /// Samples these processes into a file.
    pub(crate) fn start(pids: &[u32], output: &Path) -> Result<Self> {
        let pids = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let child = Command::new("perf")
            .args(["record", "--quiet", "--freq", FREQUENCY, "--call-graph", STACK, "--pid", &pids, "--output"])
            .arg(output)
            .stdin(Stdio::null())
            .spawn()
            .context("can't start perf")?;
        Ok(Self(child))
    }

    /// Ends it, in order. One that has ended by itself has said why.
    pub(crate) fn stop(mut self) -> Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("perf ended early, with {status}");
        }
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT)?;
        // It ends as one that was interrupted, which is what it was.
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // After `stop` it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What perf wrote, counted.
fn counts(output: &Path) -> Result<Counts> {
    let told = Command::new("perf")
        .args(["script", "--no-inline", "--fields", "comm,ip,sym", "--input"])
        .arg(output)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    ensure!(told.status.success(), "perf can't tell what it sampled: {}", told.status);
    fs::remove_file(output)?;
    let counts = stacks::count(&String::from_utf8_lossy(&told.stdout));
    let workers: u64 = counts.get(&Threads::Workers).into_iter().flat_map(BTreeMap::values).sum();
    ensure!(workers >= FEWEST, "perf has {workers} samples of the workers");
    Ok(counts)
}

#[cfg(test)]
mod tests;
