//! How often a process allocates, thread by thread: the kernel counts its calls of the C library's `malloc`, `calloc` and
//! `realloc`, and how often a worker takes a block that it had kept instead (uprobes, through `perf`), so that the binary is
//! the one that is shipped. Counting slows it down: what is measured besides in the same time means nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What is counted in the C library, and in the daemon.
const CALLS: [&str; 3] = ["malloc", "calloc", "realloc"];
const KEPT: &str = "interceptor_heap_take";
/// How long perf may need until it counts.
const ATTACH: Duration = Duration::from_millis(500);

/// Probes at the allocator that this process and the daemon share; removed with this.
pub(crate) struct Probes {
    placed: Vec<Probe>,
    output: PathBuf,
}

/// A probe of `perf`'s, by its event; removed with this.
struct Probe(String);

impl Probe {
    /// Counts the calls of a function of the program or library in `file`.
    fn place(file: &str, call: &str) -> Result<Self> {
        let event = format!("interceptor_bench:{call}_{}", std::process::id());
        run(Command::new("perf").args(["probe", "--quiet", "--exec", file, &format!("{event}={call}")]))?;
        Ok(Self(event))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // One that is gone is what is wanted.
        let _ = run(Command::new("perf").args(["probe", "--quiet", "--del", &self.0]));
    }
}

impl Probes {
    /// Places them; perf writes into `folder`.
    pub(crate) fn place(folder: &Path) -> Result<Self> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let library = maps.split_whitespace().find(|word| word.ends_with("/libc.so.6")).context("no libc.so.6")?;
        let placed = CALLS.iter().map(|call| Probe::place(library, call)).collect::<Result<_>>()?;
        Ok(Self { placed, output: folder.join("perf") })
    }

    /// The calls of the threads of `pid` while `during` runs, by the threads' names.
    pub(crate) fn count<T>(&self, pid: u32, during: impl FnOnce() -> Result<T>) -> Result<(T, BTreeMap<String, u64>)> {
        let program = fs::read_link(format!("/proc/{pid}/exe"))?;
        let kept = Probe::place(program.to_str().context("the daemon's path isn't UTF-8")?, KEPT)?;
        let events: Vec<&str> = self.placed.iter().chain([&kept]).map(|Probe(event)| event.as_str()).collect();
        let mut perf = Command::new("perf")
            .args(["stat", "--per-thread", "--field-separator", ";", "--pid", &pid.to_string()])
            .args(["--event", &events.join(","), "--output"])
            .arg(&self.output)
            .stdin(Stdio::null())
            .spawn()?;
        std::thread::sleep(ATTACH);
        let done = during();
        kill(Pid::from_raw(perf.id().cast_signed()), Signal::SIGINT)?;
        perf.wait()?;
        Ok((done?, parse(&fs::read_to_string(&self.output)?)))
    }
}

/// Lines of `NAME-TID;COUNT;…`.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(';');
        let (Some(thread), Some(count)) = (fields.next(), fields.next().and_then(|count| count.parse::<u64>().ok()))
        else {
            continue;
        };
        let name = thread.rsplit_once('-').map_or(thread, |(name, _)| name).trim();
        *calls.entry(name.to_owned()).or_default() += count;
    }
    calls
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("perf isn't here")?;
    ensure!(output.status.success(), "perf: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests;
