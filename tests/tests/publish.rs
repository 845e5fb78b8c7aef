//! Servers that are called: a launched workload listens on its own loopback, and the host's callers reach it by the daemon.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::What;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY, UID};
use interceptor_tests::graph::Graph;
use interceptor_tests::unit::said;
use interceptor_tests::{port, recorded, require_root};

struct Scene {
    _graph: Graph,
    daemon: Daemon,
    address: String,
}

/// A daemon that publishes the port 8000 of the workload at a port that is free.
fn start() -> Result<Scene> {
    let graph = Graph::start(&[])?;
    let address = format!("127.0.0.1:{}", port::free()?);
    let workload = format!("publish = [\"{address}:8000\"]\n");
    let order = Order { bring: vec!["probe"], purpose: "publish", workload, ..Order::for_graph(&graph, READ_ONLY) };
    let daemon = Daemon::start(&order)?;
    Ok(Scene { _graph: graph, daemon, address })
}

/// A server in the workload that gives back what it gets, in capitals.
fn server(daemon: &Daemon) -> Result<Child> {
    let probe = daemon.binary("probe");
    let child = daemon.run(&[probe.to_str().context("a path")?, "serve", "8000"]).stdin(Stdio::null()).spawn()?;
    Ok(child)
}

/// Says something as soon as the server is there; what it answered.
fn call(address: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let attempt = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.write_all(b"hello")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        match attempt() {
            Ok(answer) if !answer.is_empty() => return Ok(answer),
            other => ensure!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_call_is_a_session_with_its_caller_as_the_initiator() -> Result<()> {
    require_root!(Ok(()));
    let Scene { daemon, address, _graph } = start()?;
    let mut server = server(&daemon)?;
    ensure!(call(&address)? == "HELLO");
    let ended = recorded::wait_for(&daemon.database(), 0, |one| {
        one.action == "publish:connect" && one.outcome.as_ref().is_some_and(|(how, _)| how == "done")
    })?;
    ensure!(ended.summary == "uid 0 calls port 8000", "{}", ended.summary);
    let events = recorded::events(&daemon.database(), 0)?;
    let counted = events.iter().find_map(|(_, event)| match &event.what {
        What::OperationFinished { operation, request, response, .. } if *operation == ended.id => {
            Some((request.clone(), response.clone()))
        }
        _ => None,
    });
    let (request, response) = counted.context("it has ended")?;
    let digest = |text: &str| Some(blake3::hash(text.as_bytes()).to_hex().to_string());
    ensure!(
        (request.bytes, request.digest) == (5, digest("hello"))
            && (response.bytes, response.digest) == (5, digest("HELLO"))
    );
    let initiator = events.iter().find_map(|(_, event)| match &event.what {
        What::OperationDecided { operation, initiator, .. } if *operation == ended.id => Some(*initiator),
        _ => None,
    });
    ensure!(initiator == Some(Some(0)));
    server.kill()?;
    server.wait()?;
    daemon.finish()
}

#[test]
fn only_who_may_launch_it_may_call_it() -> Result<()> {
    require_root!(Ok(()));
    let Scene { daemon, address, _graph } = start()?;
    let mut server = server(&daemon)?;
    ensure!(call(&address)? == "HELLO");
    let as_user =
        |uid: u32| said(Command::new(daemon.binary("probe")).args(["tcp", "plain", &address]).uid(uid).gid(uid));
    ensure!(as_user(UID)? == "ok");
    let is_his = |what: &What| match what {
        What::OperationDecided { summary, initiator, .. } => {
            *initiator == Some(UID) && summary.starts_with(&format!("uid {UID} "))
        }
        _ => false,
    };
    recorded::wait_for_event(&daemon.database(), 0, is_his)?;
    let refused = as_user(UID + 1)?;
    ensure!(refused == "ECONNRESET", "{refused}");
    let denied = recorded::wait_for(&daemon.database(), 0, |one| one.code.as_deref() == Some("caller-not-listed"))?;
    ensure!(denied.summary == format!("uid {} calls port 8000", UID + 1), "{}", denied.summary);
    server.kill()?;
    server.wait()?;
    daemon.finish()
}

/// What it sent waits to be read, but nobody can be asked about any more.
#[test]
fn who_has_hung_up_before_we_ask_is_not_taken_for_root() -> Result<()> {
    require_root!(Ok(()));
    let Scene { daemon, address, _graph } = start()?;
    let mut server = server(&daemon)?;
    ensure!(call(&address)? == "HELLO");
    let before = recorded::last(&daemon.database())?;
    let (host, port) = address.split_once(':').context("an address")?;
    let script = format!("for i in {{1..50}}; do echo hello > /dev/tcp/{host}/{port}; done");
    let status = Command::new("/bin/bash").args(["-c", &script]).uid(UID + 1).gid(UID + 1).status()?;
    ensure!(status.success(), "{status}");
    // Most are over before they are looked at.
    let deadline = Instant::now() + Duration::from_secs(30);
    let calls = loop {
        let calls = recorded::operations(&daemon.database(), before)?;
        if calls.len() >= 50 {
            break calls;
        }
        ensure!(Instant::now() < deadline, "{}", calls.len());
    };
    ensure!(calls.len() == 50, "{}", calls.len());
    let denied = |one: &recorded::Operation| one.code.as_deref() == Some("caller-not-listed");
    let let_in = calls.iter().filter(|one| !denied(one)).count();
    ensure!(let_in == 0, "{let_in} were let in");
    server.kill()?;
    server.wait()?;
    daemon.finish()
}

#[test]
fn a_call_lives_as_long_as_its_workload_and_a_daemon_that_comes_after_takes_calls() -> Result<()> {
    require_root!(Ok(()));
    let Scene { mut daemon, address, _graph } = start()?;
    let mut server = server(&daemon)?;
    ensure!(call(&address)? == "HELLO");
    daemon.kill9()?;
    ensure!(TcpStream::connect(&address).is_err(), "nobody listens");
    daemon.restart()?;
    ensure!(call(&address)? == "HELLO");
    let mut open = TcpStream::connect(&address)?;
    open.set_read_timeout(Some(Duration::from_secs(30)))?;
    open.write_all(b"x")?;
    open.read_exact(&mut [0; 1])?;
    server.kill()?;
    server.wait()?;
    let end = open.read(&mut [0; 1]);
    ensure!(matches!(end, Ok(0) | Err(_)), "it goes on");
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(&address).is_ok() {
        ensure!(Instant::now() < deadline, "the port is open still");
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.finish()
}

/// What the workload is let ask of the host's loopback comes from the daemon, which runs as root.
#[test]
fn what_a_workload_asks_by_the_daemon_isnt_taken_for_roots() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let port = port::free()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let target = format!("[[target]]\nname = \"own\"\nhosts = [\"localhost\"]\nports = [{port}]\ncleartext = true\n");
    let policy = "@id(\"own\")\npermit (principal, action, resource == Target::\"own\");\n";
    let order = Order::for_graph(&graph, policy);
    let targets = format!("{}{target}", order.targets);
    let workload = format!("publish = [\"{address}:8000\"]\n");
    let resolve = vec![("localhost".to_owned(), address)];
    let order = Order { bring: vec!["wire"], purpose: "publish", workload, targets, resolve, ..order };
    let daemon = Daemon::start(&order)?;
    let script = r#"(printf 'GET / HTTP/1.1\r\nHost: localhost:%s\r\nConnection: close\r\n\r\n' "$1"; sleep 2) | "$0" 127.0.0.1 "$1" clear"#;
    let wire = daemon.binary("wire");
    let wire = wire.to_str().context("a path")?;
    let asked = daemon.run(&["/bin/sh", "-c", script, wire, &port.to_string()]).stdin(Stdio::null()).output()?;
    let call = recorded::wait_for(&daemon.database(), 0, |one| one.action == "publish:connect");
    let call = call.with_context(|| format!("{asked:?}"))?;
    ensure!(call.code.as_deref() == Some("caller-not-listed"), "{:?}: {}", call.code, call.summary);
    ensure!(call.summary == "an unknown caller calls port 8000", "{}", call.summary);
    daemon.finish()
}
