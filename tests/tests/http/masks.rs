//! What a process isn't to see, and doesn't: answers under masks, over HTTP/1.1.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interceptor::record::event::Verdict;
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::scripted::{Peer, Scripted};
use interceptor_tests::wire::{Answer, Wire};
use interceptor_tests::{recorded, require_root};
use serde_json::Value;

use super::fixture::{ALL, denied, finished, order, order_to, outcome, payloads};

/// Members, mail addresses wherever they stand, and a header.
const PII: &str = "[[mask]]\nname = \"pii\"\njson = [\"$..mobilePhone\"]\ndetect = [\"email\"]\nheaders = [\"x-user\"]\n\
                   deny_query = [\"mail\", \"$search\"]\n";

/// The target, whose answers are masked by `mask` whatever policy says.
fn masked_target(mask: &str) -> String {
    format!("{GRAPH_TARGET}mask = [\"{mask}\"]\n")
}

/// A daemon in front of a Graph whose answers are masked.
fn begin(policy: &str, targets: String, masks: &str) -> Result<(Graph, Daemon)> {
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&Order { targets, more: masks.to_owned(), ..order(&graph, policy) })?;
    Ok((graph, daemon))
}

/// A daemon in front of an upstream that follows `script`, and whose answers are masked.
fn scripted(script: impl Fn(&mut Peer) -> std::io::Result<()> + Send + Sync + 'static) -> Result<(Scripted, Daemon)> {
    let authority = interceptor_tests::authority::Authority::new()?;
    let upstream = Scripted::start(authority.server(&["graph.microsoft.com"])?, script)?;
    let order = order_to(upstream.address(), authority.pem());
    let daemon = Daemon::start(&Order { targets: masked_target("pii"), more: PII.to_owned(), ..order })?;
    Ok((upstream, daemon))
}

/// An upstream that answers each request with this head, a `Content-Length` where `length` says so, and this body.
fn answering(head: &'static str, body: &'static [u8]) -> Result<(Scripted, Daemon)> {
    scripted(move |peer| {
        loop {
            let _head = peer.request()?;
            peer.send(format!("HTTP/1.1 200 OK\r\n{head}\r\nContent-Length: {}\r\n\r\n", body.len()))?;
            peer.send(body)?;
        }
    })
}

fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzEncoder::new(text, flate2::Compression::fast()).read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn an_answer_is_masked_by_its_permit_and_by_its_target() -> Result<()> {
    require_root!(Ok(()));
    let by_policy = format!("@mask(\"pii\") {ALL}");
    for (policy, targets) in [(by_policy.as_str(), GRAPH_TARGET.to_owned()), (ALL, masked_target("pii"))] {
        let (graph, daemon) = begin(policy, targets, PII)?;
        let mut wire = Wire::tls(&daemon)?;
        let answer = wire.ask("GET", "/v1.0/users")?;
        let people = answer.json()?["value"].as_array().cloned().context("people")?;
        ensure!(people.len() == 3, "{answer:?}");
        for (person, seen) in graph.people().iter().zip(&people) {
            ensure!(seen["displayName"] == person.display_name && seen["id"] == person.id, "{seen}");
            ensure!(seen["mobilePhone"] == "[redacted]" && seen["mail"] == "[redacted:email]", "{seen}");
        }
        ensure!(answer.header("content-length") == Some(&answer.body.len().to_string()), "{}", answer.head);
        let masked = masked(&daemon, "GET /v1.0/users")?;
        ensure!(masked == serde_json::json!({ "$..mobilePhone": 3, "email": 6 }), "{masked}");
        // A digest of what is masked could be guessed.
        let (_, response) = payloads(&daemon, "GET /v1.0/users")?;
        let digest = blake3::hash(&answer.body).to_hex().to_string();
        ensure!(response.bytes == answer.body.len() as u64 && response.digest == Some(digest), "{response:?}");
        let replayed = replayed(&daemon, "GET /v1.0/users")?;
        ensure!(
            !replayed.contains("@contoso.example") && replayed.contains("masked: 3 $..mobilePhone, 6 email"),
            "{replayed}"
        );
        ensure!(replayed.contains("  <*      \"mail\": \"[redacted:email]\""), "{replayed}");
        drop(wire);
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn what_was_dropped_is_marked_where_it_was_when_a_session_is_replayed() -> Result<()> {
    require_root!(Ok(()));
    let masks = "[[mask]]\nname = \"pii\"\njson = [\"$..mobilePhone\"]\nstrategy = \"drop\"\n";
    let (_graph, daemon) = begin(ALL, masked_target("pii"), masks)?;
    let mut wire = Wire::tls(&daemon)?;
    let answer = wire.ask("GET", "/v1.0/users")?;
    ensure!(answer.status == 200 && !answer.json()?.to_string().contains("mobilePhone"), "{answer:?}");
    let replayed = replayed(&daemon, "GET /v1.0/users")?;
    ensure!(replayed.matches("  <*      (dropped)\n").count() == 3, "{replayed}");
    ensure!(replayed.contains("masked: 3 $..mobilePhone") && !replayed.contains("no `*`"), "{replayed}");
    drop(wire);
    daemon.finish()
}

/// What `sessions show --json` says was masked in the operation with this summary.
fn masked(daemon: &Daemon, summary: &str) -> Result<Value> {
    let session = finished(daemon, summary)?.session.context("a session")?;
    let story = daemon.json(&["sessions", "show", &session.to_string()])?;
    let operations = story["operations"].as_array().context("operations")?;
    let found = operations.iter().find(|one| one["summary"] == summary).context("the operation")?;
    Ok(found["masked"].clone())
}

/// The session of the operation with this summary, replayed at once.
pub(crate) fn replayed(daemon: &Daemon, summary: &str) -> Result<String> {
    let session = finished(daemon, summary)?.session.context("a session")?;
    daemon.ask(&["sessions", "replay", &session.to_string(), "--speed", "0"])
}

#[test]
fn an_answer_that_cant_be_masked_is_withheld_and_the_connection_lives_on() -> Result<()> {
    require_root!(Ok(()));
    const SECRET: &str = "ada@contoso.example";
    let late = format!("{{\"a\":\"{}\",\"mail\":\"{SECRET}\"", "x".repeat(1000));
    let gzipped = gzip(format!("{{\"mail\":\"{SECRET}\"}}").as_bytes())?;
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("Content-Type: image/png", SECRET.into(), "`image/png` can't be masked"),
        ("X-A: 1", SECRET.into(), "without a Content-Type"),
        ("Content-Type: text/plain", format!("mobilePhone: 1, {SECRET}").into(), "members of JSON documents"),
        ("Content-Type: text/csv", format!("+44 20 7946 0958,{SECRET}\n").into(), "no column of such a name"),
        ("Content-Type: application/json", format!("<p>{SECRET}</p>").into(), "can't be read"),
        ("Content-Type: application/json", late.into(), "isn't complete"),
        ("Content-Type: application/json\r\nContent-Encoding: compress", SECRET.into(), "`compress`"),
        ("Content-Type: application/json\r\nContent-Encoding: gzip", SECRET.into(), "can't be read"),
        (
            "Content-Type: application/json\r\nContent-Encoding: gzip",
            gzipped[..gzipped.len() / 2].into(),
            "can't be read",
        ),
    ];
    for (head, body, reason) in table {
        let (_upstream, daemon) = answering(leak(head), Vec::leak(body))?;
        let mut wire = Wire::tls(&daemon)?;
        // Twice: the client's connection is still good.
        for _ in 0..2 {
            let answer = wire.ask("GET", "/v1.0/me")?;
            ensure!(answer.status == 502 && answer.code() == "response-withheld", "{head}: {answer:?}");
            ensure!(
                answer.json()?["detail"].as_str().is_some_and(|detail| detail.contains(reason)),
                "{head}: {answer:?}"
            );
            ensure!(!String::from_utf8_lossy(&answer.body).contains(SECRET), "{answer:?}");
        }
        ensure!(outcome(&daemon, "GET /v1.0/me")? == ("response-withheld".into(), Some(502)), "{head}");
        drop(wire);
        daemon.finish()?;
    }
    Ok(())
}

fn leak(text: &str) -> &'static str {
    text.to_owned().leak()
}

#[test]
fn what_turns_out_unreadable_later_is_cut_and_never_looks_complete() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        let _head = peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n[")?;
        peer.send("{\"mail\":\"ada@contoso.example\"},".repeat(10_000))?;
        peer.send("] and no JSON")?;
        peer.close()
    })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /v1.0/all HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    let came = String::from_utf8_lossy(&wire.rest()?.0).into_owned();
    ensure!(came.starts_with("HTTP/1.1 200") && came.contains("[redacted:email]"), "{}", &came[..came.len().min(300)]);
    ensure!(!came.ends_with("0\r\n\r\n") && !came.contains("ada@"), "it looks complete: {}", &came[came.len() - 100..]);
    ensure!(outcome(&daemon, "GET /v1.0/all")? == ("response-withheld".into(), Some(200)));
    daemon.finish()
}

#[test]
fn a_compressed_answer_stays_compressed_and_is_masked() -> Result<()> {
    require_root!(Ok(()));
    let body = gzip(br#"{"mail":"ada@contoso.example","n":1.50}"#)?;
    let (upstream, daemon) = answering(
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\nETag: \"v1\"\r\nX-User: ada\r\nDigest: sha-256=x",
        Vec::leak(body),
    )?;
    let mut wire = Wire::tls(&daemon)?;
    let ask = |wire: &mut Wire, more: &str| -> Result<Answer> {
        wire.send(format!("GET /v1.0/me HTTP/1.1\r\nHost: graph.microsoft.com\r\n{more}\r\n"))?;
        wire.answer()
    };
    let answer = ask(&mut wire, "Accept-Encoding: gzip, dcb\r\nRange: bytes=0-9\r\n")?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_string(&mut text)?;
    ensure!(text == r#"{"mail":"[redacted:email]","n":1.50}"#, "{text}");
    ensure!(answer.header("x-user") == Some("[redacted]") && answer.header("digest").is_none(), "{}", answer.head);
    let tag = answer.header("etag").context("an entity tag")?.to_owned();
    ensure!(tag.starts_with("W/\"") && !tag.contains("v1"), "{tag}");
    let sent = String::from_utf8_lossy(&upstream.came()).to_lowercase();
    ensure!(sent.contains("accept-encoding: gzip\r\n") && !sent.contains("range"), "{sent}");
    // Our token is the server's tag again, upstream.
    let _answer = ask(&mut wire, &format!("If-None-Match: {tag}\r\n"))?;
    let sent = String::from_utf8_lossy(&upstream.came()).to_lowercase();
    ensure!(sent.contains("if-none-match: \"v1\"\r\n"), "{sent}");
    drop(wire);
    daemon.finish()
}

#[test]
fn events_are_masked_one_by_one_as_they_come() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        let _head = peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for event in ["data: {\"mobilePhone\":\"1\"}\n\n", "data: \"ask ada@contoso.example\"\n\n"] {
            // In two pieces, and then nothing until the client asks for more.
            let (first, second) = event.split_at(12);
            peer.send(format!("{:x}\r\n{first}\r\n", first.len()))?;
            std::thread::sleep(Duration::from_millis(20));
            peer.send(format!("{:x}\r\n{second}\r\n", second.len()))?;
            while peer.byte()? != b'x' {}
        }
        peer.send("0\r\n\r\n")
    })?;
    let mut wire = Wire::tls(&daemon)?;
    let chunked = "POST /events HTTP/1.1\r\nHost: graph.microsoft.com\r\nTransfer-Encoding: chunked\r\n\r\n";
    wire.send(chunked)?;
    wire.until("data: {\"mobilePhone\":\"[redacted]\"}\n\n")?;
    wire.send("1\r\nx\r\n")?;
    wire.until("data: \"ask [redacted:email]\"\n\n")?;
    wire.send("1\r\nx\r\n0\r\n\r\n")?;
    drop(wire);
    daemon.finish()
}

#[test]
fn a_query_that_would_tell_and_a_websocket_are_denied_and_never_forwarded() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin("permit (principal, action, resource);", masked_target("pii"), PII)?;
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (code, path, more) in [
        ("masked-query", "/v1.0/users?$filter=startswith(mail,'a')", ""),
        ("masked-query", "/v1.0/users?%24orderby=Mail", ""),
        ("masked-query", "/v1.0/users?$search=ada", ""),
        ("masked-websocket", "/live", upgrade),
    ] {
        let after = recorded::last(&daemon.database())?;
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: graph.microsoft.com\r\n{more}\r\n"))?;
        let answer = wire.answer()?;
        ensure!(answer.status == 403 && answer.code() == code, "{path}: {answer:?}");
        ensure!(denied(&daemon, after, &[code])?.verdict == Verdict::Deny, "{path}");
    }
    ensure!(graph.received().is_empty(), "the upstream saw {:?}", graph.received());
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users?$select=mail")?.status == 200, "choosing fields tells nothing");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_pseudonym_is_the_same_in_the_answer_and_in_the_record_and_after_a_restart() -> Result<()> {
    require_root!(Ok(()));
    let masks = "[[mask]]\nname = \"pii\"\ndetect = [\"email\"]\nstrategy = \"pseudonym\"\n";
    let (_graph, mut daemon) = begin(ALL, masked_target("pii"), masks)?;
    let seen = |daemon: &Daemon| -> Result<String> {
        let mut wire = Wire::tls(daemon)?;
        let answer = wire.ask("GET", "/v1.0/users/00000001-1111-4222-8333-444455556666")?;
        Ok(answer.json()?["mail"].as_str().context("a mail address")?.to_owned())
    };
    let first = seen(&daemon)?;
    ensure!(first.ends_with("@masked.invalid"), "{first}");
    let mut wire = Wire::tls(&daemon)?;
    let body = r#"{"to":"adele.vance@contoso.example"}"#;
    wire.send(format!(
        "POST /echo?to=adele.vance@contoso.example HTTP/1.1\r\nHost: graph.microsoft.com\r\nX-To: adele.vance@contoso.example\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))?;
    let echoed = wire.answer()?.json()?;
    ensure!(echoed["body"] == format!("{{\"to\":\"{first}\"}}"), "{echoed}");
    let replayed = replayed(&daemon, "POST /echo")?;
    ensure!(!replayed.contains("adele"), "{replayed}");
    for sent in [
        format!("POST /echo?to={}", first.replace('@', "%40")),
        format!("x-to: {first}"),
        format!("\"to\": \"{first}\""),
    ] {
        ensure!(replayed.contains(&sent), "no `{sent}` in {replayed}");
    }
    drop(wire);
    daemon.kill9()?;
    daemon.restart()?;
    ensure!(seen(&daemon)? == first, "a restart changed it");
    daemon.finish()
}

#[test]
fn a_stream_is_cut_when_more_of_it_has_to_be_masked() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&Order { more: PII.to_owned(), ..order(&graph, ALL) })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    wire.until("tick")?;
    let output = daemon.reload(&format!("@mask(\"pii\") {ALL}"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!wire.rest()?.0.ends_with(b"0\r\n\r\n"), "it looks complete");
    ensure!(outcome(&daemon, "GET /stream")?.0 == "policy-changed");
    daemon.finish()
}
