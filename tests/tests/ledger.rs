//! The ledger of launched workloads: what is counted outlives the daemon, goes with the workload, and fits what is recorded;
//! what gets past the proxy shows.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::bpf::Kernel;
use interceptor::clock::{Clock, SystemClock};
use interceptor::config::RecordSettings;
use interceptor::ids::{LaunchId, SessionId};
use interceptor::record::Record;
use interceptor::record::event::{Change, Counts, Event, Handled, Ledger, What};
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::netns::Namespace;
use interceptor_tests::{binary, recorded, require_root};

struct Scene {
    _graph: Graph,
    _allowed: UnixListener,
    daemon: Daemon,
    running: Child,
    output: PathBuf,
    launch: String,
}

impl Scene {
    /// A daemon with a workload that runs this; `$0` is the probe, and `$1` a unix socket that it may connect to.
    fn start(script: &str) -> Result<Self> {
        let graph = Graph::start(&[])?;
        let workload = "unix = [\"/var/lib/{name}/nobody.sock\"]\n".to_owned();
        let order = Order { bring: vec!["probe"], purpose: "ledger", workload, ..Order::for_graph(&graph, READ_ONLY) };
        let daemon = Daemon::start(&order)?;
        let socket = daemon.room().join("nobody.sock");
        let allowed = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
        let socket = socket.to_str().context("a path in UTF-8")?;
        let probe = daemon.binary("probe");
        let probe = probe.to_str().context("a path in UTF-8")?;
        let output = daemon.room().join("output");
        let running = daemon
            .run(&["/bin/sh", "-c", script, probe, socket])
            .stdout(fs::File::create(&output)?)
            .stdin(Stdio::null())
            .spawn()?;
        let mut scene = Self { _graph: graph, _allowed: allowed, daemon, running, output, launch: String::new() };
        let launch = || -> Result<Option<String>> {
            Ok(scene.daemon.json(&["workloads", "list"])?[0]["launch"].as_str().map(str::to_owned))
        };
        scene.until("it isn't launched", || Ok(launch()?.is_some()))?;
        scene.launch = launch()?.context("a launch")?;
        Ok(scene)
    }

    fn until(&self, otherwise: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so()? {
            ensure!(Instant::now() < deadline, "{otherwise}:\n{}", self.daemon.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn has_said(&self, what: &str) -> Result<bool> {
        Ok(fs::read_to_string(&self.output)?.lines().any(|line| line == what))
    }

    /// Its counts of a kind, as the daemon has them now.
    fn counts(&self, kind: &str) -> Result<serde_json::Value> {
        // It fails when something is unexplained, and prints all the same.
        let output = self.daemon.interceptor(&["ledger", "--json"]).output()?;
        let ledger: serde_json::Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        let found = ledger.as_array().context("a list")?.iter().find(|one| one["launch"] == self.launch.as_str());
        Ok(found.with_context(|| format!("no counts: {ledger}"))?["kinds"][kind].clone())
    }

    /// What is recorded of it, compared with its sessions, and whether that succeeds.
    fn reconciled(&self) -> Result<Option<(serde_json::Value, bool)>> {
        let database = self.daemon.database().display().to_string();
        let output = self.daemon.interceptor(&["ledger", "--json", "--db", &database]).output()?;
        let ledger: serde_json::Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        let found = ledger.as_array().context("a list")?.iter().find(|one| one["launch"] == self.launch.as_str());
        Ok(found.map(|found| (found.clone(), output.status.success())))
    }

    /// The counts of its connects, as they are recorded.
    fn recorded(&self) -> Result<Option<serde_json::Value>> {
        Ok(self.reconciled()?.map(|(found, _)| found["kinds"]["tcp"].clone()))
    }

    /// Its last counts, once they are recorded, as [`reconciled`](Self::reconciled).
    fn last(&self) -> Result<(serde_json::Value, bool)> {
        let is_last =
            || -> Result<bool> { Ok(self.reconciled()?.is_some_and(|(found, _)| found["handled"]["last"] == true)) };
        self.until("its last counts aren't recorded", is_last)?;
        self.reconciled()?.context("counts")
    }

    /// Its process 1.
    fn pid(&self) -> Result<u32> {
        let pid = self.daemon.json(&["workloads", "list"])?[0]["pid"].as_u64().context("a pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// Ends the workload, and waits until whoever launched it knows.
    fn end(&mut self) -> Result<()> {
        fs::write(self.daemon.cgroup().join("workloads").join(&self.launch).join("cgroup.kill"), "1")?;
        // It ends with its workload, or now.
        let _ = self.running.kill();
        self.running.wait()?;
        Ok(())
    }
}

/// Takes the steering away as an administrator could, so that the workload's own listener answers.
#[test]
fn what_is_unexplained_stays_so_after_a_restart() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::start(r#""$0" slip 198.51.100.7:8443; sleep 300"#)?;
    let link = scene.daemon.pins().join("v1").join(&scene.launch).join("link");
    scene.until("no hole was opened", || {
        // It may be gone already.
        let _ = fs::remove_file(&link);
        scene.has_said("ok")
    })?;
    scene.until("it isn't steered again", || Ok(link.exists()))?;
    let before = scene.counts("tcp")?;
    ensure!(before["unexplained"].as_u64().is_some_and(|count| count > 0), "{before}");
    scene.daemon.kill9()?;
    scene.daemon.restart_despite("ledger-unexplained")?;
    let after = scene.counts("tcp")?;
    ensure!(after == before, "{before}, and then {after}");
    scene.end()?;
    scene.until("its end isn't recorded", || Ok(scene.recorded()?.as_ref() == Some(&before)))?;
    scene.daemon.finish()
}

/// Answers who came to a listener that doesn't wait, if somebody did; how many that were.
fn answer(listener: &TcpListener) -> Result<u64> {
    let Ok((mut stream, _peer)) = listener.accept() else { return Ok(0) };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let _length = stream.read(&mut [0; 16])?;
    stream.write_all(b"here")?;
    Ok(1)
}

/// Whether at least so many are unexplained.
fn are_unexplained(counts: &serde_json::Value, least: u64) -> bool {
    least > 0 && counts["unexplained"].as_u64().is_some_and(|count| count >= least)
}

/// Root lays a wire from the workload's namespace to somebody who answers. All hooks are in place, and see nothing wrong.
#[test]
fn a_way_out_that_root_lays_shows_at_once_and_in_the_record() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::start(r#"while :; do "$0" tcp plain 198.51.100.7:443; sleep 0.05; done"#)?;
    scene.until("it isn't steered", || scene.has_said("ECONNRESET"))?;
    let before = scene.counts("tcp")?;
    ensure!(before["unexplained"] == 0, "{before}");
    let (inside, outside) = (Namespace::of(scene.pid()?)?, Namespace::new()?);
    outside.lay_wire(&inside, "198.51.100.7/24")?;
    let listener = outside.run(|| TcpListener::bind("198.51.100.7:443"))?;
    listener.set_nonblocking(true)?;
    // Nearer than what makes every address the namespace's own.
    inside.ip("addr add 198.51.100.1/24 dev hole")?;
    inside.ip("link set hole up")?;
    let answered = Cell::new(0);
    scene.until("it doesn't get out", || {
        answered.set(answered.get() + answer(&listener)?);
        scene.has_said("ok")
    })?;
    let tcp = scene.counts("tcp")?;
    ensure!(are_unexplained(&tcp, answered.get()), "{} were answered: {tcp}", answered.get());
    let status = scene.daemon.json(&["status"])?;
    ensure!(status["causes"].to_string().contains("ledger-unexplained"), "{status}");
    ensure!(!scene.daemon.interceptor(&["ledger"]).output()?.status.success(), "it says that something is wrong");
    scene.end()?;
    let (last, is_right) = scene.last()?;
    ensure!(are_unexplained(&last["kinds"]["tcp"], answered.get()) && !is_right, "{last}");
    scene.daemon.finish()
}

/// The same for what isn't TCP: that it leaves is enough, because nobody has to answer it.
#[test]
fn datagrams_that_leave_by_a_way_that_root_lays_show_at_once_and_in_the_record() -> Result<()> {
    require_root!(Ok(()));
    let to = ["198.51.100.7:4500", "198.51.100.7:53"];
    let script = format!(
        r#"while :; do "$0" udp-to {} && "$0" udp-to {} && echo sent; "$0" udp-own; sleep 0.05; done"#,
        to[0], to[1]
    );
    let mut scene = Scene::start(&script)?;
    let unexplained =
        |scene: &Scene, kind| -> Result<u64> { Ok(scene.counts(kind)?["unexplained"].as_u64().unwrap_or_default()) };
    scene.until("it sends nothing", || scene.has_said("sent"))?;
    scene.until("no datagram is counted", || {
        Ok(scene.counts("udp")?["refused"].as_u64().is_some_and(|count| count > 0))
    })?;
    ensure!(unexplained(&scene, "udp")? == 0 && unexplained(&scene, "dns")? == 0, "before there is a way out");
    ensure!(scene.daemon.interceptor(&["ledger"]).output()?.status.success(), "nothing is wrong yet");
    let (inside, outside) = (Namespace::of(scene.pid()?)?, Namespace::new()?);
    outside.lay_wire(&inside, "198.51.100.7/24")?;
    let sockets = outside
        .run(|| -> Result<Vec<UdpSocket>> { to.iter().map(|address| Ok(UdpSocket::bind(address)?)).collect() })?;
    inside.ip("addr add 198.51.100.1/24 dev hole")?;
    inside.ip("link set hole up")?;
    for socket in &sockets {
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        // Three, because it goes on: not only the first of them is counted.
        for _ in 0..3 {
            socket.recv(&mut [0; 16]).context("nothing leaves")?;
        }
    }
    for kind in ["udp", "dns"] {
        ensure!(unexplained(&scene, kind)? >= 3, "{kind}: {}", scene.counts(kind)?);
    }
    // What the kernel itself sends when an interface comes up is nobody's.
    ensure!(scene.counts("packet")?.is_null(), "{}", scene.counts("packet")?);
    ensure!(scene.counts("tcp")?.is_null(), "{}", scene.counts("tcp")?);
    let status = scene.daemon.json(&["status"])?;
    ensure!(status["causes"].to_string().contains("ledger-unexplained"), "{status}");
    ensure!(
        scene.daemon.interceptor(&["ledger"]).output()?.status.code() == Some(1),
        "it says that something is wrong"
    );
    scene.end()?;
    let (last, is_right) = scene.last()?;
    for kind in ["udp", "dns"] {
        let counts = &last["kinds"][kind];
        ensure!(are_unexplained(counts, 3) && !is_right, "{last}");
    }
    // What goes to its own sockets doesn't leave.
    ensure!(last["kinds"]["udp"]["allowed"].as_u64().is_some_and(|count| count > 0), "{last}");
    scene.daemon.finish()
}

/// Root listens in the workload's namespace, and takes the steering away that leads past him.
#[test]
fn who_listens_in_its_namespace_is_reached_by_a_hole_only_which_shows_and_is_closed() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::start(r#"while :; do "$0" tcp plain 198.51.100.7:8443; sleep 0.05; done"#)?;
    scene.until("it isn't steered", || scene.has_said("ECONNRESET"))?;
    let listener = Namespace::of(scene.pid()?)?.run(|| TcpListener::bind("0.0.0.0:8443"))?;
    listener.set_nonblocking(true)?;
    let steered = scene.counts("tcp")?["mediated"].as_u64().context("a count")?;
    scene.until("it stands still", || Ok(scene.counts("tcp")?["mediated"].as_u64() > Some(steered + 3)))?;
    ensure!(answer(&listener)? == 0, "it is led to somebody else");
    let link = scene.daemon.pins().join("v1").join(&scene.launch).join("link");
    let answered = Cell::new(0);
    scene.until("no hole was opened", || {
        // It may be gone already.
        let _ = fs::remove_file(&link);
        answered.set(answered.get() + answer(&listener)?);
        scene.has_said("ok")
    })?;
    scene.until("it isn't steered again", || Ok(link.exists()))?;
    let tcp = scene.counts("tcp")?;
    ensure!(are_unexplained(&tcp, answered.get()), "{} were answered: {tcp}", answered.get());
    scene.end()?;
    let (last, is_right) = scene.last()?;
    ensure!(are_unexplained(&last["kinds"]["tcp"], answered.get()) && !is_right, "{last}");
    // While it was put right it stood still.
    let events = recorded::events(&scene.daemon.database(), 0)?;
    let are_recorded = |is_so: fn(&Change) -> bool| {
        events.iter().any(|(_, event)| match &event.what {
            What::Adoption(adoption) => adoption.launch.to_string() == scene.launch && is_so(&adoption.change),
            _ => false,
        })
    };
    ensure!(are_recorded(|change| matches!(change, Change::Detached { .. })), "that it was gone isn't recorded");
    ensure!(are_recorded(|change| matches!(change, Change::Repaired { .. })), "that it is back isn't recorded");
    scene.daemon.finish()
}

#[test]
fn what_was_taken_is_recorded_but_for_look_ups() -> Result<()> {
    require_root!(Ok(()));
    let attempts = r#""$0" tcp plain 198.51.100.7:443; "$0" tcp plain 198.51.100.7:444; "$0" connect 198.51.100.7:53"#;
    let mut scene = Scene::start(&format!("{attempts}; echo done; sleep 300"))?;
    scene.until("it doesn't get that far", || scene.has_said("done"))?;
    scene.end()?;
    let (found, is_right) = scene.last()?;
    ensure!(found["kinds"]["tcp"]["mediated"] == 3 && found["recorded"] == 2 && is_right, "{found}");
    let handled = &found["handled"];
    ensure!(handled["unrecorded"] == 1 && handled["unsure"] == 0, "{found}");
    let database = scene.daemon.database().display().to_string();
    let table = scene.daemon.ask(&["ledger", "--db", &database])?;
    ensure!(table.contains("RECORDED"), "{table}");
    scene.daemon.finish()
}

/// The file with its numbers is lost, as where there was no room for it: what is counted from then on isn't all of it.
#[test]
fn what_is_counted_anew_isnt_compared_with_the_record() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::start(r#""$0" tcp plain 198.51.100.7:443; sleep 300"#)?;
    scene.until("it isn't steered", || scene.has_said("ECONNRESET"))?;
    scene.daemon.kill9()?;
    fs::remove_file(scene.daemon.room().join("run/workloads").join(&scene.launch).join("taken"))?;
    scene.daemon.restart()?;
    scene.until("its counts aren't recorded", || Ok(scene.recorded()?.is_some_and(|tcp| tcp["dropped"] == 1)))?;
    let (found, is_right) = scene.reconciled()?.context("counts")?;
    ensure!(found["sessions"] == 1 && found["handled"].is_null() && found["recorded"].is_null(), "{found}");
    ensure!(is_right, "nothing is known to be wrong");
    scene.end()?;
    scene.daemon.finish()
}

/// The segment of a journal of the product's own, with this event.
fn segment(event: &Event) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let settings = RecordSettings { reserve: 0, ..RecordSettings::default() };
    let record = Record::open(folder.path(), &settings, Arc::new(SystemClock))?;
    let journal = record.journal("worker-1")?;
    let _recorded = journal.append(event)?;
    // What it has moved it keeps until the journal begins another one.
    let mut all = fs::read_dir(folder.path().join("journal"))?;
    Ok(fs::read(all.next().context("a segment")??.path())?)
}

/// The product's own writer, and a session that it isn't told of.
#[test]
fn a_session_that_isnt_in_the_record_is_missed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = RecordSettings { reserve: 0, ..RecordSettings::default() };
    let record = Record::open(folder.path(), &settings, Arc::new(SystemClock))?;
    let journal = record.journal("worker-0")?;
    let note = |what: What| -> Result<()> {
        let _recorded = journal.append(&Event { at: SystemClock.now(), what })?;
        Ok(record.flush(Duration::from_secs(10))?)
    };
    let launch = LaunchId::new();
    let opened = || -> Result<What> {
        Ok(What::SessionOpened {
            session: SessionId::new(),
            launch,
            workload: "crm".parse()?,
            process: None,
            original: "198.18.0.1:443".parse()?,
            host: None,
            target: None,
        })
    };
    let session = || note(opened()?);
    let ledger = |more: &[&str]| -> Result<Output> {
        let mut command = Command::new(binary::find("interceptor")?);
        Ok(command.arg("ledger").args(more).arg("--db").arg(record.database()).stdin(Stdio::null()).output()?)
    };
    note(What::WorkloadStarted {
        launch,
        workload: "crm".parse()?,
        initiator: 1000,
        loginuid: None,
        uid: 1000,
        pid: 42,
        command: "/usr/bin/crm-mcp".into(),
        containment: "contained".into(),
    })?;
    session()?;
    session()?;
    let counts = Counts { attempted: 3, mediated: 3, ..Counts::default() };
    let handled = Handled { at: SystemClock.now(), unrecorded: 0, unsure: 0, last: true };
    let kinds = [("tcp".to_owned(), counts)].into();
    note(What::Ledger(Ledger { launch, workload: "crm".parse()?, kinds, handled: Some(handled) }))?;
    note(What::WorkloadEnded { launch, status: "exit 0".into() })?;
    let output = ledger(&["--json"])?;
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(output.status.code() == Some(1) && found[0]["recorded"] == 2, "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("3 have to be in the record as sessions, and 2 are"), "{said}");
    let table = ledger(&[])?;
    ensure!(table.status.code() == Some(1), "{table:?}");
    // It may be in a journal that a killed daemon left: nobody knows before another one has read it.
    let left = segment(&Event { at: SystemClock.now(), what: opened()? })?;
    let place = folder.path().join("journal/worker-1-left.seg");
    fs::write(&place, &left)?;
    let output = ledger(&["--json"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains("or not in the database yet"), "{output:?}");
    ensure!(!said.contains("have to be in the record"), "it isn't known to be missing: {said}");
    fs::remove_file(&place)?;
    session()?;
    let output = ledger(&["--json"])?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn unix_sockets_are_counted_whether_a_rule_allows_them_or_not() -> Result<()> {
    require_root!(Ok(()));
    let script = r#""$0" connect-unix "$1"; "$0" connect-unix "$1"; "$0" connect-unix /nowhere; echo done; sleep 300"#;
    let mut scene = Scene::start(script)?;
    scene.until("it doesn't get that far", || scene.has_said("done"))?;
    ensure!(scene.has_said("ok")? && scene.has_said("EACCES")?, "{}", fs::read_to_string(&scene.output)?);
    let unix = scene.counts("unix")?;
    ensure!(unix["attempted"] == 3 && unix["allowed"] == 2 && unix["refused"] == 1, "{unix}");
    scene.end()?;
    scene.daemon.finish()
}

/// Only TCP is steered: what else it sends gets to its own sockets, or to none. What the filter on system calls refuses no
/// hook sees, so process 1 counts it.
#[test]
fn what_isnt_tcp_is_counted_as_what_became_of_it() -> Result<()> {
    require_root!(Ok(()));
    let raw = format!("{} {} {} {}", libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP);
    let packet = format!("{} {} {} 0", libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW);
    let pair = format!("{} {} {} 0", libc::SYS_socketpair, libc::AF_TIPC, libc::SOCK_STREAM);
    let script = format!(
        r#""$0" udp 198.51.100.7:443; "$0" udp-to 198.51.100.7:443; "$0" udp-to '[2001:db8::7]:443'; "$0" udp-own
        "$0" dns plain 198.51.100.7:53; "$0" syscall {raw}; "$0" syscall {packet}
        "$0" {vsock}; "$0" syscall {pair}; echo done; sleep 300"#,
        vsock = vsock()
    );
    let mut scene = Scene::start(&script)?;
    scene.until("it doesn't get that far", || scene.has_said("done"))?;
    let said = fs::read_to_string(&scene.output)?;
    let said: Vec<&str> = said.lines().collect();
    let datagrams = ["ECONNREFUSED", "ok", "ok", "ok", "answered by 198.51.100.7:53"];
    let sockets = ["EPERM", "EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT"];
    ensure!(said == [&datagrams[..], &sockets, &["done"]].concat(), "{said:?}");
    let udp = scene.counts("udp")?;
    ensure!(udp["attempted"] == 4 && udp["refused"] == 3 && udp["allowed"] == 1, "{udp}");
    let dns = scene.counts("dns")?;
    ensure!(dns["attempted"] == 1 && dns["mediated"] == 1, "{dns}");
    ensure!(udp["unexplained"] == 0 && dns["unexplained"] == 0, "{udp} {dns}");
    for (kind, times) in [("raw", 1), ("packet", 1), ("other", 2)] {
        let counts = scene.counts(kind)?;
        ensure!(counts["attempted"] == times && counts["refused"] == times, "{kind}: {counts}");
    }
    scene.end()?;
    scene.daemon.finish()
}

/// How the probe is told to make the socket that nothing but the filter refuses to an unprivileged process.
fn vsock() -> String {
    format!("syscall {} {} {} 0", libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM)
}

/// Process 1 answers while there is no daemon; each call is counted once.
#[test]
fn what_the_filter_refuses_is_counted_while_no_daemon_runs_and_to_the_end() -> Result<()> {
    require_root!(Ok(()));
    const LOOPS: u64 = 4;
    let script = format!(r#"for i in 1 2 3 4; do (while :; do "$0" {}; done) & done; wait"#, vsock());
    let mut scene = Scene::start(&script)?;
    let refused = |scene: &Scene| -> Result<u64> {
        let said = fs::read_to_string(&scene.output)?;
        ensure!(said.lines().all(|line| line == "EAFNOSUPPORT"), "{said}");
        Ok(said.lines().count().try_into()?)
    };
    scene.until("nothing is refused", || Ok(refused(&scene)? > 10))?;
    scene.daemon.kill9()?;
    let before = refused(&scene)?;
    scene.until("nothing is refused while no daemon runs", || Ok(refused(&scene)? > before + 50))?;
    scene.daemon.restart()?;
    scene.end()?;
    let (last, is_right) = scene.last()?;
    let (other, refused) = (&last["kinds"]["other"], refused(&scene)?);
    // Each loop may have been ended before it said so.
    let is_all = other["refused"].as_u64().is_some_and(|count| (refused..=refused + LOOPS).contains(&count));
    ensure!(is_all && other["refused"] == other["attempted"], "{refused} were refused: {last}");
    ensure!(is_right && other["unexplained"] == 0, "{last}");
    scene.daemon.finish()
}

#[test]
fn what_ends_while_no_daemon_runs_is_counted_and_leaves_nothing() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::start(r#""$0" tcp plain 198.51.100.7:443; sleep 300"#)?;
    scene.until("it isn't steered", || scene.has_said("ECONNRESET"))?;
    ensure!(scene.recorded()?.is_none(), "it is recorded before it ends");
    scene.daemon.kill9()?;
    scene.end()?;
    scene.daemon.restart()?;
    let (last, is_right) = scene.last()?;
    let tcp = &last["kinds"]["tcp"];
    ensure!(tcp["attempted"] == 1 && tcp["mediated"] == 1 && tcp["unexplained"] == 0, "{tcp}");
    ensure!(last["recorded"] == 1 && last["handled"]["unsure"] == 0 && is_right, "{last}");
    ensure!(scene.daemon.stop()?.success());
    let kernel = Kernel::load(scene.daemon.pins(), &scene.daemon.cgroup().join("workloads"))?;
    ensure!(kernel.spaces()?.is_empty(), "the kernel keeps something of {:?}", kernel.spaces()?);
    scene.daemon.finish()
}
