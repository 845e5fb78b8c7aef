//! One sample: one cell, once, for one of those who stand between.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::affinity::{confine, cores};
use crate::asking::Asking;
use crate::cells::Traffic;
use crate::origin::MAIL;
use crate::ours::Ours;
use crate::parts::Recording;
use crate::peers::{Peer, Process, Running, Way, part};
use crate::pki::{Folder, HOST};
use crate::usage::{Cpu, resident};

/// The connections of the memory cell.
const MANY: usize = 1000;
/// How often a process is started in a sample of the launch cell.
const LAUNCHES: usize = 20;
/// Settling time of what has just been started, before its memory is read.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long connections stand idle before memory is read: what is given back then is given back by then.
const REST: Duration = Duration::from_secs(4);

/// What was found, by name. `rate` is requests a second, or bytes a second for bulk; `cpu` CPU seconds for 100,000
/// requests, or for a gigabyte.
pub(crate) type Figures = BTreeMap<String, f64>;

/// One sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) cell: String,
    pub(crate) peer: String,
    pub(crate) figures: Figures,
    /// Why it doesn't count, if it doesn't.
    pub(crate) fault: Option<String>,
}

/// What every sample needs.
pub(crate) struct Bench<'a> {
    pub(crate) origin: &'a Process,
    pub(crate) pki: &'a Folder,
    pub(crate) bearer: &'a str,
    pub(crate) warm: Duration,
    pub(crate) time: Duration,
}

impl Bench<'_> {
    /// A closed loop of requests. `tag` tells its paths from all others.
    pub(crate) fn traffic(&self, running: &Running, traffic: &Traffic, tag: &str) -> Result<Figures> {
        self.confined(running, traffic, tag, None)
    }

    /// The same, while perf samples the one in the middle into a file. What CPU time it tells has perf's in it.
    pub(crate) fn sampled(&self, running: &Running, traffic: &Traffic, tag: &str, output: &Path) -> Result<Figures> {
        self.confined(running, traffic, tag, Some(output))
    }

    fn confined(&self, running: &Running, traffic: &Traffic, tag: &str, output: Option<&Path>) -> Result<Figures> {
        let pids = running.pids()?;
        let parts = [self.origin.family(), pids.clone()].concat();
        confine(&parts, traffic.one_core.then_some(0))?;
        let figures = self.ask(running, &pids, traffic, tag, output);
        confine(&parts, None)?;
        figures
    }

    fn ask(
        &self,
        running: &Running,
        pids: &[u32],
        traffic: &Traffic,
        tag: &str,
        output: Option<&Path>,
    ) -> Result<Figures> {
        let ours = match &running.way {
            Way::Governed(ours) => Some((ours, ours.mark()?)),
            Way::At(_) => None,
        };
        let mut load = Asking::start(self.command(running, traffic, traffic.how, tag)?)?;
        load.expect("begin")?;
        let (before, start) = (Cpu::of(pids)?, Instant::now());
        let begin = ours.map(|(ours, _)| ours.mark()).transpose()?;
        let recording = output.map(|output| Recording::start(pids, output)).transpose()?;
        load.expect("end")?;
        recording.map(Recording::stop).transpose()?;
        let (after, spent) = (Cpu::of(pids)?, start.elapsed());
        let tally = load.tally()?;
        ensure!(tally.answered > 0 || traffic.is_bulk(), "nothing was answered in time");
        let mut figures = Figures::new();
        let mut note = |name: &str, value: f64| figures.insert(name.to_owned(), value);
        note("rate", if traffic.is_bulk() { tally.bytes as f64 } else { tally.answered as f64 } / tally.seconds);
        note("p50_us", tally.p50);
        note("p99_us", tally.p99);
        // What was done between the two readings, as the load saw it at the same rate.
        let share = spent.as_secs_f64() / tally.seconds;
        let units = share * if traffic.is_bulk() { tally.bytes as f64 / 1e9 } else { tally.answered as f64 / 1e5 };
        if !pids.is_empty() {
            note("cpu", (after.all - before.all) / units);
            note("rss_kib", resident(pids)? as f64);
        }
        if let Some((ours, mark)) = ours {
            let (rows, drained) = ours.rows(mark, tally.sent)?;
            // The writer finishes behind the load: what it used and moved is counted until it has everything.
            let writer = Cpu::of(pids)?.thread("record") - before.thread("record");
            let (moved, _) = ours.rows(begin.unwrap_or(mark), 0)?;
            note("requests", tally.sent as f64);
            note("rows", rows as f64);
            note("drain_s", drained.as_secs_f64());
            note("writer_cpu", writer / if traffic.is_bulk() { units } else { moved as f64 / 1e5 });
            note("workers_cpu", workers(&after, &before) / units);
            ensure!(rows == tally.sent, "{rows} rows for {} requests", tally.sent);
        }
        ensure!(tally.failed == 0, "{} failed: {}", tally.failed, tally.fault.unwrap_or_default());
        let is_masked = !tally.sample.contains(MAIL);
        ensure!(
            traffic.is_bulk() || is_masked == running.masks(),
            "answers are {}masked: {}",
            if is_masked { "" } else { "not " },
            tally.sample
        );
        Ok(figures)
    }

    /// Memory, with nothing to do and with many connections.
    pub(crate) fn memory(&self, running: &Running, tag: &str) -> Result<Figures> {
        let pids = running.pids()?;
        std::thread::sleep(SETTLE);
        let idle = resident(&pids)?;
        let traffic =
            Traffic { how: "hold", connections: MANY, streams: 1, path: "users", one_core: false, post_quantum: true };
        let mut load = Asking::start(self.command(running, &traffic, "hold", tag)?)?;
        load.expect("begin")?;
        std::thread::sleep(REST);
        // nginx may have begun a worker.
        let held = resident(&running.pids()?)?;
        let tally = load.tally()?;
        ensure!(tally.failed == 0, "{} failed: {}", tally.failed, tally.fault.unwrap_or_default());
        Ok([("idle_kib", idle), ("held_kib", held)].map(|(name, kib)| (name.to_owned(), kib as f64)).into())
    }

    fn command(&self, running: &Running, traffic: &Traffic, how: &str, tag: &str) -> Result<Command> {
        let arguments = self.arguments(traffic, how, tag);
        match &running.way {
            Way::Governed(ours) => ours.load(&arguments),
            Way::At(address) => {
                let mut command = part("load");
                command.args(arguments).args(["--at", &address.to_string(), "--bearer", self.bearer]);
                command.arg("--ca").arg(self.pki.ca());
                Ok(command)
            }
        }
    }

    /// What a load is told.
    pub(crate) fn arguments(&self, traffic: &Traffic, how: &str, tag: &str) -> Vec<String> {
        let threads = if traffic.one_core { 1 } else { cores() };
        let mut arguments: Vec<String> = [
            ("--host", HOST.to_owned()),
            ("--how", how.to_owned()),
            ("--connections", traffic.connections.to_string()),
            ("--streams", traffic.streams.to_string()),
            ("--path", traffic.path.to_owned()),
            ("--tag", tag.to_owned()),
            ("--warm", self.warm.as_millis().to_string()),
            ("--time", self.time.as_millis().to_string()),
            ("--threads", threads.to_string()),
        ]
        .into_iter()
        .flat_map(|(key, value)| [key.to_owned(), value])
        .collect();
        if traffic.one_core {
            arguments.extend(["--core".to_owned(), "0".to_owned()]);
        }
        if !traffic.post_quantum {
            arguments.push("--classic".to_owned());
        }
        arguments
    }
}

/// What the threads used that do the walks.
fn workers(after: &Cpu, before: &Cpu) -> f64 {
    let workers = after.threads.keys().filter(|name| name.starts_with("worker-"));
    workers.map(|name| after.thread(name) - before.thread(name)).sum()
}

/// How long a process takes from its start to its end, bare and governed: medians, in milliseconds.
pub(crate) fn launch(ours: &Ours) -> Result<[(Peer, Figures); 2]> {
    let median = |make: &dyn Fn() -> Command| -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..LAUNCHES {
            let start = Instant::now();
            let status = make().stdin(Stdio::null()).stdout(Stdio::null()).status()?;
            ensure!(status.success(), "it ended with {status}");
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    };
    let bare = median(&|| ours.daemon.as_user("/bin/true".as_ref()))?;
    let governed = median(&|| ours.daemon.run(&["/bin/true"]))?;
    Ok([(Peer::Direct, bare), (Peer::Ours, governed)].map(|(peer, ms)| (peer, [("launch_ms".to_owned(), ms)].into())))
}
