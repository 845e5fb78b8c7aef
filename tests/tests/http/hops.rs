//! What belongs to one hop: what a client says of its connection changes nothing that was judged, and what an upstream says
//! of its own isn't passed on.

use anyhow::{Result, ensure};
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::require_root;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::wire::{Answer, Wire};

use super::fixture::{HOST, order_to, outcome, scripted};
use super::masks::replayed;

#[test]
fn what_connection_names_is_gone_before_it_is_judged() -> Result<()> {
    require_root!(Ok(()));
    let authority = Authority::new()?;
    let upstream = Scripted::start(authority.server(&[HOST])?, |peer| {
        loop {
            let head = peer.request()?.to_lowercase();
            let told = format!("{} {}", head.contains("x-account: 42"), head.contains("x-dry-run"));
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}", told.len()))?;
        }
    })?;
    let pinned = format!("{GRAPH_TARGET}pin = {{ headers = {{ \"X-Account\" = \"42\" }} }}\n");
    let daemon = Daemon::start(&Order { targets: pinned, ..order_to(upstream.address(), authority.pem()) })?;
    let mut wire = Wire::tls(&daemon)?;
    let mut ask = |more: &str| -> Result<(u16, String)> {
        wire.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n"))?;
        let answer = wire.answer()?;
        let told = if answer.status == 200 { String::from_utf8(answer.body.clone())? } else { answer.code() };
        Ok((answer.status, told))
    };
    ensure!(ask("X-Dry-Run: 1\r\n")? == (200, "true true".into()));
    let named = "Connection: keep-alive, X-Account, x-dry-run\r\nX-Dry-Run: 1\r\n";
    ensure!(ask(named)? == (200, "true false".into()), "what is pinned can be taken out");
    // Another value is none either, where it isn't sent.
    ensure!(ask("Connection: X-Account\r\nX-Account: 7\r\n")? == (200, "true false".into()));
    ensure!(ask("X-Account: 7\r\n")? == (403, "pinned-header".into()));
    ensure!(ask("X_Account: 7\r\n")? == (400, "header-not-canonical".into()));
    drop(wire);
    daemon.finish()
}

/// What follows a body comes when all is decided: it is recorded, and what would have been judged in the head isn't sent.
#[test]
fn trailers_that_would_decide_something_are_refused() -> Result<()> {
    require_root!(Ok(()));
    let authority = Authority::new()?;
    // It answers what came to its end.
    let upstream = Scripted::start(authority.server(&[HOST])?, |peer| {
        peer.request()?;
        let mut body = Vec::new();
        while !(body.starts_with(b"3\r\nabc\r\n0\r\n") && body.ends_with(b"\r\n\r\n")) {
            body.push(peer.byte()?);
        }
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()))?;
        peer.send(body)
    })?;
    let targets = format!("{GRAPH_TARGET}pin = {{ headers = {{ \"X-Account\" = \"42\" }} }}\n");
    let daemon = Daemon::start(&Order { targets, ..order_to(upstream.address(), authority.pem()) })?;
    let ask = |path: &str, name: &str, value: &str| -> Result<Answer> {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n\
             3\r\nabc\r\n0\r\n{name}: {value}\r\n\r\n"
        ))?;
        wire.answer()
    };
    for name in [
        "X-Api-Key",
        "Authorization",
        "X_HTTP_Method_Override",
        "x_account",
        "X-Ms-Copy-Source",
        "Content-Encoding",
        "Transfer_Encoding",
    ] {
        let refused = ask("/upload/refused", name, "https://x/?not-sent")?;
        ensure!(refused.status == 400 && refused.code() == "trailer-refused", "{name}: {refused:?}");
    }
    ensure!(outcome(&daemon, "POST /upload/refused")?.0 == "trailer-refused");
    let came = |text: &[u8]| upstream.came().windows(text.len()).any(|part| part == text);
    ensure!(!came(b"\r\n0\r\n") && !came(b"not-sent"), "what was refused came to its end");
    let passed = ask("/upload", "X-Sum", "6")?;
    ensure!(passed.status == 200 && String::from_utf8_lossy(&passed.body).contains("6"), "{passed:?}");
    let kept = replayed(&daemon, "POST /upload")?;
    ensure!(kept.to_lowercase().contains("x-sum: 6"), "it isn't recorded: {kept}");
    daemon.finish()
}

#[test]
fn a_reason_phrase_of_the_upstreams_own_isnt_passed_on() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        peer.request()?;
        peer.send("HTTP/1.1 404 No user bob@contoso.com\r\nContent-Length: 0\r\n\r\n")
    })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(format!("GET /bob HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))?;
    let head = wire.until("\r\n\r\n")?;
    ensure!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
    drop(wire);
    daemon.finish()
}

#[test]
fn an_answer_in_a_transfer_coding_that_hides_it_is_refused() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(format!("GET /hidden HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))?;
    let answer = wire.answer()?;
    ensure!(answer.status == 502 && answer.code() == "upstream-malformed", "{answer:?}");
    ensure!(outcome(&daemon, "GET /hidden")?.0 == "upstream-malformed");
    drop(wire);
    daemon.finish()
}
