//! What ends when policy, time or the daemon do, and what doesn't.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use interceptor::record::event::What;
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, REACH, begin, closed, order, outcome, scripted};

/// How soon after a reload what it no longer permits must have ended.
const SOON: Duration = Duration::from_secs(1);

fn reload(daemon: &Daemon, policy: &str) -> Result<Instant> {
    let output = daemon.reload(policy)?;
    ensure!(output.status.success(), "the reload was refused: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Instant::now())
}

fn stream(daemon: &Daemon) -> Result<Wire> {
    let mut wire = Wire::tls(daemon)?;
    wire.send("GET /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    ensure!(wire.head()?.status == 200, "no stream");
    ensure!(wire.chunk()? == b"tick\n", "nothing streams");
    Ok(wire)
}

#[test]
fn after_a_reload_the_next_request_on_the_open_connection_is_denied() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "denied before");
    reload(&daemon, REACH)?;
    let answer = wire.ask("GET", "/v1.0/users?again")?;
    ensure!(answer.status == 403 && answer.code() == "denied-by-default", "{answer:?}");
    ensure!(graph.received().len() == 1, "it was forwarded");
    reload(&daemon, ALL)?;
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "denied after it is permitted again");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_stream_is_cut_within_a_second_of_the_reload_that_no_longer_permits_it() -> Result<()> {
    require_root!(Ok(()));
    // By its own operation's denial, and by its connection's.
    for policy in [REACH, "forbid (principal, action, resource);"] {
        let (_graph, daemon) = begin(ALL)?;
        let wire = stream(&daemon)?;
        let since = reload(&daemon, policy)?;
        let (came, end, at) = wire.rest_and_when()?;
        let lasted = at.saturating_duration_since(since);
        ensure!(lasted < SOON, "it went on for {lasted:?}");
        ensure!(!came.ends_with(b"0\r\n\r\n") && end != "eof", "it ended cleanly: {end}");
        ensure!(outcome(&daemon, "GET /stream")? == ("policy-changed".into(), Some(200)), "recorded otherwise");
        closed(&daemon, "policy-changed")?;
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn the_policy_that_a_stream_was_cut_by_is_recorded() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let wire = stream(&daemon)?;
    let audit = "@id(\"audit\") forbid (principal, action in Action::\"http:read\", resource);";
    reload(&daemon, &format!("{ALL}\n{audit}"))?;
    wire.rest()?;
    ensure!(outcome(&daemon, "GET /stream")?.0 == "policy-changed", "recorded otherwise");
    let cut_by = recorded::events(&daemon.database(), 0)?.into_iter().find_map(|(_, event)| match event.what {
        What::OperationFinished { outcome, policies, .. } if outcome == "policy-changed" => Some(policies),
        _ => None,
    });
    ensure!(cut_by == Some(vec!["audit".to_owned()]), "{cut_by:?}");

    // And the one that a connection was.
    reload(&daemon, ALL)?;
    let mut idle = Wire::tls(&daemon)?;
    ensure!(idle.ask("GET", "/v1.0/users")?.status == 200, "it isn't permitted again");
    let shut = "@id(\"shut\") forbid (principal, action == Action::\"connect\", resource);";
    reload(&daemon, &format!("{ALL}\n{shut}"))?;
    closed(&daemon, "policy-changed")?;
    let closed = recorded::wait_for_event(
        &daemon.database(),
        0,
        |what| matches!(what, What::SessionClosed { policies, .. } if *policies == ["shut"]),
    )?;
    let What::SessionClosed { session, .. } = closed.what else { bail!("{closed:?}") };
    let shown = daemon.json(&["sessions", "show", &session.to_string()])?;
    ensure!(shown["session"]["cut_by"] == serde_json::json!(["shut"]), "{shown}");
    let shown = daemon.ask(&["sessions", "show", &session.to_string()])?;
    ensure!(shown.contains("\ncut by    shut\n"), "it isn't told: {shown}");
    drop(idle);
    daemon.finish()
}

#[test]
fn an_upload_is_cut_by_the_reload_that_no_longer_permits_it() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("POST /upload HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 1000\r\n\r\nabc")?;
    while graph.received().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let since = reload(&daemon, REACH)?;
    let answer = wire.answer()?;
    ensure!(since.elapsed() < SOON, "it went on for {:?}", since.elapsed());
    ensure!(answer.status == 403 && answer.code() == "policy-changed", "{answer:?}");
    ensure!(outcome(&daemon, "POST /upload")? == ("policy-changed".into(), Some(403)), "recorded otherwise");
    drop(wire);
    daemon.finish()
}

#[test]
fn an_upload_whose_answer_is_complete_is_cut_too() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, daemon) = scripted(|peer| {
        while peer.byte()? != b'!' {}
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        loop {
            peer.byte()?;
        }
    })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("POST /upload HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 1000\r\n\r\n!")?;
    ensure!(wire.answer()?.body == b"ok", "no early answer");
    reload(&daemon, REACH)?;
    ensure!(outcome(&daemon, "POST /upload")?.0 == "policy-changed", "recorded otherwise");
    let so_far = upstream.came().len();
    // The connection may have ended by now.
    let _ = wire.send("more");
    std::thread::sleep(Duration::from_millis(200));
    ensure!(upstream.came().len() == so_far, "the upload went on");
    daemon.finish()
}

#[test]
fn a_reload_that_changes_nothing_for_it_cuts_nothing() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = stream(&daemon)?;
    reload(&daemon, &format!("{ALL}\nforbid (principal, action == Action::\"http:DELETE\", resource);"))?;
    let start = Instant::now();
    while start.elapsed() < SOON {
        ensure!(wire.chunk()? == b"tick\n", "the stream ended");
    }
    drop(wire);
    daemon.finish()
}

#[test]
fn max_session_ends_a_stream_whichever_permit_says_so() -> Result<()> {
    require_root!(Ok(()));
    let on_connect = r#"
        @max_session("2s") permit (principal, action in Action::"reach", resource);
        permit (principal, action in Action::"http", resource);"#;
    let on_request = r#"
        permit (principal, action in Action::"reach", resource);
        @max_session("2s") permit (principal, action in Action::"http", resource);"#;
    for policy in [on_connect, on_request] {
        let (_graph, daemon) = begin(policy)?;
        let start = Instant::now();
        let wire = stream(&daemon)?;
        let opened = Instant::now();
        let (_, end, at) = wire.rest_and_when()?;
        ensure!(end != "eof", "it ended cleanly");
        ensure!(at - start > Duration::from_millis(1_500), "it lived for {:?}", at - start);
        let lived = at.saturating_duration_since(opened);
        ensure!(lived < Duration::from_secs(2) + SOON, "it lived for {lived:?}");
        ensure!(outcome(&daemon, "GET /stream")?.0 == "max-session", "recorded otherwise");
        closed(&daemon, "max-session")?;
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn a_reload_can_bound_a_session_that_lives() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let wire = stream(&daemon)?;
    let since = reload(&daemon, &format!("@max_session(\"1s\")\n{}", ALL.trim_start()))?;
    let (_, end, at) = wire.rest_and_when()?;
    let lasted = at.saturating_duration_since(since);
    ensure!(lasted < Duration::from_secs(1) + SOON, "it went on for {lasted:?}");
    ensure!(end != "eof", "it ended cleanly");
    ensure!(outcome(&daemon, "GET /stream")?.0 == "max-session", "recorded otherwise");
    daemon.finish()
}

#[test]
fn a_stopping_daemon_lets_a_short_request_finish_and_cuts_an_endless_one() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let more = "[limits]\ndrain = \"4s\"\n".to_owned();
    let mut daemon = Daemon::start(&Order { more, ..order(&graph, ALL) })?;
    let endless = stream(&daemon)?;
    let mut short = Wire::tls(&daemon)?;
    short.send("GET /slow?ms=1000 HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    while graph.received().len() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    ensure!(daemon.stop()?.success(), "it failed");
    let took = start.elapsed();
    ensure!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&took), "it stopped after {took:?}");
    ensure!(short.answer()?.json()?["waited"] == 1000, "the short request was cut");
    let (_, end) = endless.rest()?;
    ensure!(end != "eof", "the endless one ended cleanly");
    ensure!(outcome(&daemon, "GET /slow")? == ("done".into(), Some(200)), "the short one is recorded otherwise");
    ensure!(outcome(&daemon, "GET /stream")?.0 == "daemon-stopped", "the endless one is recorded otherwise");
    daemon.finish()
}
