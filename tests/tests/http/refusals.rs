//! What is refused before it goes anywhere, how the client is told, and that it is recorded.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::Verdict;
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::{Answer, Wire};
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, HOST, PLAIN_TARGET, REACH, begin, closed, denied, finished, order};

/// Permits everything on every target.
const ANYTHING: &str = "permit (principal, action, resource);";

#[test]
fn requests_that_do_not_read_one_way_only_are_refused_and_never_forwarded() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let host = "Host: graph.microsoft.com";
    let table = [
        (400, "ambiguous-path", format!("GET /a%2Fb HTTP/1.1\r\n{host}")),
        (400, "ambiguous-path", format!("GET /a/%2e%2e/b HTTP/1.1\r\n{host}")),
        (400, "ambiguous-path", format!("GET /a/../b HTTP/1.1\r\n{host}")),
        (400, "ambiguous-path", format!("GET /a;x=1/b HTTP/1.1\r\n{host}")),
        (400, "ambiguous-path", format!("GET /a\\b HTTP/1.1\r\n{host}")),
        (400, "ambiguous-path", format!("GET /a%5Cb HTTP/1.1\r\n{host}")),
        (400, "ambiguous-path", format!("GET /%C0%AF HTTP/1.1\r\n{host}")),
        (421, "misdirected-request", format!("GET https://other.example/ HTTP/1.1\r\n{host}")),
        (421, "misdirected-request", format!("GET http://graph.microsoft.com/ HTTP/1.1\r\n{host}")),
        (421, "misdirected-request", "GET / HTTP/1.1\r\nHost: other.example".to_owned()),
        (421, "misdirected-request", "GET / HTTP/1.1\r\nHost: graph.microsoft.com:8443".to_owned()),
        (421, "misdirected-request", "GET / HTTP/1.1\r\nHost: a@graph.microsoft.com".to_owned()),
        (400, "host-malformed", format!("GET / HTTP/1.1\r\n{host}\r\nHost: other.example")),
        (400, "host-malformed", format!("GET / HTTP/1.1\r\n{host}\r\n{host}")),
        (400, "host-missing", "GET / HTTP/1.1".to_owned()),
        (400, "method-not-canonical", format!("get / HTTP/1.1\r\n{host}")),
        (400, "method-override-refused", format!("POST / HTTP/1.1\r\n{host}\r\nX-HTTP-Method-Override: DELETE")),
        (400, "header-not-canonical", format!("POST / HTTP/1.1\r\n{host}\r\nX_HTTP_Method_Override: DELETE")),
        (400, "websocket-malformed", format!("GET / HTTP/1.1\r\n{host}\r\nConnection: upgrade\r\nUpgrade: websocket")),
        (403, "h2c-refused", format!("GET / HTTP/1.1\r\n{host}\r\nConnection: upgrade\r\nUpgrade: h2c")),
        (403, "upgrade-refused", format!("GET / HTTP/1.1\r\n{host}\r\nConnection: upgrade\r\nUpgrade: tls/1.0")),
        (403, "connect-method-refused", format!("CONNECT other.example:443 HTTP/1.1\r\n{host}")),
    ];
    for (status, code, request) in table {
        let after = recorded::last(&daemon.database())?;
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!("{request}\r\n\r\n"))?;
        let answer = wire.answer()?;
        ensure!(answer.status == status && answer.code() == code, "`{request}` got {answer:?}");
        let fits = |one: &recorded::Operation| one.action != "connect" && one.code.as_deref() == Some(code);
        let operation = recorded::wait_for(&daemon.database(), after, fits).with_context(|| request.clone())?;
        ensure!(operation.verdict == Verdict::Deny, "`{request}` is recorded as {operation:?}");
    }
    ensure!(graph.received().is_empty(), "the upstream saw {:?}", graph.received());
    daemon.finish()
}

#[test]
fn what_is_no_http_is_refused_inside_tls_and_recorded() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let fields: String = (0..200).map(|number| format!("X-{number}: a\r\n")).collect();
    let host = "Host: graph.microsoft.com\r\n";
    let table = [
        (400, "this is no request\r\n\r\n".to_owned()),
        (400, format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")),
        (400, format!("POST / HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc")),
        (400, format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n")),
        (400, format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        (400, format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X-A: 1\r\n folded\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\n{host}{fields}\r\n")),
        (431, format!("GET / HTTP/1.1\r\n{host}X-Big: {}\r\n\r\n", "a".repeat(66_000))),
        (431, format!("GET / HTTP/1.1\r\n{host}X-Big: {}\r\n\r\n", "a".repeat(100_000))),
    ];
    for (status, request) in table {
        let after = recorded::last(&daemon.database())?;
        let mut wire = Wire::tls(&daemon)?;
        // A large one is refused before all of it is taken.
        let _ = wire.send(&request);
        let head = &request[..request.len().min(120)];
        let got = wire.head().with_context(|| head.to_owned())?;
        ensure!(got.status == status, "`{head}` got {}", got.head);
        let code = if status == 431 { "header-too-large" } else { "malformed-http" };
        denied(&daemon, after, &[code]).with_context(|| head.to_owned())?;
    }
    // Somewhat too many or too large, they are told with the keys.
    let fields: String = (0..120).map(|number| format!("X-{number}: a\r\n")).collect();
    let answer = {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!("GET /many HTTP/1.1\r\n{host}{fields}\r\n"))?;
        wire.answer()?
    };
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(answer.status == 431 && answer.code() == "header-too-large", "{answer:?}");
    ensure!(told.contains("limits.header_bytes") && told.contains("limits.header_fields"), "{told}");
    ensure!(finished(&daemon, "GET /many")?.code.as_deref() == Some("header-too-large"), "recorded otherwise");
    // HTTP/2 without having agreed on it: no answer in HTTP/1.1 would be read.
    let after = recorded::last(&daemon.database())?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    let (came, end) = wire.rest()?;
    ensure!(came.is_empty() && end != "eof", "HTTP/2 got {came:?} and {end}");
    denied(&daemon, after, &["malformed-http"])?;
    ensure!(graph.received().is_empty(), "the upstream saw {:?}", graph.received());
    daemon.finish()
}

#[test]
fn two_ways_to_delimit_a_request_smuggle_nothing() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n";
    let chunked = format!("0\r\n\r\n{inner}");
    for lengths in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked", chunked.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}", chunked.len()),
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: content-length".to_owned(),
    ] {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!("POST /upload HTTP/1.1\r\nHost: graph.microsoft.com\r\n{lengths}\r\n\r\n{chunked}"))?;
        let answer = wire.answer()?;
        ensure!(answer.status == 200 && answer.json()?["bytes"] == 0, "`{lengths}` got {answer:?}");
        let (rest, _) = wire.rest()?;
        ensure!(rest.is_empty(), "`{lengths}`: what followed was answered: {}", String::from_utf8_lossy(&rest));
    }
    let received = graph.received();
    ensure!(received.iter().all(|one| one.path == "/upload"), "the upstream saw {received:?}");
    daemon.finish()
}

#[test]
fn a_denied_request_is_answered_with_a_whole_problem_document() -> Result<()> {
    require_root!(Ok(()));
    let policy = format!(
        "{ALL}\n@id(\"no-delete\")\n@reason(\"people stay\")\nforbid (principal, action == Action::\"http:DELETE\", resource);"
    );
    let (graph, daemon) = begin(&policy)?;
    let mut wire = Wire::tls(&daemon)?;
    let answer = wire.ask("DELETE", "/v1.0/users/1")?;
    let told = answer.json()?;
    ensure!(answer.status == 403 && answer.header("content-type") == Some("application/problem+json"), "{answer:?}");
    let operation = finished(&daemon, "DELETE /v1.0/users/1")?;
    let session = operation.session.context("a session")?.to_string();
    for (field, value) in [
        ("type", "urn:interceptor:denied-by-policy".to_owned()),
        ("title", "Denied by Interceptor".to_owned()),
        ("code", "denied-by-policy".to_owned()),
        ("session", session),
        ("operation", operation.id.to_string()),
    ] {
        ensure!(told[field] == value, "`{field}` of {told} isn't `{value}`");
    }
    ensure!(
        told["status"] == 403 && told["policies"][0] == "no-delete" && told["reasons"][0] == "people stay",
        "{told}"
    );
    ensure!(told["detail"].as_str().is_some_and(|text| text.contains("people stay")), "{told}");
    ensure!(told["next"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
    // The connection is good for the next one.
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "the connection was lost by a denial");
    ensure!(graph.received().len() == 1, "the denied request reached the upstream");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_denied_upload_is_told_so_though_it_sends_all_before_it_reads() -> Result<()> {
    require_root!(Ok(()));
    const CLIENT: &str = r#"
import http.client
connection = http.client.HTTPSConnection("graph.microsoft.com")
connection.request("POST", "/upload", body=b"a" * (8 << 20))
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"#;
    let (graph, daemon) = begin(REACH)?;
    let output = daemon.run(&["python3", "-c", CLIENT]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.starts_with("403 ") && said.contains("denied-by-default"), "the client saw: {told}");
    ensure!(graph.received().is_empty(), "it reached the upstream");
    daemon.finish()
}

#[test]
fn a_denied_connect_is_told_inside_tls() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(
        r#"permit (principal, action in [Action::"dns:resolve", Action::"http"], resource == Target::"graph");"#,
    )?;
    let answer = Wire::tls(&daemon)?.ask("GET", "/v1.0/users")?;
    ensure!(answer.status == 403 && answer.code() == "denied-by-default", "{answer:?}");
    ensure!(answer.header("connection") == Some("close"), "{answer:?}");
    ensure!(graph.connections() == 0, "the upstream was dialled");
    let operation = finished(&daemon, "connect to graph.microsoft.com port 443")?;
    ensure!(answer.json()?["operation"] == operation.id.to_string(), "another operation is quoted");
    daemon.finish()
}

#[test]
fn another_port_than_the_targets_is_refused_in_tls() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let mut wire = Wire::open(&daemon, HOST, 8443, "tls")?;
    wire.send("GET / HTTP/1.1\r\nHost: graph.microsoft.com:8443\r\n\r\n")?;
    let answer = wire.answer()?;
    ensure!(answer.status == 403 && answer.code() == "not-a-target", "{answer:?}");
    ensure!(graph.connections() == 0, "the upstream was dialled");
    denied(&daemon, 0, &["not-a-target"])?;
    daemon.finish()
}

#[test]
fn an_address_literal_that_is_no_target_is_refused() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ANYTHING)?;
    let mut wire = Wire::open(&daemon, "203.0.113.9", 80, "clear")?;
    wire.send("GET / HTTP/1.1\r\nHost: 203.0.113.9\r\n\r\n")?;
    let answer = wire.answer()?;
    ensure!(answer.status == 403 && answer.code() == "not-a-target", "{answer:?}");
    // A certificate is made for the address, so that the refusal can be told in TLS too.
    let mut wire = Wire::open(&daemon, "203.0.113.9", 443, "tls-no-sni")?;
    wire.send("GET / HTTP/1.1\r\nHost: 203.0.113.9\r\n\r\n")?;
    let answer = wire.answer()?;
    ensure!(answer.status == 403 && answer.code() == "not-a-target", "{answer:?}");
    denied(&daemon, 0, &["not-a-target"])?;
    ensure!(graph.connections() == 0, "the upstream was dialled");
    daemon.finish()
}

#[test]
fn a_server_name_that_is_not_the_looked_up_one_is_421() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let mut wire = Wire::open(&daemon, HOST, 443, "tls=other.example")?;
    wire.send("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")?;
    let answer = wire.answer()?;
    ensure!(answer.status == 421 && answer.code() == "sni-mismatch", "{answer:?}");
    ensure!(graph.connections() == 0, "the upstream was dialled");
    denied(&daemon, 0, &["sni-mismatch"])?;
    // Without a server name the looked-up one is known all the same.
    let answer = Wire::open(&daemon, HOST, 443, "tls-no-sni")?.ask("GET", "/v1.0/users")?;
    ensure!(answer.status == 200, "{answer:?}");
    daemon.finish()
}

#[test]
fn http_in_clear_is_served_where_the_target_says_so_and_refused_elsewhere() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let mut order = order(&graph, ANYTHING);
    order.resolve.push(("plain.example".into(), graph.plain_address()));
    order.targets = format!("{GRAPH_TARGET}{PLAIN_TARGET}");
    let mut daemon = Daemon::start(&Order { ..order })?;
    let in_clear = |daemon: &Daemon, host: &str| -> Result<Answer> {
        let mut wire = Wire::open(daemon, host, 80, "clear")?;
        wire.send(format!("GET /v1.0/users HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        wire.answer()
    };
    let answer = in_clear(&daemon, "plain.example")?;
    ensure!(answer.status == 200, "{answer:?}");
    let mut wire = Wire::open(&daemon, HOST, 443, "clear")?;
    wire.send("GET /v1.0/users HTTP/1.1\r\nHost: graph.microsoft.com:443\r\n\r\n")?;
    let answer = wire.answer()?;
    ensure!(answer.status == 403 && answer.code() == "cleartext-refused", "{answer:?}");
    denied(&daemon, 0, &["cleartext-refused"])?;
    let received = graph.received();
    ensure!(received.len() == 1 && !received[0].tls, "the upstream saw {received:?}");

    // A live connection in clear ends with the permission to be in clear.
    let mut wire = Wire::open(&daemon, "plain.example", 80, "clear")?;
    wire.send("GET /stream HTTP/1.1\r\nHost: plain.example\r\n\r\n")?;
    ensure!(wire.head()?.status == 200, "no stream");
    let config = std::fs::read_to_string(daemon.config())?;
    std::fs::write(daemon.config(), config.replace("cleartext = true", "ports = [80, 443]"))?;
    daemon.ask(&["policy", "reload"])?;
    let (_, end) = wire.rest()?;
    ensure!(end == "reset", "the stream ended with {end}");
    closed(&daemon, "policy-changed")?;
    daemon.stop()?;
    daemon.finish()
}

#[test]
fn bytes_of_no_known_protocol_and_silence_are_reset_in_time() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let more = "[limits]\ndetect_timeout = \"1s\"\n".to_owned();
    let daemon = Daemon::start(&Order { more, ..order(&graph, ALL) })?;
    let record = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let garbage = [[22, 3, 1, 0, 200].as_slice(), &[1, 0, 0, 196], &[0xff; 196]].concat();
    for (what, bytes) in [
        ("garbage", b"\x00\x01\x02\x03".as_slice()),
        ("a lower-case method", b"get / HTTP/1.1\r\n\r\n"),
        ("silence", b""),
        ("a method that never ends", b"GE"),
        ("a ClientHello that never ends", &record),
        ("a ClientHello of garbage", &garbage),
    ] {
        let start = Instant::now();
        let mut wire = Wire::open(&daemon, HOST, 443, "clear")?;
        wire.send(bytes)?;
        let (came, end, at) = wire.rest_and_when()?;
        // A TLS alert may come first; after it even an orderly end can't be taken for an answer.
        ensure!(end == "reset" || came.first() == Some(&21), "{what}: {end} after {came:?}");
        let kept = at - start;
        ensure!(kept < Duration::from_millis(4_500), "{what} was kept for {kept:?}");
    }
    ensure!(graph.connections() == 0, "the upstream was dialled");
    denied(&daemon, 0, &["unknown-protocol"])?;
    closed(&daemon, "handshake-timeout")?;
    closed(&daemon, "handshake-failed")?;
    daemon.finish()
}
