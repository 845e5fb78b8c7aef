//! Memory is bounded, whatever clients and upstreams do. The figures are printed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::authority::Authority;
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::wire::Wire;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::fixture::{ALL, HOST, begin, finished, order, order_to};

const GIGABYTE: usize = 1 << 30;
/// What the daemon may grow by, in KiB.
const GROWTH: u64 = 32 << 10;

/// Resident memory of the daemon, in KiB.
fn resident(daemon: &Daemon) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// How many files the daemon has open.
fn open_files(daemon: &Daemon) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()?))?.count())
}

/// A wire whose first request was answered: what a first connection costs once is paid.
fn warm(daemon: &Daemon) -> Result<Wire> {
    let mut wire = Wire::tls(daemon)?;
    ensure!(wire.ask("GET", "/bytes/100000")?.status == 200, "denied");
    Ok(wire)
}

#[test]
fn a_gigabyte_up_and_down_grows_the_daemon_by_32_mib_at_most() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = warm(&daemon)?;
    let before = resident(&daemon)?;
    let start = Instant::now();
    wire.send(format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {GIGABYTE}\r\n\r\n"))?;
    let (piece, mut most) = (vec![7; 1 << 20], 0);
    for _ in 0..GIGABYTE >> 20 {
        wire.send(&piece)?;
        most = most.max(resident(&daemon)?);
    }
    ensure!(wire.answer()?.json()?["bytes"] == GIGABYTE, "not all arrived");
    let up = (most, start.elapsed());
    let start = Instant::now();
    wire.send(format!("GET /bytes/{GIGABYTE} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))?;
    ensure!(wire.head()?.status == 200, "no answer");
    for _ in 0..GIGABYTE >> 20 {
        wire.digest(1 << 20)?;
        most = most.max(resident(&daemon)?);
    }
    println!(
        "1 GiB: {before} KiB before, {} KiB at most while up ({:?}), {most} KiB after down ({:?})",
        up.0,
        up.1,
        start.elapsed()
    );
    ensure!(most <= before + GROWTH, "it grew from {before} to {most} KiB");
    drop(wire);
    daemon.finish()
}

/// 1 GB with INTERCEPTOR_LONG, 64 MB else.
#[test]
fn a_large_document_is_masked_in_8_mib() -> Result<()> {
    require_root!(Ok(()));
    const PERSON: &str = "{\"displayName\":\"Ada Lovelace\",\"mail\":\"ada@contoso.example\",\"note\":\"none\"},";
    let size: usize = if std::env::var_os("INTERCEPTOR_LONG").is_some() { 1_000_000_000 } else { 64_000_000 };
    let authority = Authority::new()?;
    let upstream = Scripted::start(authority.server(&[HOST])?, move |peer| {
        let piece = PERSON.repeat(600);
        loop {
            let pieces = if peer.request()?.starts_with("GET /large ") { size / piece.len() } else { 20 };
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n",
            )?;
            for _ in 0..pieces {
                peer.send(format!("{:x}\r\n{piece}\r\n", piece.len()))?;
            }
            peer.send("2\r\n1]\r\n0\r\n\r\n")?;
        }
    })?;
    let daemon = Daemon::start(&Order {
        targets: format!("{GRAPH_TARGET}mask = [\"pii\"]\n"),
        more: "[[mask]]\nname = \"pii\"\njson = [\"$..displayName\"]\ndetect = [\"email\"]\n".to_owned(),
        ..order_to(upstream.address(), authority.pem())
    })?;
    let mut wire = Wire::tls(&daemon)?;
    // What a first answer of a megabyte and its record cost is paid.
    ensure!(wire.ask("GET", "/warm")?.status == 200, "denied");
    finished(&daemon, "GET /warm")?;
    let before = resident(&daemon)?;
    let start = Instant::now();
    wire.send(format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))?;
    ensure!(wire.head()?.status == 200, "no answer");
    let (mut most, mut came, mut looked) = (before, 0, 0);
    loop {
        let chunk = wire.chunk()?;
        if chunk.is_empty() {
            break;
        }
        ensure!(!chunk.windows(3).any(|three| three == b"ada"), "it isn't masked");
        came += chunk.len();
        if came - looked > 1 << 20 {
            (most, looked) = (most.max(resident(&daemon)?), came);
        }
    }
    println!("{size} bytes masked to {came}: {before} KiB before, {most} KiB at most ({:?})", start.elapsed());
    ensure!(came > size / 2, "only {came} bytes came");
    ensure!(most <= before + (8 << 10), "it grew from {before} to {most} KiB");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_client_that_never_reads_costs_no_memory_and_no_upstream_data() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    drop(warm(&daemon)?);
    let before = resident(&daemon)?;
    let mut wires = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!("GET /bytes/{GIGABYTE} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))?;
        wires.push(wire);
    }
    std::thread::sleep(Duration::from_secs(3));
    let after = resident(&daemon)?;
    println!("10 clients that don't read: {before} KiB before, {after} KiB after");
    ensure!(after <= before + GROWTH, "it grew from {before} to {after} KiB");
    drop(wires);
    daemon.finish()
}

#[test]
fn header_bombs_cost_what_the_bound_says() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    drop(warm(&daemon)?);
    let before = resident(&daemon)?;
    let mut most = 0;
    for _ in 0..10 {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Bomb: "))?;
        // It is refused before all is taken.
        let _ = wire.send(vec![b'a'; 8 << 20]);
        most = most.max(resident(&daemon)?);
        let answer = wire.head()?;
        ensure!(answer.status == 431, "{answer:?}");
    }
    println!("10 header bombs of 8 MiB: {before} KiB before, {most} KiB at most");
    ensure!(most <= before + GROWTH, "it grew from {before} to {most} KiB");
    daemon.finish()
}

#[test]
fn a_thousand_idle_connections_stand_and_the_next_are_reset() -> Result<()> {
    require_root!(Ok(()));
    // The API's side of them is in this process.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard)?;
    let graph = Graph::start(&[])?;
    let more = "[limits]\nconnections = 1000\n".to_owned();
    let daemon = Daemon::start(&Order { more, ..order(&graph, ALL) })?;
    drop(warm(&daemon)?);
    let before = resident(&daemon)?;
    let files = open_files(&daemon)?;
    let start = Instant::now();
    let mut many = Wire::open(&daemon, HOST, 443, "many=1010")?;
    let stood = many.until("\n")?;
    let after = resident(&daemon)?;
    println!("{} idle connections: {before} KiB before, {after} KiB after, {:?}", stood.trim(), start.elapsed());
    ensure!(stood.trim() == "1000", "{stood} of 1010 connections stood; 1000 may");
    // They rest by now.
    ensure!(after <= before + (48 << 10), "it grew from {before} to {after} KiB");
    let more = open_files(&daemon)? - files;
    ensure!(
        more <= 2 * 1000 + 20,
        "{more} files more are open: the client's socket and the upstream's are two for each"
    );
    ensure!(daemon.log().contains("`limits.connections`"), "the operator isn't told: {}", daemon.log());
    drop(many);
    // What they freed goes back to the system as well.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut left = resident(&daemon)?;
    while left > before + (12 << 10) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
        left = resident(&daemon)?;
    }
    println!("{left} KiB when they are gone");
    ensure!(left <= before + (12 << 10), "{left} KiB are left of {after}; it began with {before}");
    daemon.finish()
}
