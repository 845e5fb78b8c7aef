//! WebSocket: by a policy of its own, opaque once it is open, and cut like anything else.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use interceptor::record::event::What;
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::scripted::{Peer, Scripted};
use interceptor_tests::wire::{Answer, Wire};
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, reload};

pub(crate) const SOCKETS: &str = r#"
permit (principal, action in Action::"reach", resource);
@id("chat") permit (principal, action == Action::"http:websocket", resource) when { context.http.path == "/chat" };
"#;

const OPENING: &str = "Host: graph.microsoft.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A server that agrees to a WebSocket and then does what `script` says.
pub(crate) fn begin_with(
    policy: &str,
    script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
) -> Result<(Scripted, Daemon)> {
    begin_before(policy, move |peer| {
        let head = peer.request()?.to_ascii_lowercase();
        if !(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n")) {
            return peer.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")?;
        peer.send("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")?;
        script(peer)
    })
}

/// A server that does what `script` says.
fn begin_before(
    policy: &str,
    script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
) -> Result<(Scripted, Daemon)> {
    let authority = Authority::new()?;
    let upstream = Scripted::start(authority.server(&["graph.microsoft.com"])?, script)?;
    let daemon = Daemon::start(&Order {
        purpose: "websocket",
        policy: policy.to_owned(),
        resolve: vec![("graph.microsoft.com".to_owned(), upstream.address())],
        extra_ca: authority.pem(),
        targets: GRAPH_TARGET.to_owned(),
        more: "[limits]\ndrain = \"1s\"\n".to_owned(),
        workload: String::new(),
        bring: vec!["wire"],
    })?;
    Ok((upstream, daemon))
}

/// A server that agrees to a WebSocket and gives back each byte, in capitals; `!` makes it close. These are no frames.
fn begin(policy: &str) -> Result<(Scripted, Daemon)> {
    begin_with(policy, |peer| {
        loop {
            let byte = peer.byte()?;
            peer.send(char::from(byte).to_ascii_uppercase().to_string())?;
            if byte == b'!' {
                return peer.close();
            }
        }
    })
}

/// Opens a WebSocket, over which nothing has gone yet.
pub(crate) fn opened(daemon: &Daemon, path: &str) -> Result<Wire> {
    let mut wire = Wire::tls_of_a_workload_that_stays(daemon)?;
    wire.send(format!("GET {path} HTTP/1.1\r\n{OPENING}"))?;
    let head = wire.head()?;
    ensure!(head.status == 101 && head.header("upgrade") == Some("websocket"), "{head:?}");
    ensure!(head.header("sec-websocket-accept").is_some(), "{head:?}");
    Ok(wire)
}

fn open(daemon: &Daemon, path: &str) -> Result<Wire> {
    let mut wire = opened(daemon, path)?;
    wire.send("abc")?;
    wire.until("ABC")?;
    Ok(wire)
}

pub(crate) const SUMMARY: &str = "GET /chat as a WebSocket, opaque";

#[test]
fn a_websocket_passes_and_is_counted_and_recorded_as_opaque() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = begin(SOCKETS)?;
    let mut wire = open(&daemon, "/chat")?;
    wire.send("de!")?;
    let (came, end) = wire.rest()?;
    ensure!(came == b"DE!" && end == "eof", "{end}: {came:?}");
    let ended = recorded::wait_for(&daemon.database(), 0, |one| one.summary == SUMMARY && one.outcome.is_some())?;
    ensure!(ended.action == "http:websocket" && ended.policies == ["chat"], "{ended:?}");
    ensure!(ended.outcome == Some(("done".into(), Some(101))), "{ended:?}");
    let payloads = recorded::events(&daemon.database(), 0)?.into_iter().find_map(|(_, event)| match event.what {
        What::OperationFinished { operation, request, response, .. } if operation == ended.id => {
            Some((request, response))
        }
        _ => None,
    });
    let digest = |text: &str| Some(blake3::hash(text.as_bytes()).to_hex().to_string());
    let (request, response) = payloads.expect("it has ended");
    ensure!((request.bytes, request.digest) == (6, digest("abcde!")), "the request is counted otherwise");
    ensure!((response.bytes, response.digest) == (6, digest("ABCDE!")), "the response is counted otherwise");
    daemon.finish()
}

/// It runs the plain GET, which nobody decided (RFC 9110 section 7.8). That it refuses the WebSocket may be known.
#[test]
fn what_a_server_answers_that_knows_no_websockets_is_kept_back() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = begin_before(SOCKETS, |peer| {
        let (status, body) =
            if peer.request()?.contains("?no") { ("426 Upgrade", "denied") } else { ("200 OK", "secret") };
        peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\n\r\n{body}"))
    })?;
    let ask = |path: &str| -> Result<Answer> {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!("GET {path} HTTP/1.1\r\n{OPENING}"))?;
        wire.answer()
    };
    let kept_back = ask("/chat")?;
    ensure!(kept_back.status == 502 && kept_back.code() == "upstream-malformed", "{kept_back:?}");
    let ended = recorded::wait_for(&daemon.database(), 0, |one| one.summary == SUMMARY && one.outcome.is_some())?;
    ensure!(ended.outcome == Some(("upstream-malformed".into(), Some(502))), "{ended:?}");
    let refused = ask("/chat?no")?;
    ensure!(refused.status == 426, "{refused:?}");
    daemon.finish()
}

#[test]
fn all_of_http_is_no_permit_for_a_websocket() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(format!("GET /chat HTTP/1.1\r\n{OPENING}"))?;
    let answer = wire.answer()?;
    ensure!(answer.status == 403 && answer.code() == "denied-by-default", "{answer:?}");
    ensure!(upstream.came().is_empty(), "it was asked for");
    daemon.finish()
}

#[test]
fn a_websocket_is_cut_when_policy_or_time_says_so() -> Result<()> {
    require_root!(Ok(()));
    for (code, change) in
        [("policy-changed", ALL.to_owned()), ("max-session", format!("@max_session(\"1s\")\n{}", SOCKETS.trim()))]
    {
        let (upstream, daemon) = begin(SOCKETS)?;
        let mut wire = open(&daemon, "/chat")?;
        let start = Instant::now();
        reload(&daemon, &change)?;
        let reloaded = Instant::now();
        let so_far = upstream.came().len();
        // The connection may have ended by now.
        let _ = wire.send(if code == "policy-changed" { "more" } else { "" });
        let (_, end, at) = wire.rest_and_when()?;
        // Within a second of the reload, or of the end of the time that it has had since it was opened, if that is later.
        let limit = if code == "policy-changed" { reloaded } else { reloaded.max(start + Duration::from_secs(1)) };
        let late = at.saturating_duration_since(limit);
        ensure!(late < Duration::from_secs(1), "it took {late:?}");
        ensure!(end == "reset" || end == "cut", "it ended with {end}");
        ensure!(upstream.came().len() == so_far, "it went on");
        let cut = recorded::wait_for(&daemon.database(), 0, |one| one.summary == SUMMARY && one.outcome.is_some())?;
        ensure!(cut.outcome == Some((code.into(), Some(101))), "{cut:?}");
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn a_websocket_is_cut_by_a_stopping_daemon() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, mut daemon) = begin(SOCKETS)?;
    let wire = open(&daemon, "/chat")?;
    let start = Instant::now();
    ensure!(daemon.stop()?.success(), "it failed");
    ensure!(start.elapsed() < Duration::from_secs(8), "it took {:?}", start.elapsed());
    let (_, end) = wire.rest()?;
    ensure!(end == "reset" || end == "cut", "it ended with {end}");
    let cut = recorded::wait_for(&daemon.database(), 0, |one| one.summary == SUMMARY && one.outcome.is_some())?;
    ensure!(cut.outcome == Some(("daemon-stopped".into(), Some(101))), "{cut:?}");
    daemon.finish()
}

#[test]
fn a_server_that_does_not_agree_is_heard() -> Result<()> {
    require_root!(Ok(()));
    let authority = Authority::new()?;
    let upstream = Scripted::start(authority.server(&["graph.microsoft.com"])?, |peer| {
        for answer in [
            "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tls/1.0\r\n\r\n",
        ] {
            peer.request()?;
            peer.send(answer)?;
        }
        Ok(())
    })?;
    let daemon = Daemon::start(&Order {
        purpose: "websocket",
        policy: SOCKETS.to_owned(),
        resolve: vec![("graph.microsoft.com".to_owned(), upstream.address())],
        extra_ca: authority.pem(),
        targets: GRAPH_TARGET.to_owned(),
        more: String::new(),
        workload: String::new(),
        bring: vec!["wire"],
    })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(format!("GET /chat HTTP/1.1\r\n{OPENING}"))?;
    let answer = wire.answer()?;
    ensure!(answer.status == 426 && answer.body == b"no", "{answer:?}");
    wire.send(format!("GET /chat HTTP/1.1\r\n{OPENING}"))?;
    let answer = wire.answer()?;
    ensure!(answer.status == 502 && answer.code() == "upstream-malformed", "{answer:?}");
    daemon.finish()
}
