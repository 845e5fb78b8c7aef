//! The ledger: what the kernel counted, beside what the proxy handled.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Change, What};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::unit::Unit;
use interceptor_tests::{recorded, require_root};

use super::daemon::start;

/// The counts of a workload's kind; all 0 if there are none.
pub(crate) fn counts(daemon: &Daemon, workload: &str, kind: &str) -> Result<serde_json::Value> {
    // It fails when something is unexplained, and prints all the same.
    let output = daemon.interceptor(&["ledger", "--json"]).output()?;
    let ledger: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let found = ledger.as_array().context("a list")?.iter().find(|one| one["workload"] == workload).cloned();
    Ok(found.with_context(|| format!("no counts: {ledger}"))?["kinds"][kind].clone())
}

#[test]
fn what_a_service_tries_is_counted_and_explained() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("ledger", "")?;
    let unit = Unit::new(&daemon)?;
    for _ in 0..3 {
        ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    }
    for _ in 0..2 {
        ensure!(unit.attempt(&["udp", "198.51.100.7:443"])? == "ECONNREFUSED");
    }
    let udp_lite = ["syscall", &libc::SYS_socket.to_string(), "2", "2", &libc::IPPROTO_UDPLITE.to_string()];
    ensure!(unit.attempt(&udp_lite)? == "EPROTONOSUPPORT");
    ensure!(unit.attempt(&["connect-abstract", "nobody"])? == "EACCES");
    let tcp = counts(&daemon, "svc", "tcp")?;
    ensure!(tcp["attempted"] == 3 && tcp["mediated"] == 3 && tcp["unexplained"] == 0, "{tcp}");
    ensure!(counts(&daemon, "svc", "udp")?["refused"] == 2);
    ensure!(counts(&daemon, "svc", "raw")?["refused"] == 1);
    ensure!(counts(&daemon, "svc", "unix")?["refused"] == 1);
    let table = daemon.ask(&["ledger"])?;
    ensure!(table.contains("UNEXPLAINED") && table.contains("svc"), "{table}");
    unit.remove()?;
    daemon.finish()
}

#[test]
fn counts_outlive_the_daemon_and_can_be_read_without_it() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start("ledger", "")?;
    let unit = Unit::new(&daemon)?;
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    daemon.kill9()?;
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNREFUSED");
    daemon.restart()?;
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    let tcp = counts(&daemon, "svc", "tcp")?;
    ensure!(tcp["mediated"] == 2 && tcp["refused"] == 1 && tcp["unexplained"] == 0, "{tcp}");
    unit.remove()?;
    // What a launched workload did is recorded when it ends.
    let probe = daemon.binary("probe");
    let output = daemon.run(&[probe.to_str().context("a path")?, "tcp", "plain", "198.51.100.7:443"]).output()?;
    ensure!(output.status.success(), "{output:?}");
    let deadline = Instant::now() + Duration::from_secs(10);
    let database = daemon.database().display().to_string();
    let found = loop {
        let found = daemon.json(&["ledger", "--db", &database])?;
        let crm = found.as_array().context("a list")?.iter().find(|one| one["workload"] == "crm").cloned();
        match crm {
            Some(crm) => break crm,
            None => ensure!(Instant::now() < deadline, "it isn't recorded: {found}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let tcp = &found["kinds"]["tcp"];
    ensure!(tcp["attempted"] == 1 && tcp["mediated"] == 1 && found["sessions"] == 1, "{found}");
    daemon.finish()
}

/// Takes hooks away as an administrator could, and dials past them: the ledger shows it, and the watchdog puts them back.
#[test]
fn a_hole_shows_in_the_ledger_and_is_closed() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("ledger", "")?;
    let unit = Unit::new(&daemon)?;
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let start = Instant::now();
    let mut got_out = false;
    // The watchdog may be faster than one round.
    for _ in 0..50 {
        for hook in ["connect4", "connect6", "egress"] {
            // It may be gone already.
            let _ = fs::remove_file(daemon.pins().join("v1/adopt").join(hook));
        }
        if unit.attempt(&["connect", &address])? == "ok" && listener_has(&listener)? {
            got_out = true;
            break;
        }
    }
    ensure!(got_out, "no hole was opened in {:?}", start.elapsed());
    let tcp = counts(&daemon, "svc", "tcp")?;
    ensure!(tcp["unexplained"].as_u64().is_some_and(|count| count > 0), "{tcp}");
    let status = daemon.json(&["status"])?;
    ensure!(status["causes"].to_string().contains("ledger-unexplained"), "{status}");
    ensure!(!daemon.interceptor(&["ledger"]).output()?.status.success(), "it says that something is wrong");
    let opened = Instant::now();
    let deadline = opened + Duration::from_secs(2);
    while !daemon.pins().join("v1/adopt/connect4").exists() || !daemon.pins().join("v1/adopt/egress").exists() {
        ensure!(Instant::now() < deadline, "the hooks aren't back:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("the hooks were back after {:?} at most", opened.elapsed());
    std::thread::sleep(Duration::from_millis(50));
    let again = unit.attempt(&["tcp", "plain", &address])?;
    ensure!(again == "ECONNRESET", "it is steered again: {again}");
    let repaired = recorded::events(&daemon.database(), 0)?.into_iter().any(|(_, event)| {
        matches!(event.what, What::Adoption(adoption) if matches!(adoption.change, Change::Repaired { .. }))
    });
    ensure!(repaired, "that isn't recorded");
    let state = fs::read_to_string(unit.cgroup.join("cgroup.freeze"))?;
    ensure!(state.trim() == "0", "it is frozen still");
    unit.remove()?;
    daemon.finish()
}

/// Whether a connection came to it.
fn listener_has(listener: &std::net::TcpListener) -> Result<bool> {
    listener.set_nonblocking(true)?;
    Ok(listener.accept().is_ok())
}
