//! The ledger: what the kernel counted, beside what the proxy handled.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::bpf::adopt::{Adopter, Doors};
use interceptor::record::event::{Change, What};
use interceptor::transport::namespace::{self, Sockets};
use interceptor_tests::adopted::{NUMBER, Scene};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::unit::{Unit, said};
use interceptor_tests::{recorded, require_root};

use super::daemon::{listed, start};

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

/// The ends of sessions and, between them, what was recorded of the ledger of `svc`: how many were mediated by then.
fn ends(daemon: &Daemon) -> Result<Vec<Option<u64>>> {
    let events = recorded::events(&daemon.database(), 0)?.into_iter();
    let ends = events.filter_map(|(_, event)| match event.what {
        What::SessionClosed { .. } => Some(None),
        What::Ledger(ledger) if ledger.workload.as_str() == "svc" => Some(Some(ledger.mediated())),
        _ => None,
    });
    Ok(ends.collect())
}

/// Nobody has to wait for the minute to be over, nor for counts that are news.
#[test]
fn the_counts_are_recorded_whenever_a_session_has_ended() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("ledger", "")?;
    let unit = Unit::new(&daemon)?;
    let until = |wanted: &[Option<u64>]| -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while ends(&daemon)? != wanted {
            ensure!(Instant::now() < deadline, "{:?} are recorded", ends(&daemon)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    let mut long = unit.command(daemon.binary("wire"));
    let mut long = long.args(["graph.microsoft.com", "443", "tls"]).stdin(Stdio::piped()).spawn()?;
    let asks = b"GET /v1.0/users HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n";
    long.stdin.as_mut().context("its input")?.write_all(asks)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while listed(&daemon)?["connections"] != 1 {
        ensure!(Instant::now() < deadline, "it isn't connected");
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    until(&[None, Some(2)])?;
    drop(long.stdin.take());
    long.wait()?;
    until(&[None, Some(2), None, Some(2)])?;
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
    let deadline = Instant::now() + Duration::from_secs(30);
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

/// Reloads without the workload `svc`, and gives the configuration with it.
fn release(daemon: &Daemon) -> Result<String> {
    let text = fs::read_to_string(daemon.config())?;
    let at = text.find("[[workload]]\nname = \"svc\"").context("the table")?;
    fs::write(daemon.config(), &text[..at])?;
    daemon.ask(&["policy", "reload"])?;
    Ok(text)
}

#[test]
fn counts_are_recorded_when_it_is_let_go_of_and_are_not_the_next_ones() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("ledger", "")?;
    let unit = Unit::new(&daemon)?;
    for _ in 0..2 {
        ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    }
    ensure!(unit.attempt(&["connect-abstract", "nobody"])? == "EACCES");
    let text = release(&daemon)?;
    let database = daemon.database().display().to_string();
    recorded::last(&daemon.database())?;
    let found = daemon.json(&["ledger", "--db", &database])?;
    let svc = found.as_array().context("a list")?.iter().find(|one| one["workload"] == "svc").cloned();
    let svc = svc.with_context(|| format!("it isn't recorded: {found}"))?;
    ensure!(
        svc["kinds"]["tcp"]["mediated"] == 2 && svc["sessions"] == 2 && svc["kinds"]["unix"]["refused"] == 1,
        "{svc}"
    );
    // Adopted again it is another one.
    fs::write(daemon.config(), text)?;
    daemon.ask(&["policy", "reload"])?;
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    ensure!(unit.attempt(&["connect-abstract", "nobody"])? == "EACCES");
    let tcp = counts(&daemon, "svc", "tcp")?;
    ensure!(tcp["attempted"] == 1 && tcp["mediated"] == 1 && tcp["unexplained"] == 0, "{tcp}");
    ensure!(counts(&daemon, "svc", "unix")?["refused"] == 1);
    unit.remove()?;
    daemon.finish()
}

#[test]
fn an_allowed_unix_socket_is_counted_as_allowed() -> Result<()> {
    require_root!(Ok(()));
    let folder = tempfile::Builder::new().prefix("interceptor-ledger-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let socket = folder.path().join("allowed");
    let _listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
    let (_graph, daemon) = start("ledger", &format!("unix = [{socket:?}]\n"))?;
    let unit = Unit::new(&daemon)?;
    let socket = socket.to_str().context("a path in UTF-8")?;
    ensure!(unit.attempt(&["connect-unix", socket])? == "ok", "{}", daemon.log());
    ensure!(unit.attempt(&["connect-unix", "/nowhere"])? == "EACCES");
    let unix = counts(&daemon, "svc", "unix")?;
    ensure!(unix["attempted"] == 2 && unix["allowed"] == 1 && unix["refused"] == 1, "{unix}");
    unit.remove()?;
    daemon.finish()
}

/// All hooks, by the names of their pins.
const HOOKS: [&str; 20] = [
    "publish",
    "egress",
    "create",
    "device",
    "option",
    "bind4",
    "bind6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "sendmsg4",
    "sendmsg6",
    "connect4",
    "connect6",
    "unix_connect",
    "unix_sendmsg",
    "made",
    "released",
    "changed",
];

#[test]
fn every_hook_that_is_taken_away_is_back_within_two_seconds() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("ledger", "")?;
    let unit = Unit::new(&daemon)?;
    let most = Duration::from_secs(2);
    let mut slowest = Duration::ZERO;
    for pin in HOOKS.map(|name| daemon.pins().join("v1/adopt").join(name)) {
        let start = Instant::now();
        fs::remove_file(&pin)?;
        while !pin.exists() {
            ensure!(start.elapsed() < most, "`{}` isn't back:\n{}", pin.display(), daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        slowest = slowest.max(start.elapsed());
    }
    // The pin is there all the time, and what it is for is not.
    let pin = daemon.pins().join("v1/adopt/connect4");
    let before = fs::metadata(&pin)?.ino();
    let start = Instant::now();
    let detached = said(Command::new(daemon.binary("probe")).arg("detach").arg(&pin))?;
    ensure!(detached == "ok", "{detached}");
    // A dead link can't be mended: another one takes its place.
    while fs::metadata(&pin)?.ino() == before {
        ensure!(start.elapsed() < most, "it isn't back:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    slowest = slowest.max(start.elapsed());
    println!("the hooks were back after {slowest:?} at most");
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    unit.remove()?;
    daemon.finish()
}

/// A process that doesn't outlive its test, however that ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_cant_be_put_back_freezes_it_until_it_can() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("ledger", "")?;
    let unit = Unit::new(&daemon)?;
    let output = daemon.room().join("output");
    // A connect that the missing hook let by waits for an answer that it can't get: the gate drops it.
    let script = r#"while :; do timeout 1 "$0" tcp plain 198.51.100.7:443; sleep 0.1; done"#;
    let mut inside = unit.command("/bin/sh");
    let inside = inside.args(["-c", script]).arg(daemon.binary("probe")).stdout(fs::File::create(&output)?).spawn()?;
    let inside = Killed(inside);
    let said = || -> Result<usize> { Ok(fs::read_to_string(&output)?.len()) };
    let is_frozen = || -> Result<bool> {
        Ok(fs::read_to_string(unit.cgroup.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"))
    };
    let broken = || changes(&daemon, |change| matches!(change, Change::Broken { .. }));
    let repaired = || changes(&daemon, |change| matches!(change, Change::Repaired { .. }));
    let until = |otherwise: &str, is_so: &dyn Fn() -> Result<bool>| -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so()? {
            ensure!(Instant::now() < deadline, "{otherwise}:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    until("it isn't adopted", &|| Ok(said()? > 0))?;
    let pin = daemon.pins().join("v1/adopt/connect4");
    loop {
        // The watchdog may be faster.
        match fs::remove_file(&pin).and_then(|()| fs::create_dir(&pin)) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => break other?,
        }
    }
    until("that it can't be put right isn't recorded", &|| Ok(broken()? == 1))?;
    until("it isn't frozen", &is_frozen)?;
    let status = daemon.json(&["status"])?;
    ensure!(status["causes"].to_string().contains("hooks-gone"), "{status}");
    let (before, repairs) = (said()?, repaired()?);
    std::thread::sleep(Duration::from_millis(2500));
    ensure!(is_frozen()? && said()? == before && broken()? == 1 && repaired()? == repairs, "it goes on");
    fs::remove_dir(&pin)?;
    until("it is frozen still", &|| Ok(!is_frozen()?))?;
    ensure!(pin.is_file(), "it goes on without a hook");
    until("that isn't recorded", &|| Ok(repaired()? == repairs + 1))?;
    until("it stands still", &|| Ok(said()? > before))?;
    let status = daemon.json(&["status"])?;
    ensure!(!status["causes"].to_string().contains("hooks-gone"), "{status}");
    drop(inside);
    unit.remove()?;
    daemon.finish()
}

/// Whoever swaps the program of a link leaves the link where it is.
#[test]
fn a_program_that_is_swapped_under_its_link_is_missed() {
    require_root!();
    let scene = Scene::new();
    assert_eq!(scene.adopter.missing(), [""; 0]);
    let other = Adopter::load(&scene.pins.path).unwrap();
    assert_eq!(other.missing(), [""; 0]);
    let missing = scene.adopter.missing();
    assert!(HOOKS[..13].iter().chain(&HOOKS[15..]).all(|hook| missing.contains(hook)), "{missing:?}");
    scene.adopter.repair().unwrap();
    assert_eq!(scene.adopter.missing(), [""; 0]);
}

/// A connect that can't be noted down any more would be answered, and nobody could tell by whom.
#[test]
fn connects_without_number_are_refused_before_they_are_unexplained() {
    require_root!();
    let scene = Scene::new();
    // The daemon's sockets take nobody: what has no room to wait stays under way.
    scene.acceptor.remove(scene.workload.id);
    let netns = fs::File::open("/proc/self/ns/net").unwrap();
    let (Sockets { tcp4, tcp6, dns4, dns6 }, _diagnosis) = namespace::open_beside(netns.as_fd()).unwrap();
    let doors = Doors { tcp4: &tcp4, tcp6: &tcp6, dns4: &dns4, dns6: &dns6 };
    scene.adopter.open_doors(NUMBER, scene.cookie, &doors).unwrap();
    let output =
        scene.inside(env!("CARGO_BIN_EXE_probe")).args(["crowd", "198.51.100.7:443", "24000"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "refused", "{output:?}");
    let tallies = scene.adopter.tallies().unwrap();
    // The kernel's counts, by `Fate`.
    let [refused, arrived, established, lost] =
        [1, 4, 6, 7].map(|fate| tallies.iter().filter(|one| one.fate == fate).map(|one| one.count).sum::<u64>());
    assert_eq!(refused, 1);
    assert_eq!(established, arrived + lost, "some are unexplained");
}

/// How many changes like this are recorded.
fn changes(daemon: &Daemon, is_so: impl Fn(&Change) -> bool) -> Result<usize> {
    let events = recorded::events(&daemon.database(), 0)?;
    let is_one = |what: &What| matches!(what, What::Adoption(adoption) if is_so(&adoption.change));
    Ok(events.iter().filter(|(_, event)| is_one(&event.what)).count())
}

/// Whether a connection came to it.
fn listener_has(listener: &std::net::TcpListener) -> Result<bool> {
    listener.set_nonblocking(true)?;
    Ok(listener.accept().is_ok())
}
