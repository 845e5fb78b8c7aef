//! What the daemon costs: a launch, many launches at once, and doing nothing.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;

const ROUNDS: usize = 20;
const MEASURES: usize = 3;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn time(make: impl Fn() -> Command) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        ensure!(make().stdin(Stdio::null()).stdout(Stdio::null()).status()?.success(), "the command failed");
        times.push(start.elapsed());
    }
    Ok(median(times))
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The CPU time of a process, in clock ticks (1/100 s).
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("no comm")?.1.split(' ').collect();
    // utime and stime are fields 14 and 15 of proc_pid_stat(5); the state is field 3.
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

#[test]
fn a_launch_costs_at_most_20_ms_more_than_a_bare_exec() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::for_graph(&graph, READ_ONLY)?;
    // What else runs on the machine only adds: of a few medians the least is nearest to what a launch costs.
    let mut least = Duration::MAX;
    for _ in 0..MEASURES {
        let bare = time(|| daemon.as_user("/bin/true".as_ref()))?;
        let launched = time(|| daemon.run(&["/bin/true"]))?;
        println!("bare {} us, launched {} us (medians of {ROUNDS})", bare.as_micros(), launched.as_micros());
        least = least.min(launched.saturating_sub(bare));
    }
    ensure!(least < Duration::from_millis(20), "a launch costs {least:?} more");
    daemon.finish()
}

#[test]
fn two_hundred_launches_at_once_all_succeed() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::for_graph(&graph, READ_ONLY)?;
    let start = Instant::now();
    let launches: Vec<Child> = (0..200_u32)
        .map(|number| {
            let script = format!("exit {}", number % 100);
            Ok(daemon.run(&["/bin/sh", "-c", &script]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?)
        })
        .collect::<Result<_>>()?;
    for (number, launch) in launches.into_iter().enumerate() {
        let ended = launch.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(ended.status.code() == Some(i32::try_from(number % 100)?), "launch {number}: {} {said}", ended.status);
    }
    println!("200 launches at once: {} ms", start.elapsed().as_millis());
    let deadline = Instant::now() + Duration::from_secs(60);
    while daemon.json(&["workloads", "list"])?.as_array().context("a list")?.iter().next().is_some() {
        ensure!(Instant::now() < deadline, "some launches are still listed");
        sleep(Duration::from_millis(20));
    }
    daemon.finish()
}

#[test]
fn an_idle_daemon_takes_30_mib_at_most_and_no_cpu() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::for_graph(&graph, READ_ONLY)?;
    let mut workload = daemon.run(&["/bin/cat"]).stdin(Stdio::piped()).spawn()?;
    sleep(Duration::from_secs(1));
    let pid = daemon.pid()?;
    let before = ticks(pid)?;
    sleep(Duration::from_secs(5));
    let (used, resident) = (ticks(pid)? - before, resident(pid)?);
    println!("idle with one workload: {resident} KiB, {used} ticks of CPU in 5 s");
    ensure!(resident <= 30 * 1024, "an idle daemon takes {resident} KiB");
    ensure!(used <= 1, "an idle daemon took {used} ticks of CPU in 5 s");
    drop(workload.stdin.take());
    ensure!(workload.wait()?.success(), "the workload failed");
    daemon.finish()
}
