//! A service under a real daemon: nobody launched it, and it is governed all the same.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::Change;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use interceptor_tests::unit::{ADOPTED, Unit, said};

use super::told::{adoptions, changes, path};

pub(crate) fn start(purpose: &'static str, more: &str) -> Result<(Graph, Daemon)> {
    start_with(purpose, &format!("{ADOPTED}{more}"))
}

/// The same with another way to find the service.
pub(crate) fn start_with(purpose: &'static str, workload: &str) -> Result<(Graph, Daemon)> {
    let graph = Graph::start(&[])?;
    let more = format!("[limits]\ndetect_timeout = \"300ms\"\n{workload}");
    let order = Order { bring: vec!["probe", "wire"], purpose, more, ..Order::for_graph(&graph, READ_ONLY) };
    let daemon = Daemon::start(&order)?;
    Ok((graph, daemon))
}

/// The adopted workload, as it is listed.
pub(crate) fn listed(daemon: &Daemon) -> Result<serde_json::Value> {
    let list = daemon.json(&["workloads", "list"])?;
    let found = list.as_array().context("a list")?.iter().find(|one| one["workload"] == "svc").cloned();
    found.with_context(|| format!("it isn't listed: {list}"))
}

/// Waits until what is listed of it is as it should be.
pub(crate) fn until(daemon: &Daemon, is_so: impl Fn(&serde_json::Value) -> bool) -> Result<serde_json::Value> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = listed(daemon)?;
        if is_so(&found) {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "it isn't so: {found}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client of the service that asks Graph for something and prints the answer.
pub(crate) fn asking(daemon: &Daemon, unit: &Unit, method: &str) -> Command {
    let mut command = unit.command("/bin/sh");
    let script = r#"(printf '%s /v1.0/users HTTP/1.1\r\nHost: graph.microsoft.com\r\nConnection: close\r\n\r\n' "$1"; sleep 2) | "$0" graph.microsoft.com 443 tls"#;
    command.args(["-c", script]).arg(daemon.binary("wire")).arg(method);
    command
}

#[test]
fn a_service_is_decided_and_recorded_as_a_launched_workload_is() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let read = said(&mut asking(&daemon, &unit, "GET"))?;
    ensure!(read.starts_with("HTTP/1.1 200"), "{read}\n{}", daemon.log());
    let deleted = said(&mut asking(&daemon, &unit, "DELETE"))?;
    ensure!(deleted.starts_with("HTTP/1.1 403") && deleted.contains("denied-by-default"), "{deleted}");
    let sessions = daemon.json(&["sessions", "list"])?;
    let sessions = sessions.as_array().context("a list")?;
    ensure!(sessions.len() == 2 && sessions.iter().all(|one| one["workload"] == "svc"), "{sessions:?}");
    let process = &sessions[0]["process"];
    ensure!(process["comm"] == "wire" && process["pid"].as_u64().is_some_and(|pid| pid > 1), "{process}");
    let listed = until(&daemon, |one| one["adopted"].as_array().is_some_and(|cgroups| cgroups.len() == 1))?;
    ensure!(listed["containment"] == "contained", "{listed}");
    // To connect is permitted; what is asked for is not.
    ensure!(graph.connections() == 2, "{}", graph.connections());
    ensure!(adoptions(&daemon)? == ["adopted"], "{:?}", adoptions(&daemon)?);
    let own = path(&unit)?;
    let told = changes(&daemon)?;
    let is_adopted = |change: &Change| matches!(change, Change::Adopted { cgroup, image: None, .. } if *cgroup == own);
    ensure!(told.iter().filter(|change| is_adopted(change)).count() == 1, "{told:?}");
    unit.remove()?;
    until(&daemon, |one| one["adopted"].as_array().is_some_and(Vec::is_empty))?;
    let told = changes(&daemon)?;
    ensure!(told.contains(&Change::Gone { cgroup: own }), "{told:?}");
    daemon.finish()
}

#[test]
fn what_is_no_target_or_no_tcp_gets_nowhere() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    ensure!(unit.attempt(&["udp", "198.51.100.7:443"])? == "ECONNREFUSED");
    let sessions = daemon.json(&["sessions", "list"])?;
    ensure!(sessions[0]["original"] == "198.51.100.7:443" && sessions[0]["reason"] == "not-a-target", "{sessions}");
    unit.remove()?;
    daemon.finish()
}

/// What is listed once something of the service runs that lacks one thing of what contains it.
fn without(daemon: &Daemon, unit: &Unit, what: &str) -> Result<String> {
    let mut child = unit.command_but(what, "sleep").arg("60").spawn()?;
    let found = until(daemon, |one| one["containment"] == "refused");
    let status = daemon.json(&["status"]);
    child.kill()?;
    child.wait()?;
    let causes = status?["causes"].to_string();
    ensure!(causes.contains("`svc` is refused: "), "status doesn't tell: {causes}");
    let found = found?;
    until(daemon, |one| one["containment"] == "contained")?;
    Ok(found["holes"].to_string())
}

#[test]
fn what_a_process_may_that_gets_around_us_is_named_and_refused() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let lacks = [
        ("privileges", "NoNewPrivileges=yes"),
        ("families", "RestrictAddressFamilies="),
        ("io-uring", "io_uring_setup"),
        ("architectures", "SystemCallArchitectures=native"),
        ("capabilities", "CAP_NET_RAW"),
        ("user", "runs as root"),
    ];
    for (what, named) in lacks {
        let holes = without(&daemon, &unit, what)?;
        ensure!(holes.contains(named), "without {what}: {holes}");
    }
    // Each is recorded with its name, and that it is contained again.
    let contained = changes(&daemon)?.into_iter().filter_map(|change| match change {
        Change::Contained { containment, refused } => Some((containment, refused)),
        _ => None,
    });
    let contained: Vec<(String, bool)> = contained.collect();
    for (what, named) in lacks {
        let is_told = contained.iter().any(|(containment, refused)| *refused && containment.contains(named));
        ensure!(is_told, "without {what}: {contained:?}");
    }
    ensure!(contained.last() == Some(&("contained".to_owned(), false)), "{contained:?}");
    // Its very first call is refused as well, when nobody has looked at it yet.
    let mut early = unit.command_but("io-uring", daemon.binary("probe"));
    ensure!(said(early.args(["tcp", "plain", "198.51.100.7:443"]))? != "ok");
    ensure!(daemon.json(&["sessions", "list"])?.as_array().is_some_and(Vec::is_empty), "it got to be a session");
    ensure!(graph.connections() == 0);
    unit.remove()?;
    daemon.finish()
}

/// systemd and runc put a process into its cgroup as root, and make it what it is to be afterwards.
#[test]
fn what_its_manager_isnt_done_with_stops_only_itself() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let begin = |lasts: &str| unit.command_but("user", "sleep").arg(lasts).spawn();
    let is_refused = || -> Result<bool> { Ok(daemon.json(&["workloads", "list"])?[0]["containment"] == "refused") };
    // It has a second for that, with all that it takes to start it.
    let mut first = begin("0.3")?;
    while first.try_wait()?.is_none() {
        ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
        ensure!(!is_refused()?);
    }
    // Not by handing over to another one each time, either.
    let mut chain = vec![begin("0.6")?];
    let began = Instant::now();
    while !is_refused()? && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(100));
        chain.push(begin("0.6")?);
    }
    let lasted = began.elapsed();
    for mut one in chain {
        one.wait()?;
    }
    ensure!(lasted < Duration::from_secs(20), "not refused within {lasted:?}");
    until(&daemon, |one| one["containment"] == "contained")?;
    unit.remove()?;
    daemon.finish()
}

#[test]
fn another_process_of_its_user_is_a_hole_and_holes_can_be_accepted() -> Result<()> {
    require_root!(Ok(()));
    use std::os::unix::process::CommandExt;

    let (_graph, daemon) = start("adopt", "containment = \"steered\"\n")?;
    let unit = Unit::new(&daemon)?;
    let mut beside = Command::new("sleep").arg("60").uid(unit.uid).spawn()?;
    let mut inside = unit.command("sleep").arg("60").spawn()?;
    let found = until(&daemon, |one| one["containment"] == "steered");
    let answer = unit.attempt(&["tcp", "plain", "198.51.100.7:443"]);
    for child in [&mut beside, &mut inside] {
        child.kill()?;
        child.wait()?;
    }
    ensure!(found?["holes"].to_string().contains("which it can take over"));
    ensure!(answer? == "ECONNRESET", "it is steered all the same");
    unit.remove()?;
    daemon.finish()
}

#[test]
fn a_service_that_restarts_is_never_without() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    for _ in 0..20 {
        unit.remove()?;
        unit.make()?;
        ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    }
    let sessions = daemon.json(&["sessions", "list"])?;
    ensure!(sessions.as_array().is_some_and(|list| list.len() == 20), "{sessions}");
    daemon.kill9()?;
    unit.remove()?;
    unit.make()?;
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNREFUSED", "while no daemon runs");
    daemon.restart()?;
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET");
    unit.remove()?;
    daemon.finish()
}

#[test]
fn the_control_socket_is_closed_to_it() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let asking = || -> Result<String> {
        let mut command = unit.command(daemon.binary("interceptor"));
        let output = command.env("INTERCEPTOR_SOCKET", daemon.socket()).arg("status").output()?;
        ensure!(!output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    let said = asking()?;
    ensure!(said.contains("may not be used"), "it isn't an allowed unix socket: {said}");
    let text = std::fs::read_to_string(daemon.config())?;
    let allowed = format!("name = \"svc\"\nunix = [{:?}]", daemon.socket());
    std::fs::write(daemon.config(), text.replace("name = \"svc\"", &allowed))?;
    daemon.ask(&["policy", "reload"])?;
    let said = asking()?;
    ensure!(said.contains("may not use the control socket"), "{said}");
    unit.remove()?;
    daemon.finish()
}

#[test]
fn what_isnt_adopted_any_more_is_free() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    ensure!(unit.attempt(&["udp", "127.0.0.1:9"])? == "ECONNREFUSED");
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    // The kernel says that it is connected before we have accepted it.
    if unit.attempt(&["connect", &address])? == "ok" {
        let deadline = Instant::now() + Duration::from_secs(20);
        while daemon.json(&["sessions", "list"])?[0]["original"] != address.as_str() {
            ensure!(Instant::now() < deadline, "it got to somebody else:\n{}", daemon.log());
        }
    }
    let text = std::fs::read_to_string(daemon.config())?;
    let at = text.find("[[workload]]\nname = \"svc\"").context("the table")?;
    std::fs::write(daemon.config(), &text[..at])?;
    daemon.ask(&["policy", "reload"])?;
    ensure!(unit.attempt(&["connect", &address])? == "ok", "{}", daemon.log());
    ensure!(daemon.json(&["workloads", "list"])?.as_array().is_some_and(Vec::is_empty));
    ensure!(adoptions(&daemon)? == ["adopted", "released"], "{:?}", adoptions(&daemon)?);
    unit.remove()?;
    daemon.finish()
}

#[test]
fn only_allowed_unix_sockets_can_be_reached() -> Result<()> {
    require_root!(Ok(()));
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let folder = tempfile::Builder::new().prefix("interceptor-adopt-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let paths = [folder.path().join("allowed"), folder.path().join("other")];
    let mut listeners = Vec::new();
    for path in &paths {
        listeners.push(UnixListener::bind(path)?);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    let (_graph, daemon) = start("adopt", &format!("unix = [{:?}]\n", paths[0]))?;
    let unit = Unit::new(&daemon)?;
    let allowed = unit.attempt(&["connect-unix", &paths[0].display().to_string()])?;
    let other = unit.attempt(&["connect-unix", &paths[1].display().to_string()])?;
    ensure!((allowed.as_str(), other.as_str()) == ("ok", "EACCES"), "{allowed}, {other}");
    let name = format!("interceptor-adopt-{}", std::process::id());
    listeners.push(UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?);
    let hidden = unit.attempt(&["connect-abstract", &name])?;
    ensure!(hidden == "EACCES", "abstract: {hidden}");
    // Who isn't governed isn't asked.
    ensure!(said(Command::new(daemon.binary("probe")).args(["connect-abstract", &name]))? == "ok");
    unit.remove()?;
    daemon.finish()
}

/// A process outside connects, and hands the socket to one inside, which may keep it where it isn't seen at a first glance.
#[test]
fn sockets_from_before_or_from_elsewhere_are_cut() -> Result<()> {
    require_root!(Ok(()));
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::process::Stdio;

    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    for how in ["", "first-thread-ended", "own-descriptors"] {
        let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (mut outside, _) = listener.accept()?;
        outside.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut inside = match how {
            "" => unit.command("sleep"),
            _ => unit.command(daemon.binary("probe")),
        };
        let arguments: &[&str] = if how.is_empty() { &["60"] } else { &["keep", how] };
        let mut inside = inside.args(arguments).stdin(Stdio::from(OwnedFd::from(stream))).spawn()?;
        let ended = outside.read(&mut [0; 1]);
        let is_over = matches!(&ended, Ok(0))
            || ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        inside.kill()?;
        inside.wait()?;
        ensure!(is_over, "{how}: {ended:?}\n{}", daemon.log());
        ensure!(outside.write_all(b"x").and_then(|()| outside.write_all(b"x")).is_err() || is_over, "{how}");
    }
    let to = format!("tcp to {}", listener.local_addr()?);
    let told = changes(&daemon)?;
    let is_cut = |change: &&Change| matches!(change, Change::SocketCut { pid: 1.., what, cut: true } if *what == to);
    ensure!(told.iter().filter(is_cut).count() >= 3, "{told:?}");
    unit.remove()?;
    daemon.finish()
}

/// /proc has next to nothing of it, but what its other threads may is what it may.
#[test]
fn a_process_whose_first_thread_has_ended_is_judged_by_the_others() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let keep = ["keep", "first-thread-ended"];
    let mut contained = unit.command(daemon.binary("probe")).args(keep).spawn()?;
    std::thread::sleep(Duration::from_millis(1_500));
    let found = listed(&daemon);
    contained.kill()?;
    contained.wait()?;
    let found = found?;
    ensure!(found["containment"] == "contained", "{found}");
    let mut open = unit.command_but("io-uring", daemon.binary("probe")).args(keep).spawn()?;
    let found = until(&daemon, |one| one["containment"] == "refused" && one["holes"].to_string().contains("io_uring"));
    open.kill()?;
    open.wait()?;
    found?;
    until(&daemon, |one| one["containment"] == "contained")?;
    unit.remove()?;
    daemon.finish()
}

/// What is there before its cgroup is governed has what it has; nothing of it goes on.
#[test]
fn a_connection_from_before_its_adoption_is_cut() -> Result<()> {
    require_root!(Ok(()));
    use std::io::Read;

    let graph = Graph::start(&[])?;
    let order = Order { bring: vec!["probe"], purpose: "adopt", ..Order::for_graph(&graph, READ_ONLY) };
    let daemon = Daemon::start(&order)?;
    let unit = Unit::new(&daemon)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut inside =
        unit.command(daemon.binary("probe")).args(["hold", &listener.local_addr()?.to_string()]).spawn()?;
    let (mut outside, _) = listener.accept()?;
    outside.set_read_timeout(Some(Duration::from_secs(20)))?;
    let name = daemon.cgroup().file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
    let mut text = std::fs::read_to_string(daemon.config())?;
    text.push_str(&ADOPTED.replace("{name}", &name));
    std::fs::write(daemon.config(), text)?;
    daemon.ask(&["policy", "reload"])?;
    let ended = outside.read(&mut [0; 1]);
    inside.kill()?;
    inside.wait()?;
    ensure!(
        matches!(&ended, Ok(0))
            || ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "{ended:?}"
    );
    // It is recorded what was there, and what was cut of it.
    let (told, own) = (changes(&daemon)?, path(&unit)?);
    let was_there =
        |change: &Change| matches!(change, Change::Adopted { cgroup, processes: 1.., .. } if *cgroup == own);
    ensure!(told.iter().any(was_there), "{told:?}");
    let to = format!("tcp to {}", listener.local_addr()?);
    let is_cut = |change: &Change| matches!(change, Change::SocketCut { what, cut: true, .. } if *what == to);
    ensure!(told.iter().any(is_cut), "{told:?}");
    unit.remove()?;
    daemon.finish()
}

/// Messages between processes by netlink: harmless until somebody listens.
#[test]
fn somebody_who_listens_for_its_messages_is_a_hole() -> Result<()> {
    require_root!(Ok(()));
    use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
    use std::os::fd::AsRawFd;

    // A network of its own, for this thread and what it starts: others' workloads could reach the listener, too.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    interceptor::transport::namespace::configure()?;
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let mut inside = unit.command("sleep").arg("60").spawn()?;
    until(&daemon, |one| one["containment"] == "contained" && one["adopted"][0].is_object())?;
    let listening =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkUserSock)?;
    bind(listening.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
    let found = until(&daemon, |one| one["containment"] == "refused")?;
    ensure!(found["holes"].to_string().contains("NETLINK_USERSOCK"), "{found}");
    drop(listening);
    until(&daemon, |one| one["containment"] == "contained")?;
    inside.kill()?;
    inside.wait()?;
    unit.remove()?;
    daemon.finish()
}

/// What it costs to look at fifty processes that do nothing.
#[test]
fn looking_at_idle_processes_costs_little() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let mut inside = (0..50).map(|_| Ok(unit.command("sleep").arg("60").spawn()?)).collect::<Result<Vec<_>>>()?;
    until(&daemon, |one| one["containment"] == "contained")?;
    let ticks = || -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid()?))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("a stat")?.1.split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    std::thread::sleep(Duration::from_secs(2));
    let (before, time) = (ticks()?, Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let share = (ticks()? - before) as f64 / 100.0 / time.elapsed().as_secs_f64();
    println!("{:.1} % of a core for 50 processes", share * 100.0);
    for child in &mut inside {
        child.kill()?;
        child.wait()?;
    }
    ensure!(share < 0.1, "{share} of a core");
    unit.remove()?;
    daemon.finish()
}

/// A reload that changes a workload takes it anew; it isn't free for a moment in between.
#[test]
fn a_changed_workload_is_governed_all_the_time() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut inside = unit.command("/bin/sh");
    let script = r#"while :; do "$0" connect "$1" >/dev/null; done"#;
    let address = listener.local_addr()?.to_string();
    let mut inside = inside.args(["-c", script]).arg(daemon.binary("probe")).arg(address).spawn()?;
    until(&daemon, |one| one["connections"].as_u64().is_some())?;
    let text = std::fs::read_to_string(daemon.config())?;
    for round in 0..20 {
        let changed = format!("name = \"svc\"\nclass = \"round-{round}\"");
        std::fs::write(daemon.config(), text.replace("name = \"svc\"", &changed))?;
        daemon.ask(&["policy", "reload"])?;
    }
    inside.kill()?;
    inside.wait()?;
    ensure!(listener.accept().is_err(), "it got past us");
    // Each time it is another adoption.
    let told = adoptions(&daemon)?;
    let changed = told.iter().filter(|one| *one == "changed").count();
    ensure!(told.len() == 41 && changed == 20 && told.last().is_some_and(|last| last == "adopted"), "{told:?}");
    unit.remove()?;
    daemon.finish()
}
