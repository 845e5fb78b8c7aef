//! Hooks and steering that somebody takes away from launched workloads are put back.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Change, What};
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::{recorded, require_root};

/// How long it may take.
const MOST: Duration = Duration::from_secs(2);

/// Waits until a pin is there again; how long that took.
fn until_back(pin: &Path, daemon: &Daemon) -> Result<Duration> {
    let start = Instant::now();
    while !pin.exists() {
        ensure!(start.elapsed() < MOST, "`{}` isn't back:\n{}", pin.display(), daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed())
}

#[test]
fn what_is_detached_is_attached_again_and_recorded() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let order = Order { bring: vec!["probe"], purpose: "watchdog", ..Order::for_graph(&graph, READ_ONLY) };
    let daemon = Daemon::start(&order)?;
    let probe = daemon.binary("probe");
    let probe = probe.to_str().context("a path in UTF-8")?;
    // Connects once a second, and says what came of it.
    let script = r#"while :; do "$0" tcp plain 198.51.100.7:443; sleep 0.2; done"#;
    let output = daemon.room().join("output");
    let mut running = daemon
        .run(&["/bin/sh", "-c", script, probe])
        .stdout(fs::File::create(&output)?)
        .stdin(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fs::read_to_string(&output)?.contains("ECONNRESET") {
        ensure!(Instant::now() < deadline, "it isn't steered:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let launch = daemon.json(&["workloads", "list"])?[0]["launch"].as_str().context("a launch")?.to_owned();
    let pins = daemon.pins().join("v1");
    for pin in [pins.join(&launch).join("link"), pins.join("unix_connect"), pins.join("connect4")] {
        fs::remove_file(&pin)?;
        println!("`{}` was back after {:?}", pin.display(), until_back(&pin, &daemon)?);
    }
    let repaired = || -> Result<usize> {
        let events = recorded::events(&daemon.database(), 0)?;
        let is_repair = |what: &What| matches!(what, What::Adoption(adoption) if matches!(adoption.change, Change::Repaired { .. }));
        Ok(events.iter().filter(|(_, event)| is_repair(&event.what)).count())
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while repaired()? < 3 {
        ensure!(Instant::now() < deadline, "{} repairs are recorded", repaired()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    // It goes on, and is steered.
    let before = daemon.json(&["sessions", "list"])?.as_array().context("a list")?.len();
    let deadline = Instant::now() + Duration::from_secs(5);
    while daemon.json(&["sessions", "list"])?.as_array().context("a list")?.len() <= before {
        ensure!(Instant::now() < deadline, "it stands still:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(!fs::read_to_string(&output)?.lines().any(|line| line == "ok"), "it got somewhere");
    running.kill()?;
    running.wait()?;
    daemon.finish()
}
