//! A WebSocket's opening handshake, held as any other request: what people are told of it, what their yes opens, and
//! what ends that.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::Verdict;
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::scripted::Scripted;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};

use super::fixture::{ADA, BOB, open, people, says, shown};

const CHAT: &str = r#"
@id("reach")
permit (principal, action in Action::"reach", resource == Target::"graph");

@id("chat")
@approval("crm-approvers")
permit (principal, action in [Action::"http:GET", Action::"http:websocket"], resource == Target::"graph");
"#;

const SUMMARY: &str = "GET /chat as a WebSocket, opaque";

/// Of one handshake each.
const KEYS: [&str; 3] = ["dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEA==", "EA8ODQwLCgkIBwYFBAMCAQ=="];

/// What a daemon is started with, in front of a server that agrees to every WebSocket and gives back each byte, in
/// capitals. These are no frames.
fn order(policy: &str, hold: &str) -> Result<(Scripted, Order)> {
    let authority = Authority::new()?;
    let upstream = Scripted::start(authority.server(&["graph.microsoft.com"])?, |peer| {
        peer.request()?;
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")?;
        peer.send("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")?;
        loop {
            let byte = peer.byte()?;
            peer.send([byte.to_ascii_uppercase()])?;
        }
    })?;
    let order = Order {
        purpose: "approvals",
        policy: policy.to_owned(),
        resolve: vec![("graph.microsoft.com".to_owned(), upstream.address())],
        extra_ca: authority.pem(),
        targets: GRAPH_TARGET.to_owned(),
        more: people(hold),
        workload: String::new(),
        bring: vec!["wire"],
    };
    Ok((upstream, order))
}

fn begin(policy: &str, hold: &str) -> Result<(Scripted, Daemon)> {
    let (upstream, order) = order(policy, hold)?;
    let daemon = Daemon::start(&order)?;
    Ok((upstream, daemon))
}

fn handshake(key: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: graph.microsoft.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: talk\r\n\r\n"
    )
}

fn asking(daemon: &Daemon, key: &str) -> Result<Wire> {
    let mut wire = Wire::tls_of_a_workload_that_stays(daemon)?;
    wire.send(handshake(key))?;
    Ok(wire)
}

/// The WebSocket is there, and passes on what is said.
fn is_open(wire: &mut Wire) -> Result<()> {
    let head = wire.head()?;
    ensure!(head.status == 101 && head.header("upgrade") == Some("websocket"), "{head:?}");
    wire.send("abc")?;
    wire.until("ABC")?;
    Ok(())
}

#[test]
fn a_yes_opens_this_websocket_once_and_a_no_none() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, daemon) = begin(CHAT, "20s")?;
    let mut wire = asking(&daemon, KEYS[0])?;
    let id = open(&daemon, 1)?.remove(0);
    ensure!(upstream.came().is_empty(), "something was sent before anybody answered");
    let asked = shown(&daemon, ADA, &id)?;
    ensure!(asked["action"] == "http:websocket" && asked["shape"]["websocket"] == true, "{asked}");
    let text = says(&daemon, ADA, &["approvals", "show", &id])?;
    for part in [
        SUMMARY,
        "opens      a WebSocket: whatever is said over it afterwards, by either side, isn't looked at",
        "lets through this WebSocket, exactly",
        "sec-websocket-protocol: talk",
    ] {
        ensure!(text.contains(part), "no `{part}` in:\n{text}");
    }
    says(&daemon, ADA, &["approvals", "approve", &id])?;
    is_open(&mut wire)?;

    // Neither another one nor the plain GET of the same URL is let through by it: of both somebody is asked.
    let mut other = asking(&daemon, KEYS[1])?;
    let second = open(&daemon, 1)?.remove(0);
    let mut plain = Wire::tls(&daemon)?;
    let head = handshake(KEYS[1]).replace("Connection: Upgrade\r\nUpgrade: websocket\r\n", "");
    plain.send(&head)?;
    let both = open(&daemon, 2)?;
    ensure!(second != id && both[0] == second && both[1] != second, "{both:?}");
    says(&daemon, BOB, &["approvals", "deny", &second])?;
    let denied = other.answer()?;
    ensure!(denied.status == 403 && denied.code() == "approval-denied", "{denied:?}");
    ensure!(open(&daemon, 1)? == both[1..], "a no to the one was taken for one to the other");
    // The first one goes on.
    wire.send("d")?;
    wire.until("D")?;
    let came = String::from_utf8_lossy(&upstream.came()).into_owned();
    ensure!(came.matches("GET /chat").count() == 1, "it was asked for more than once: {came}");
    let is_let_through = |one: &recorded::Operation| one.summary == SUMMARY && one.verdict == Verdict::Allow;
    let opened = recorded::wait_for(&daemon.database(), 0, is_let_through)?;
    ensure!(opened.action == "http:websocket" && opened.policies == ["chat"], "{opened:?}");
    drop((wire, other, plain));
    daemon.finish()
}

/// Each handshake has a key of its own (RFC 6455 section 4.1).
#[test]
fn a_retry_with_another_key_joins_the_question_and_finds_its_grant() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, daemon) = begin(CHAT, "300ms")?;
    let mut wire = asking(&daemon, KEYS[0])?;
    let answer = wire.answer()?;
    ensure!(answer.status == 403 && answer.code() == "approval-pending", "{answer:?}");
    ensure!(answer.header("retry-after") == Some("30"), "{}", answer.head);
    let id = answer.json()?["approval"].as_str().context("an approval")?.to_owned();
    wire.send(handshake(KEYS[1]))?;
    ensure!(wire.answer()?.json()?["approval"] == id, "another question was asked");
    ensure!(open(&daemon, 1)? == [id.clone()] && upstream.came().is_empty(), "another question is open");
    says(&daemon, ADA, &["approvals", "approve", &id])?;
    wire.send(handshake(KEYS[2]))?;
    is_open(&mut wire)?;
    drop(wire);
    daemon.finish()
}

#[test]
fn a_websocket_is_cut_when_the_grant_that_opened_it_ends() -> Result<()> {
    require_root!(Ok(()));
    let short = CHAT.replace("@approval", "@grant_for(\"5s\")\n@approval");
    for (policy, is_revoked) in [(CHAT, true), (short.as_str(), false)] {
        let (_upstream, daemon) = begin(policy, "20s")?;
        let mut wire = asking(&daemon, KEYS[0])?;
        let id = open(&daemon, 1)?.remove(0);
        says(&daemon, ADA, &["approvals", "approve", &id])?;
        let approved = Instant::now();
        is_open(&mut wire)?;
        // It is used up, and what it let through goes on all the same.
        let grants = daemon.json(&["grants", "list", "--all"])?;
        ensure!(grants[0]["used"] == 1 && grants[0]["uses"] == 1, "{grants}");
        wire.send("d")?;
        wire.until("D")?;
        if is_revoked {
            daemon.ask(&["grants", "revoke", grants[0]["id"].as_str().context("a grant")?])?;
        }
        let limit = if is_revoked { Instant::now() } else { approved + Duration::from_secs(5) };
        let (_, end, at) = wire.rest_and_when()?;
        let late = at.saturating_duration_since(limit);
        ensure!(late < Duration::from_secs(1), "it went on for {late:?}");
        ensure!(end == "reset" || end == "cut", "it ended with {end}");
        let cut = recorded::wait_for(&daemon.database(), 0, |one| one.summary == SUMMARY && one.outcome.is_some())?;
        ensure!(cut.outcome == Some(("grant-ended".into(), Some(101))), "{cut:?}");
        daemon.finish()?;
    }
    Ok(())
}

/// It would be denied after their yes as well.
#[test]
fn nobody_is_asked_about_a_websocket_under_a_mask() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, mut order) = order(CHAT, "20s")?;
    order.more += "[[mask]]\nname = \"pii\"\ndetect = [\"email\"]\n";
    order.targets += "mask = [\"pii\"]\n";
    let daemon = Daemon::start(&order)?;
    let mut wire = asking(&daemon, KEYS[0])?;
    let answer = wire.answer()?;
    ensure!(answer.status == 403 && answer.code() == "masked-websocket", "{answer:?}");
    ensure!(open(&daemon, 0)?.is_empty() && upstream.came().is_empty(), "somebody was asked");
    drop(wire);
    daemon.finish()
}
