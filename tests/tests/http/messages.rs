//! What passes, and how: every way that HTTP/1.1 delimits, interleaves and reuses.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use interceptor_tests::wire::Wire;

use super::fixture::{ALL, begin, closed, order, outcome, payloads, scripted};

const MANY: usize = 100 << 20;

#[test]
fn a_streamed_answer_is_seen_as_it_comes() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    ensure!(wire.head()?.status == 200, "no stream");
    let start = Instant::now();
    for _ in 0..5 {
        ensure!(wire.chunk()? == b"tick\n", "another chunk than the upstream's");
    }
    // A line comes each 20 ms, for ever: whoever waits for the end, or for a full buffer, waits for long.
    ensure!(start.elapsed() < Duration::from_secs(10), "five lines took {:?}", start.elapsed());
    drop(wire);
    daemon.finish()
}

#[test]
fn an_upload_goes_on_while_its_answer_streams() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, daemon) = scripted(|peer| {
        let head = peer.request()?;
        if !head.to_lowercase().contains("transfer-encoding: chunked") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..3 {
            // `1 CRLF x CRLF`, answered one by one.
            while peer.byte()? != b'x' {}
            peer.send("3\r\ngot\r\n")?;
        }
        while peer.byte()? != b'0' {}
        peer.send("0\r\n\r\n")?;
        peer.byte().map(drop)
    })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("POST /both HTTP/1.1\r\nHost: graph.microsoft.com\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")?;
    ensure!(wire.head()?.status == 200, "no answer before the request's end");
    for more in ["1\r\nx\r\n", "1\r\nx\r\n", "0\r\n\r\n"] {
        ensure!(wire.chunk()? == b"got", "another chunk than the upstream's");
        wire.send(more)?;
    }
    ensure!(wire.chunk()?.is_empty(), "more than the upstream sent");
    ensure!(upstream.connections() == 1, "more than one connection");
    ensure!(outcome(&daemon, "POST /both")? == ("done".into(), Some(200)), "not recorded as done");
    ensure!(payloads(&daemon, "POST /both")?.0.bytes == 3, "not counted whole");
    drop(wire);
    daemon.finish()
}

#[test]
fn what_is_uploaded_after_the_answer_is_complete_is_counted_too() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = scripted(|peer| {
        while peer.byte()? != b'a' || peer.byte()? != b'1' {}
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        while peer.byte()? != b'z' {}
        Ok(())
    })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("POST /early HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 4\r\n\r\na1")?;
    ensure!(wire.answer()?.body == b"ok", "no early answer");
    wire.send("yz")?;
    let (request, _) = payloads(&daemon, "POST /early")?;
    ensure!(request.bytes == 4, "{} of 4 bytes were counted", request.bytes);
    ensure!(request.digest.as_deref() == Some(blake3::hash(b"a1yz").to_hex().as_str()), "another digest");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_hundred_megabytes_each_way_arrive_whole_and_are_digested() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(format!("POST /upload HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: {MANY}\r\n\r\n"))?;
    let mut hasher = blake3::Hasher::new();
    for number in 0..MANY >> 20 {
        let piece = vec![u8::try_from(number)?; 1 << 20];
        hasher.update(&piece);
        wire.send(&piece)?;
    }
    let sent = hasher.finalize().to_hex().to_string();
    let answer = wire.answer()?.json()?;
    ensure!(answer["bytes"] == MANY && answer["blake3"] == *sent, "the upstream got something else: {answer}");
    let (request, _) = payloads(&daemon, "POST /upload")?;
    ensure!(request.bytes == MANY as u64 && request.digest == Some(sent), "recorded: {request:?}");

    let path = format!("/bytes/{MANY}");
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n"))?;
    ensure!(wire.head()?.header("content-length") == Some(&MANY.to_string()), "the length is another");
    let came = wire.digest(MANY)?;
    ensure!(came == blake3::hash(&vec![0; MANY]).to_hex().to_string(), "something else came");
    let (_, response) = payloads(&daemon, &format!("GET {path}"))?;
    ensure!(response.bytes == MANY as u64 && response.digest == Some(came), "recorded: {response:?}");
    drop(wire);
    daemon.finish()
}

#[test]
fn requests_keep_one_connection_each_way_alive() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    for number in 0..5 {
        ensure!(wire.ask("GET", &format!("/v1.0/users?n={number}"))?.status == 200, "request {number} failed");
    }
    let received = graph.received();
    ensure!(received.len() == 5 && graph.connections() == 1, "{} connections for {received:?}", graph.connections());
    drop(wire);
    daemon.finish()
}

#[test]
fn an_upstream_that_closed_meanwhile_is_dialled_again_which_is_decided_and_recorded() -> Result<()> {
    require_root!(Ok(()));
    let (closed, end) = std::sync::mpsc::sync_channel(3);
    let (upstream, daemon) = scripted(move |peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        peer.close()?;
        let _ = closed.send(peer.byte().is_err());
        Ok(())
    })?;
    let mut wire = Wire::tls(&daemon)?;
    for number in 1..=3 {
        let answer = wire.ask("GET", &format!("/{number}"))?;
        ensure!(answer.body == b"ok", "request {number}: {answer:?}");
        // The close has arrived once the other side has closed as well.
        ensure!(end.recv_timeout(Duration::from_secs(20))?, "the upstream's connection is still open");
    }
    ensure!(upstream.connections() == 3, "{} connections", upstream.connections());
    outcome(&daemon, "GET /3")?;
    let operations = interceptor_tests::recorded::operations(&daemon.database(), 0)?;
    let connects = operations.iter().filter(|operation| operation.action == "connect").count();
    ensure!(connects == 3, "{connects} connects are recorded");
    drop(wire);
    daemon.finish()
}

/// Longer than it takes a connection to rest.
const REST: Duration = Duration::from_millis(200);

#[test]
fn a_connection_that_rested_goes_on_where_it_was() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    std::thread::sleep(REST);
    // Heads that come in two pieces, with pauses before and between them around the time after which a connection rests.
    let pauses = [0, 10, 18, 20, 22, 30, 200].map(Duration::from_millis);
    for (before, between) in pauses.iter().flat_map(|before| pauses.iter().map(move |between| (*before, *between))) {
        std::thread::sleep(before);
        wire.send("GET /bytes/5 HTTP/1.1\r\nHo")?;
        std::thread::sleep(between);
        wire.send("st: graph.microsoft.com\r\n\r\n")?;
        ensure!(wire.answer()?.body.len() == 5, "failed with {before:?} before and {between:?} between");
    }
    std::thread::sleep(REST);
    // What is being answered doesn't rest.
    ensure!(wire.ask("GET", "/slow?ms=300")?.json()?["waited"] == 300, "no answer");
    ensure!(graph.connections() == 1, "{} connections", graph.connections());
    drop(wire);
    daemon.finish()
}

#[test]
fn a_connection_that_stays_idle_is_ended_and_recorded_as_that() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let more = "[limits]\nidle_timeout = \"2s\"\n".to_owned();
    let daemon = Daemon::start(&Order { more, ..order(&graph, ALL) })?;
    let mut wire = Wire::tls(&daemon)?;
    let mut asked = Instant::now();
    for _ in 0..3 {
        std::thread::sleep(REST);
        asked = Instant::now();
        ensure!(wire.ask("GET", "/bytes/5")?.status == 200, "denied");
    }
    let (rest, end, at) = wire.rest_and_when()?;
    let lasted = at - asked;
    ensure!(rest.is_empty() && end == "eof", "{rest:?}, then {end}");
    ensure!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&lasted), "it ended after {lasted:?}");
    closed(&daemon, "idle")?;
    daemon.finish()
}

#[test]
fn an_upstream_that_closes_a_connection_at_rest_is_let_go_and_dialled_again() -> Result<()> {
    require_root!(Ok(()));
    let (closed, end) = std::sync::mpsc::sync_channel(2);
    let (upstream, daemon) = scripted(move |peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        std::thread::sleep(REST);
        peer.close()?;
        // The other side closes as well, though nobody asks.
        let _ = closed.send(peer.byte().is_err());
        Ok(())
    })?;
    let mut wire = Wire::tls(&daemon)?;
    for number in 1..=2 {
        let answer = wire.ask("GET", &format!("/{number}"))?;
        ensure!(answer.body == b"ok", "request {number}: {answer:?}");
        ensure!(end.recv_timeout(Duration::from_secs(20))?, "the upstream's connection is still open");
    }
    ensure!(upstream.connections() == 2, "{} connections", upstream.connections());
    drop(wire);
    daemon.finish()
}

#[test]
fn trailers_pass_both_ways() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /trailers HTTP/1.1\r\nHost: graph.microsoft.com\r\nTE: trailers\r\nConnection: te\r\n\r\n")?;
    let answer = wire.answer()?;
    let digest = blake3::hash(&answer.body).to_hex();
    ensure!(answer.trailers.to_lowercase() == format!("x-digest: {digest}\r\n"), "{answer:?}");
    wire.send(
        "POST /upload HTTP/1.1\r\nHost: graph.microsoft.com\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
         3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n",
    )?;
    let answer = wire.answer()?.json()?;
    ensure!(answer["bytes"] == 3 && answer["trailers"] == 1, "{answer}");
    drop(wire);
    daemon.finish()
}

#[test]
fn answers_without_a_body_keep_their_fields_and_the_connection() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, daemon) = scripted(|peer| {
        loop {
            let request = peer.request()?;
            peer.send(match request.split(' ').nth(1) {
                Some("/head") => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 77\r\n\r\n",
                Some("/early") => {
                    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
                }
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            })?;
        }
    })?;
    let mut wire = Wire::tls(&daemon)?;
    let head = wire.ask("HEAD", "/head")?;
    ensure!(head.header("content-length") == Some("1234"), "{head:?}");
    let answer = wire.ask("GET", "/204")?;
    ensure!(answer.status == 204 && answer.header("transfer-encoding").is_none(), "{answer:?}");
    let answer = wire.ask("GET", "/304")?;
    ensure!(answer.status == 304 && answer.header("etag") == Some("\"a\""), "{answer:?}");
    ensure!(wire.ask("GET", "/early")?.body == b"x", "an interim answer is taken for the answer");
    ensure!(wire.ask("GET", "/empty")?.header("content-length") == Some("0"), "no length of an empty body");
    ensure!(upstream.connections() == 1, "the connection wasn't kept");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_client_is_told_to_continue_only_if_its_request_is_permitted() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) =
        begin(r#"permit (principal, action in [Action::"reach", Action::"http:POST"], resource == Target::"graph");"#)?;
    let ask = |wire: &mut Wire, method: &str| {
        wire.send(format!(
            "{method} /upload HTTP/1.1\r\nHost: graph.microsoft.com\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        ))
    };
    let mut wire = Wire::tls(&daemon)?;
    ask(&mut wire, "POST")?;
    ensure!(wire.answer()?.status == 100, "not told to continue");
    wire.send("abc")?;
    ensure!(wire.answer()?.json()?["bytes"] == 3, "the body didn't arrive");
    ask(&mut wire, "PUT")?;
    ensure!(wire.answer()?.status == 403, "a denied request isn't answered 403 at once");
    ensure!(graph.received().len() == 1, "the denied request reached the upstream");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_client_of_http_1_0_gets_an_answer_that_ends_with_the_connection() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /trailers HTTP/1.0\r\nHost: graph.microsoft.com\r\n\r\n")?;
    let (bytes, end) = wire.rest()?;
    let text = String::from_utf8(bytes)?;
    ensure!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
    ensure!(text.ends_with("\r\n\r\na body with a trailer\n") && end == "eof", "{end}: {text}");
    daemon.finish()
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    let requests: String = [300, 5, 70]
        .iter()
        .map(|count| format!("GET /bytes/{count} HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n"))
        .collect();
    wire.send(requests)?;
    for count in [300, 5, 70] {
        ensure!(wire.answer()?.body.len() == count, "out of order at {count}");
    }
    drop(wire);
    daemon.finish()
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_the_answer() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /slow?ms=300 HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    wire.half_close();
    ensure!(wire.answer()?.json()?["waited"] == 300, "no answer");
    let (rest, end) = wire.rest()?;
    ensure!(rest.is_empty() && end == "eof", "{end}");
    daemon.finish()
}
