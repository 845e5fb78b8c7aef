//! What an administrator does to the installation: take over, remove, put a unit under control.

use std::fs;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::What;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::unit::{ADOPTED, Unit};
use interceptor_tests::{recorded, require_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn start() -> Result<(Graph, Daemon)> {
    let graph = Graph::start(&[])?;
    let order = Order {
        bring: vec!["probe"],
        purpose: "upkeep",
        more: ADOPTED.to_owned(),
        ..Order::for_graph(&graph, READ_ONLY)
    };
    let daemon = Daemon::start(&order)?;
    Ok((graph, daemon))
}

/// `interceptor ARG…` with the daemon's configuration.
fn with_config(daemon: &Daemon, arguments: &[&str]) -> Result<Output> {
    Ok(daemon.interceptor(arguments).arg("--config").arg(daemon.config()).stdin(Stdio::null()).output()?)
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What is recorded of commands that work on the host.
fn commands(daemon: &Daemon) -> Result<Vec<String>> {
    let of = |what| match what {
        What::ControlRequest { request, refused: None, uid: 0, .. } => Some(request),
        _ => None,
    };
    Ok(recorded::events(&daemon.database(), 0)?.into_iter().filter_map(|(_, event)| of(event.what)).collect())
}

#[test]
fn what_is_done_to_a_unit_is_recorded_by_the_daemon_or_without_it() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start()?;
    // There is no drop-in, and nothing becomes of it. Where systemd can't be told of it, that comes after the event.
    let release = ["release", "--unit", "interceptor-test-nowhere.service"];
    with_config(&daemon, &[&release[..], &["--dry-run"]].concat())?;
    for count in 1..=2 {
        let said = both(&with_config(&daemon, &release)?);
        ensure!(said.contains("there was no") && !said.contains("isn't recorded"), "{said}");
        let expected = vec!["release interceptor-test-nowhere.service".to_owned(); count];
        ensure!(commands(&daemon)? == expected, "{:?}", commands(&daemon)?);
        if count == 1 {
            ensure!(daemon.stop()?.success(), "it failed");
        }
    }
    fs::rename(daemon.database(), daemon.room().join("away.db"))?;
    let said = both(&with_config(&daemon, &release)?);
    ensure!(said.contains("this isn't recorded") && said.contains("there was no"), "{said}");
    ensure!(!daemon.database().exists(), "another record was begun");
    daemon.finish()
}

#[test]
fn what_is_left_on_the_host_is_removed_but_for_the_record() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start()?;
    let running = with_config(&daemon, &["uninstall"])?;
    ensure!(!running.status.success() && both(&running).contains("stop it first"), "{running:?}");
    // One that hangs doesn't answer.
    let pid = Pid::from_raw(daemon.pid()?.cast_signed());
    kill(pid, Signal::SIGSTOP)?;
    let hung = with_config(&daemon, &["uninstall"]);
    kill(pid, Signal::SIGCONT)?;
    let hung = hung?;
    ensure!(!hung.status.success() && both(&hung).contains("stop it first"), "{hung:?}");
    let mut launched = daemon.run(&["sleep", "60"]).stdin(Stdio::null()).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while daemon.json(&["workloads", "list"])?.as_array().context("a list")?.len() < 2 {
        ensure!(Instant::now() < deadline, "it isn't launched");
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(daemon.stop()?.success(), "it failed");
    let alive = with_config(&daemon, &["uninstall"])?;
    ensure!(!alive.status.success() && both(&alive).contains("lives: end it first"), "{alive:?}");
    launched.kill()?;
    launched.wait()?;
    let folder = daemon.cgroup().join("workloads");
    let has_processes = || -> Result<bool> {
        let mut entries = fs::read_dir(&folder)?.flatten();
        Ok(entries
            .any(|entry| fs::read_to_string(entry.path().join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty())))
    };
    while has_processes()? {
        ensure!(Instant::now() < deadline, "its processes don't end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let unit = Unit::new(&daemon)?;
    let mut adopted = unit.command("sleep").arg("60").spawn()?;
    while fs::read_to_string(unit.cgroup.join("cgroup.procs"))?.is_empty() {
        ensure!(Instant::now() < deadline, "it doesn't begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let held = with_config(&daemon, &["uninstall"])?;
    ensure!(!held.status.success() && both(&held).contains("`svc` has processes in"), "{held:?}");
    adopted.kill()?;
    adopted.wait()?;
    unit.remove()?;
    fs::remove_dir(daemon.cgroup().join("units"))?;
    let dry = with_config(&daemon, &["uninstall", "--dry-run"])?;
    ensure!(dry.status.success() && daemon.pins().exists(), "{dry:?}");
    let done = with_config(&daemon, &["uninstall"])?;
    ensure!(done.status.success() && both(&done).contains("kept"), "{done:?}");
    ensure!(!daemon.pins().exists() && !daemon.cgroup().exists() && !daemon.room().join("run").exists());
    ensure!(daemon.database().exists(), "the record is gone");
    ensure!(commands(&daemon)? == ["uninstall"], "{:?}", commands(&daemon)?);
    let purged = with_config(&daemon, &["uninstall", "--purge-record"])?;
    ensure!(purged.status.success() && !daemon.database().exists(), "{purged:?}");
    daemon.finish()
}

#[test]
fn a_binary_says_whether_it_can_take_over() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start()?;
    let same = with_config(&daemon, &["upgrade", "--check"])?;
    ensure!(same.status.success() && both(&same).contains("it can take over"), "{same:?}");
    let other = daemon.pins().join("v0");
    fs::create_dir(&other)?;
    let layout = with_config(&daemon, &["upgrade", "--check"])?;
    fs::remove_dir(&other)?;
    ensure!(!layout.status.success() && both(&layout).contains("has the layout `v0`"), "{layout:?}");
    daemon.finish()
}

/// A later version launched it: what isn't understood isn't ended.
#[test]
fn a_workload_that_cant_be_read_lives_on() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start()?;
    let mut launched = daemon.run(&["sleep", "60"]).stdin(Stdio::null()).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let launch = loop {
        let list = daemon.json(&["workloads", "list"])?;
        let crm = list.as_array().context("a list")?.iter().find(|one| one["workload"] == "crm").cloned();
        match crm {
            Some(crm) => break crm["launch"].as_str().context("a launch")?.to_owned(),
            None => ensure!(Instant::now() < deadline, "it isn't launched"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let file = daemon.room().join("run/workloads").join(&launch).join("launch.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
    state["version"] = 99.into();
    fs::write(&file, state.to_string())?;
    let check = with_config(&daemon, &["upgrade", "--check"])?;
    ensure!(!check.status.success() && both(&check).contains(&launch), "{check:?}");
    daemon.kill9()?;
    daemon.restart()?;
    let cgroup = daemon.cgroup().join("workloads").join(&launch);
    ensure!(!fs::read_to_string(cgroup.join("cgroup.procs"))?.is_empty(), "it was ended:\n{}", daemon.log());
    ensure!(file.exists() && daemon.pins().join("v1").join(&launch).join("link").exists(), "it isn't held any more");
    // Once it has ended, what it left is removed as any other's.
    fs::write(cgroup.join("cgroup.kill"), "1")?;
    launched.wait()?;
    daemon.kill9()?;
    daemon.restart()?;
    ensure!(!file.exists() && !cgroup.exists(), "something of it is left");
    daemon.finish()
}

#[test]
fn a_binary_cant_take_over_what_it_doesnt_understand() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start()?;
    daemon.stop()?;
    let text = fs::read_to_string(daemon.config())?;
    fs::write(daemon.config(), format!("{text}\n[nonsense]\n"))?;
    let broken = with_config(&daemon, &["upgrade", "--check"])?;
    ensure!(!broken.status.success() && both(&broken).contains("nonsense"), "{}", both(&broken));
    fs::write(daemon.config(), text)?;
    let record = rusqlite::Connection::open(daemon.database())?;
    let version: i64 = record.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    record.pragma_update(None, "user_version", version + 1)?;
    drop(record);
    let newer = with_config(&daemon, &["upgrade", "--check"])?;
    ensure!(!newer.status.success() && both(&newer).contains("the record can't be used"), "{}", both(&newer));
    daemon.finish()
}

#[test]
fn a_units_drop_in_is_shown_before_it_is_written() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start()?;
    let shown = with_config(&daemon, &["adopt", "--unit", "interceptor-test-nowhere.service", "--dry-run"])?;
    let said = both(&shown);
    ensure!(shown.status.success() && said.contains("NoNewPrivileges=yes") && said.contains("[[workload]]"), "{said}");
    ensure!(said.contains(&format!("SSL_CERT_FILE={}", daemon.room().join("run/trust.pem").display())), "{said}");
    let wrong = with_config(&daemon, &["adopt", "--unit", "nowhere"])?;
    ensure!(!wrong.status.success() && both(&wrong).contains("name it in full"), "{wrong:?}");
    daemon.finish()
}
