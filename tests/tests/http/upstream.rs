//! Upstreams that fail: the client is told inside its completed TLS, or sees that what it got isn't the whole.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::scripted::Scripted;
use interceptor_tests::wire::{Answer, Wire};
use interceptor_tests::{port, require_root};

use super::fixture::{ALL, HOST, begin, closed, finished, order_to, outcome, scripted};

const CONNECT: &str = "connect to graph.microsoft.com port 443";

fn refused_with(daemon: &Daemon, status: u16, code: &str) -> Result<Answer> {
    let answer = Wire::tls(daemon)?.ask("GET", "/v1.0/users")?;
    ensure!(answer.status == status && answer.code() == code, "not {status} {code}: {answer:?}");
    ensure!(answer.header("content-type") == Some("application/problem+json"), "{answer:?}");
    Ok(answer)
}

#[test]
fn an_upstream_that_is_down_is_502_inside_tls() -> Result<()> {
    require_root!(Ok(()));
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
    let daemon = Daemon::start(&order_to(free, Authority::new()?.pem()))?;
    refused_with(&daemon, 502, "upstream-refused")?;
    ensure!(outcome(&daemon, CONNECT)?.0 == "upstream-refused", "recorded otherwise");
    daemon.finish()
}

#[test]
fn an_upstream_whose_certificate_proves_nothing_is_502_and_gets_no_request() -> Result<()> {
    require_root!(Ok(()));
    let (known, other) = (Authority::new()?, Authority::new()?);
    for (what, tls) in [
        ("no root that this host trusts issued it", other.server(&[HOST])?),
        ("it has expired", known.server_until(&[HOST], 2020)?),
        ("it is for another name", known.server(&["other.example"])?),
    ] {
        let upstream = Scripted::start(tls, |peer| peer.request().map(drop))?;
        let daemon = Daemon::start(&order_to(upstream.address(), known.pem()))?;
        let answer = refused_with(&daemon, 502, "upstream-untrusted")?;
        ensure!(answer.json()?["detail"].as_str().is_some_and(|text| text.contains(what)), "not `{what}`: {answer:?}");
        ensure!(upstream.came().is_empty(), "{what}: it got a request");
        ensure!(outcome(&daemon, CONNECT)?.0 == "upstream-untrusted", "{what}: recorded otherwise");
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn an_upstream_that_answers_garbage_or_nothing_is_502() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        match peer.request()?.split(' ').nth(1) {
            Some("/garbage") => peer.send("this is no answer\r\n\r\n")?,
            Some("/switch") => {
                peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")?
            }
            _ => {}
        }
        peer.close()
    })?;
    let mut wire = Wire::tls(&daemon)?;
    for (path, code) in
        [("/garbage", "upstream-malformed"), ("/switch", "upstream-malformed"), ("/nothing", "upstream-closed")]
    {
        let answer = wire.ask("GET", path)?;
        ensure!(answer.status == 502 && answer.code() == code, "{path}: {answer:?}");
        ensure!(
            outcome(&daemon, &format!("GET {path}"))? == (code.to_owned(), Some(502)),
            "{path}: recorded otherwise"
        );
    }
    drop(wire);
    daemon.finish()
}

#[test]
fn an_answer_that_the_upstream_cuts_never_ends_cleanly() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        match peer.request()?.split(' ').nth(1) {
            Some("/length") => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?,
            Some("/chunked") => peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")?,
            Some("/broken") => {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nno size\r\n")?;
            }
            // Ends with the connection, and the connection ends without TLS saying so.
            _ => return peer.send("HTTP/1.1 200 OK\r\n\r\nhalf"),
        }
        peer.close()
    })?;
    for path in ["/length", "/chunked", "/broken", "/to-the-end"] {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))?;
        ensure!(wire.head()?.status == 200, "{path}: no head");
        let (came, end) = wire.rest()?;
        ensure!(!came.ends_with(b"0\r\n\r\n") && end != "eof", "{path} ended cleanly ({end}): {came:?}");
        let code = if path == "/broken" { "upstream-malformed" } else { "upstream-closed" };
        ensure!(outcome(&daemon, &format!("GET {path}"))?.0 == code, "{path}: recorded otherwise");
    }
    closed(&daemon, "upstream-closed")?;
    daemon.finish()
}

#[test]
fn an_upstream_that_does_not_begin_to_answer_in_time_is_504() -> Result<()> {
    require_root!(Ok(()));
    let authority = Authority::new()?;
    let upstream =
        Scripted::start(authority.server(&[HOST])?, |peer| peer.request().and_then(|_| peer.byte()).map(drop))?;
    let more = "[limits]\nresponse_timeout = \"500ms\"\n".to_owned();
    let daemon = Daemon::start(&Order { more, ..order_to(upstream.address(), authority.pem()) })?;
    let mut wire = Wire::tls(&daemon)?;
    // A request that is still being sent isn't late.
    wire.send("POST /slow HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 8\r\n\r\n")?;
    for _ in 0..8 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        wire.send("a")?;
    }
    let answer = wire.answer()?;
    ensure!(answer.status == 504 && answer.code() == "upstream-timeout", "{answer:?}");
    ensure!(upstream.came().ends_with(b"aaaaaaaa"), "the upload was cut short");
    ensure!(
        finished(&daemon, "POST /slow")?.outcome == Some(("upstream-timeout".into(), Some(504))),
        "recorded otherwise"
    );
    drop(wire);
    daemon.finish()
}

#[test]
fn a_length_beside_a_transfer_coding_is_not_passed_on() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n")?;
        peer.byte().map(drop)
    })?;
    let mut wire = Wire::tls(&daemon)?;
    let answer = wire.ask("GET", "/both")?;
    ensure!(answer.body == b"four" && answer.header("content-length").is_none(), "{answer:?}");
    drop(wire);
    daemon.finish()
}

#[test]
fn one_downstream_connection_has_one_upstream() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let mut wires = (0..3).map(|_| Wire::tls(&daemon)).collect::<Result<Vec<_>>>()?;
    for wire in &mut wires {
        ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "a request failed");
    }
    ensure!(graph.connections() == 3, "{} upstream connections for 3", graph.connections());
    drop(wires);
    daemon.finish()
}

#[test]
fn an_answer_with_too_many_fields_or_trailers_is_told_with_the_keys() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        let fields = |count: usize| (0..count).map(|number| format!("X-{number}: a\r\n")).collect::<String>();
        match peer.request()?.split(' ').nth(1) {
            Some("/many") => peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", fields(120))),
            Some("/more") => peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", fields(300))),
            Some("/trailers") => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
                peer.send(format!("{head}{}\r\n", fields(120)))
            }
            _ => peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nok", fields(99))),
        }
    })?;
    for path in ["/many", "/more"] {
        let answer = Wire::tls(&daemon)?.ask("GET", path)?;
        ensure!(answer.status == 502 && answer.code() == "upstream-malformed", "{path}: {answer:?}");
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(told.contains("limits.header_bytes") && told.contains("limits.header_fields"), "{path}: {told}");
    }
    ensure!(Wire::tls(&daemon)?.ask("GET", "/")?.body == b"ok", "what fits is refused");
    ensure!(Wire::tls(&daemon)?.ask("GET", "/trailers").is_err(), "the trailers passed");
    ensure!(outcome(&daemon, "GET /trailers")?.0 == "upstream-malformed", "recorded otherwise");
    daemon.finish()
}
