//! Peers that busy us without asking for anything, byte by byte: what they send is bounded in memory, ends their
//! connection, and is recorded.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use interceptor::record::event::What;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, Upstream, begin};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How much more memory the daemon may hold than before, whatever comes.
const ROOM: u64 = 64 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block (RFC 7541): a POST or GET for / of graph.microsoft.com, in literals that are not indexed.
fn block(post: bool) -> Vec<u8> {
    let host = b"graph.microsoft.com";
    let mut block = vec![if post { 0x83 } else { 0x82 }, 0x87, 0x04, 7];
    block.extend(b"/upload");
    block.extend([0x01, u8::try_from(host.len()).expect("short")]);
    block.extend(host);
    block
}

/// The daemon's memory, in bytes.
fn memory(daemon: &Daemon) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid()?))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? * 1024)
}

/// Sends `first`, then `again(n)` without end, until the connection ends; gives how many were sent, and checks memory.
fn flood(daemon: &Daemon, first: &[u8], again: impl Fn(u32) -> Vec<u8>) -> Result<u32> {
    let before = memory(daemon)?;
    let mut wire = Wire::open(daemon, "graph.microsoft.com", 443, "alpn=h2")?;
    wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[]), first].concat())?;
    let start = Instant::now();
    let mut count = 0;
    let mut most = before;
    loop {
        let many: Vec<u8> = (0..500).flat_map(|more| again(count + more)).collect();
        if wire.send(many).is_err() || wire.is_over() {
            break;
        }
        count += 500;
        most = most.max(memory(daemon)?);
        ensure!(start.elapsed() < Duration::from_secs(60), "{count} were taken, and it goes on");
    }
    ensure!(most < before + ROOM, "memory grew from {before} to {most}");
    Ok(count)
}

fn ends_as(daemon: &Daemon, code: &str) -> Result<()> {
    let found = recorded::wait_for(&daemon.database(), 0, |one| one.code.as_deref() == Some(code));
    let ended = || -> Result<Vec<String>> {
        let events = recorded::events(&daemon.database(), 0)?.into_iter();
        let reasons = events.filter_map(|(_, event)| match event.what {
            What::SessionClosed { reason, .. } => Some(reason),
            _ => None,
        });
        Ok(reasons.collect())
    };
    found.map(drop).with_context(|| format!("sessions ended with {:?}", ended()))
}

#[test]
fn settings_pings_and_window_updates_without_end_are_cut() -> Result<()> {
    require_root!(Ok(()));
    for (name, one) in [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(99, 0, 0, b"12345678")),
    ] {
        let (_graph, daemon) = begin(ALL)?;
        flood(&daemon, &[], |_| one.clone()).context(name)?;
        ends_as(&daemon, "http2-flood").context(name)?;
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn empty_data_without_end_is_cut() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    flood(&daemon, &frame(HEADERS, END_HEADERS, 1, &block(true)), |_| frame(DATA, 0, 1, &[]))?;
    ends_as(&daemon, "http2-flood")?;
    daemon.finish()
}

#[test]
fn tiny_data_that_nobody_takes_is_cut() -> Result<()> {
    require_root!(Ok(()));
    // A server that takes nothing: what comes stays with us.
    let upstream = Upstream::start(|stream, _| async move {
        let mut settings = h2::server::Builder::new();
        let mut connection = settings.initial_window_size(1_000).handshake::<_, Bytes>(stream).await?;
        let mut kept = Vec::new();
        while let Some(request) = connection.accept().await {
            kept.push(request?);
        }
        Ok(())
    })?;
    let daemon = upstream.daemon()?;
    flood(&daemon, &frame(HEADERS, END_HEADERS, 1, &block(true)), |_| frame(DATA, 0, 1, b"x"))?;
    ends_as(&daemon, "http2-flood")?;
    daemon.finish()
}

#[test]
fn streams_that_are_opened_and_reset_at_once_are_cut() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let again = |number: u32| {
        let stream = 1 + 2 * number;
        [
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(false)),
            frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    let sent = flood(&daemon, &[], again)?;
    ends_as(&daemon, "http2-flood")?;
    ensure!(graph.received().len() < 1_000, "{} of {sent} reached the server", graph.received().len());
    daemon.finish()
}

#[test]
fn header_blocks_without_end_are_cut() -> Result<()> {
    require_root!(Ok(()));
    // By their frames, by their size, and by what they expand to (a dynamic entry of 4000 bytes, named again and again).
    let mut bomb = vec![0x40, 1, b'a', 0x7f, 0xa1, 0x1e];
    bomb.extend([b'b'; 4000]);
    bomb.extend([0xbe; 12_000]);
    for (name, first, again) in [
        ("empty CONTINUATION", frame(HEADERS, 0, 1, &block(false)), frame(CONTINUATION, 0, 1, &[])),
        ("large CONTINUATION", frame(HEADERS, 0, 1, &block(false)), frame(CONTINUATION, 0, 1, &[0x82; 16_000])),
        ("HPACK", frame(HEADERS, 0, 1, &bomb), frame(CONTINUATION, 0, 1, &[0xbe; 16_000])),
    ] {
        let (graph, daemon) = begin(ALL)?;
        flood(&daemon, &first, |_| again.clone()).context(name)?;
        ensure!(graph.received().is_empty(), "{name} reached the server");
        recorded::wait_for(&daemon.database(), 0, |one| {
            matches!(one.code.as_deref(), Some("http2-flood" | "malformed-http"))
        })
        .context(name)?;
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn what_is_no_http2_is_refused_and_recorded() -> Result<()> {
    require_root!(Ok(()));
    let mut garbage = vec![0x40, 1];
    garbage.extend([0xff; 30]);
    for (name, bytes) in [
        ("a request of HTTP/1.1", b"GET / HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n".to_vec()),
        ("DATA on stream 0", [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(DATA, 0, 0, b"x")].concat()),
        ("broken HPACK", [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, &garbage)].concat()),
    ] {
        let (_graph, daemon) = begin(ALL)?;
        let mut wire = Wire::open(&daemon, "graph.microsoft.com", 443, "alpn=h2")?;
        wire.send(&bytes)?;
        wire.rest()?;
        let denied = recorded::wait_for(&daemon.database(), 0, |one| one.code.as_deref() == Some("malformed-http"))
            .context(name)?;
        ensure!(denied.summary == "something that is no HTTP/2", "{name}: {denied:?}");
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn http2_in_clear_is_refused() -> Result<()> {
    require_root!(Ok(()));
    let graph = interceptor_tests::graph::Graph::start(&[])?;
    let mut order = super::fixture::order(&graph, "permit (principal, action, resource);");
    order.targets.push_str("[[target]]\nname = \"plain\"\nhosts = [\"plain.example\"]\ncleartext = true\n");
    order.resolve.push(("plain.example".into(), graph.plain_address()));
    // A client that doesn't take part in the end of its connection is waited for.
    order.more = "[limits]\ndetect_timeout = \"500ms\"\n".to_owned();
    let daemon = Daemon::start(&order)?;
    let mut wire = Wire::open(&daemon, "plain.example", 80, "clear")?;
    wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, &block(false))].concat())?;
    let (came, _) = wire.rest()?;
    let told = String::from_utf8_lossy(&came);
    ensure!(told.contains("h2c-refused"), "it was told: {told}");
    recorded::wait_for(&daemon.database(), 0, |one| {
        one.action == "connect" && one.code.as_deref() == Some("h2c-refused")
    })?;
    ensure!(graph.connections() == 0, "it was dialled");
    daemon.finish()
}
