//! What the record, the log and the metrics hold, and what becomes of requests when the record can't be written.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Verdict, What};
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, REACH, begin, finished, order, outcome, payloads, scripted};

#[test]
fn the_verdict_is_recorded_before_the_upstream_sees_anything() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, mut daemon) = scripted(|peer| peer.request().and_then(|_| peer.byte()).map(drop))?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /seen HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    while !upstream.came().ends_with(b"\r\n\r\n") {
        std::thread::sleep(Duration::from_millis(1));
    }
    // What isn't in the record at this moment never gets into it.
    daemon.kill9()?;
    daemon.restart()?;
    let allowed = |one: &recorded::Operation| one.summary == "GET /seen" && one.verdict == Verdict::Allow;
    recorded::wait_for(&daemon.database(), 0, allowed)?;
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    daemon.finish()
}

#[test]
fn sizes_and_digests_are_recorded() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("POST /echo HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 5\r\n\r\nhello")?;
    let answer = wire.answer()?;
    let (request, response) = payloads(&daemon, "POST /echo")?;
    ensure!(request.bytes == 5 && request.digest.as_deref() == Some(blake3::hash(b"hello").to_hex().as_str()));
    let digest = blake3::hash(&answer.body).to_hex().to_string();
    ensure!(response.bytes == answer.body.len() as u64 && response.digest == Some(digest), "{response:?}");
    let get = wire.ask("GET", "/bytes/0")?;
    ensure!(get.status == 200, "{get:?}");
    ensure!(payloads(&daemon, "GET /bytes/0")?.1.digest.is_none(), "a digest of nothing");
    drop(wire);
    daemon.finish()
}

/// Whether any file below `folder` holds `text`.
fn holds(folder: &Path, text: &[u8]) -> Result<Option<String>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = holds(&path, text)? {
                return Ok(Some(found));
            }
        } else if path.is_file() && fs::read(&path)?.windows(text.len()).any(|window| window == text) {
            return Ok(Some(path.display().to_string()));
        }
    }
    Ok(None)
}

#[test]
fn no_query_header_value_or_body_gets_into_the_record_or_the_log() -> Result<()> {
    require_root!(Ok(()));
    const SECRET: &str = "mArKeR7f3a";
    let (graph, daemon) = begin(ALL)?;
    let host = "Host: graph.microsoft.com\r\n";
    let body = format!("password={SECRET}");
    let length = body.len();
    for request in [
        // Passed.
        format!("POST /echo?q={SECRET} HTTP/1.1\r\n{host}X-Note: {SECRET}\r\nContent-Length: {length}\r\n\r\n{body}"),
        // It authenticates.
        format!(
            "GET /echo?sig={SECRET} HTTP/1.1\r\n{host}Authorization: Bearer {SECRET}\r\nCookie: a={SECRET}\r\n\r\n"
        ),
        // Refused by the decoder.
        format!("GET /a%2Fb?q={SECRET} HTTP/1.1\r\n{host}X-Note: {SECRET}\r\n\r\n"),
        format!("GET /?q={SECRET} HTTP/1.1\r\nHost: {SECRET}.example\r\n\r\n"),
        format!("GET https://user:{SECRET}@graph.microsoft.com/ HTTP/1.1\r\n{host}\r\n"),
        // No HTTP.
        format!("{SECRET} is no request\r\n\r\n"),
        format!("POST /echo HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nno size {SECRET}\r\n"),
    ] {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(&request)?;
        wire.half_close();
        wire.rest()?;
    }
    finished(&daemon, "POST /echo")?;
    ensure!(graph.received().iter().any(|one| one.path.contains(SECRET)), "nothing was forwarded");
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    for text in [SECRET.to_owned(), SECRET.to_lowercase()] {
        let found = holds(&daemon.room().join("state"), text.as_bytes())?;
        ensure!(found.is_none(), "`{text}` is in {found:?}");
        let log = fs::read_to_string(daemon.room().join("daemon.log"))?;
        ensure!(!log.contains(&text), "`{text}` is in the log: {log}");
        ensure!(!scrape(&daemon)?.contains(&text), "`{text}` is in the metrics");
    }
    daemon.finish()
}

#[test]
fn while_the_record_cannot_be_written_everything_is_denied_and_told_so() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let more = "[record]\nbacklog_age = \"1s\"\n".to_owned();
    let daemon = Daemon::start(&Order { more, ..order(&graph, ALL) })?;
    let mut open = Wire::tls(&daemon)?;
    let mut later = Wire::tls_later(&daemon)?;
    ensure!(open.ask("GET", "/v1.0/users")?.status == 200, "denied before");
    let seen = graph.received().len();

    let database = rusqlite::Connection::open(daemon.database())?;
    database.busy_timeout(Duration::from_secs(20))?;
    database.execute_batch("BEGIN IMMEDIATE")?;
    // The first event after that waits, and is too old soon.
    let deadline = Instant::now() + Duration::from_secs(20);
    let denied = loop {
        let answer = open.ask("GET", "/v1.0/users?while")?;
        if answer.status != 200 {
            break answer;
        }
        ensure!(Instant::now() < deadline, "requests are still answered");
        std::thread::sleep(Duration::from_millis(50));
    };
    let forwarded = graph.received().len();
    ensure!(denied.status == 503 && denied.code() == "record-unavailable", "{denied:?}");
    let told = denied.json()?;
    ensure!(told.get("operation").is_none(), "an operation is quoted that isn't recorded: {told}");
    let status = daemon.interceptor(&["status"]).output()?;
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(said.starts_with("serving no") && said.contains("record-unavailable"), "status says: {said}");
    ensure!(value(&scrape(&daemon)?, "interceptor_operations_unrecorded_total")? > 0.0, "it isn't counted");
    // A new connection is told too, inside TLS.
    later.send("\n")?;
    let answer = later.ask("GET", "/v1.0/users")?;
    ensure!(answer.status == 503 && answer.code() == "record-unavailable", "{answer:?}");
    ensure!(graph.received().len() == forwarded && forwarded > seen, "something was forwarded");

    database.execute_batch("COMMIT")?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while open.ask("GET", "/v1.0/users")?.status != 200 {
        ensure!(Instant::now() < deadline, "it doesn't serve again");
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(daemon.ask(&["status"])?.starts_with("serving yes"), "status still says no");
    drop(open);
    daemon.finish()
}

#[test]
fn everything_that_the_upstream_saw_is_in_the_record() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    for number in 0..20 {
        wire.ask(if number % 3 == 0 { "DELETE" } else { "GET" }, &format!("/v1.0/users/{number}"))?;
    }
    outcome(&daemon, "GET /v1.0/users/19")?;
    let operations = recorded::operations(&daemon.database(), 0)?;
    for request in graph.received() {
        let line = format!("{} {}", request.method, request.path);
        let is_there = operations.iter().any(|one| one.summary == line && one.verdict == Verdict::Allow);
        ensure!(is_there, "`{line}` isn't recorded");
    }
    drop(wire);
    let sessions = recorded::events(&daemon.database(), 0)?;
    let opened = sessions.iter().filter(|(_, event)| matches!(event.what, What::SessionOpened { .. })).count();
    ensure!(opened == 1, "{opened} sessions");
    daemon.finish()
}

fn scrape(daemon: &Daemon) -> Result<String> {
    let mut socket = UnixStream::connect(daemon.room().join("run/metrics.sock"))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut said = String::new();
    socket.read_to_string(&mut said)?;
    Ok(said)
}

/// The value of the metric with these labels.
fn value(metrics: &str, name: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no `{name}` in {metrics}"))?.parse()?)
}

#[test]
fn the_metrics_move() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) =
        begin(&format!("{REACH}{}", "permit (principal, action == Action::\"http:GET\", resource);"))?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/bytes/1000")?.status == 200, "denied");
    ensure!(wire.ask("PUT", "/bytes/1000")?.status == 403, "not denied");
    let said = scrape(&daemon)?;
    let operations = |class: &str, verdict: &str, code: &str| {
        let labels = format!("class=\"{class}\",verdict=\"{verdict}\",code=\"{code}\"");
        value(&said, &format!("interceptor_operations_total{{{labels}}}"))
    };
    ensure!(operations("connect", "allow", "")? == 1.0, "{said}");
    ensure!(operations("http:read", "allow", "")? == 1.0, "{said}");
    ensure!(operations("http:write", "deny", "denied-by-default")? == 1.0, "{said}");
    ensure!(value(&said, "interceptor_payload_bytes_total{direction=\"response\"}")? == 1000.0, "{said}");
    ensure!(value(&said, "interceptor_sessions")? == 1.0, "{said}");
    ensure!(value(&said, "interceptor_record_events")? > 0.0, "{said}");
    for gauge in ["record_lag_seconds", "record_backlog_bytes", "record_writable", "policy_generation"] {
        value(&said, &format!("interceptor_{gauge}"))?;
    }
    wire.half_close();
    wire.rest()?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while value(&scrape(&daemon)?, "interceptor_sessions")? > 0.0 {
        ensure!(Instant::now() < deadline, "the session is still counted");
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(value(&scrape(&daemon)?, "interceptor_sessions_closed_total{reason=\"done\"}")? == 1.0);
    // Each metric that is served is documented.
    let documented = include_str!("../../../docs/metrics.md");
    for line in said.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().context("a name")?;
        ensure!(documented.contains(&format!("`{name}`")), "`{name}` isn't in docs/metrics.md");
    }
    daemon.finish()
}
