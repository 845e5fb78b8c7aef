//! What servers and clients of HTTP/2 do besides answering and asking: GOAWAY, resets, gRPC, CONNECT.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use http::{Request, Response};
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};
use tokio::sync::Notify;

use super::fixture::{ALL, Accepted, Client, Upstream, begin, order, piece, request, run, whole};

async fn handshake(stream: Accepted) -> Result<Connection<Accepted, Bytes>> {
    Ok(h2::server::handshake(stream).await?)
}

fn answer(mut respond: SendResponse<Bytes>, text: &'static str) -> Result<()> {
    respond.send_response(Response::new(()), false)?.send_data(Bytes::from_static(text.as_bytes()), true)?;
    Ok(())
}

#[test]
fn after_a_servers_goaway_streams_finish_and_new_ones_dial_again() -> Result<()> {
    require_root!(Ok(()));
    let go_on = Arc::new(Notify::new());
    let upstream = Upstream::start({
        let go_on = Arc::clone(&go_on);
        move |stream, number| {
            let go_on = Arc::clone(&go_on);
            async move {
                let mut connection = handshake(stream).await?;
                while let Some(request) = connection.accept().await {
                    let (request, mut respond) = request?;
                    if request.uri().path() == "/long" {
                        let mut body = respond.send_response(Response::new(()), false)?;
                        body.send_data(Bytes::from_static(b"begin"), false)?;
                        let go_on = Arc::clone(&go_on);
                        tokio::spawn(async move {
                            go_on.notified().await;
                            body.send_data(Bytes::from_static(b"end"), true)
                        });
                        connection.graceful_shutdown();
                    } else {
                        answer(respond, if number == 1 { "first" } else { "second" })?;
                    }
                }
                Ok(())
            }
        }
    })?;
    let daemon = upstream.daemon()?;
    run(async {
        let client = Client::open(&daemon).await?;
        ensure!(client.ask("GET", "/a").await?.body == b"first", "not by the first");
        let mut long = client.head("GET", "/long").await?.into_body();
        ensure!(piece(&mut long).await?.as_deref() == Some(b"begin"), "it doesn't begin");
        // GOAWAY takes its way, and what comes before it is the first one's still.
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.ask("GET", "/b").await?.body != b"second" {
            ensure!(Instant::now() < deadline, "not by the second");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        go_on.notify_one();
        ensure!(piece(&mut long).await?.as_deref() == Some(b"end"), "it was broken off");
        ensure!(piece(&mut long).await?.is_none(), "it doesn't end");
        Ok(())
    })?;
    ensure!(upstream.connections() == 2, "{} connections", upstream.connections());
    // The record is a moment behind.
    recorded::wait_for(&daemon.database(), 0, |one| one.summary == "GET /b" && one.outcome.is_some())?;
    let connects = recorded::operations(&daemon.database(), 0)?.into_iter().filter(|one| one.action == "connect");
    ensure!(connects.count() == 2, "the second dial isn't recorded");
    daemon.finish()
}

#[test]
fn a_servers_reset_is_told_as_its_own() -> Result<()> {
    require_root!(Ok(()));
    let begun = Arc::new(Notify::new());
    let upstream = Upstream::start({
        let begun = Arc::clone(&begun);
        move |stream, _| {
            let begun = Arc::clone(&begun);
            async move {
                let mut connection = handshake(stream).await?;
                while let Some(request) = connection.accept().await {
                    let (request, mut respond) = request?;
                    match request.uri().path() {
                        "/early" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                        "/late" => {
                            let mut body = respond.send_response(Response::new(()), false)?;
                            body.send_data(Bytes::from_static(b"begin"), false)?;
                            let begun = Arc::clone(&begun);
                            tokio::spawn(async move {
                                // A reset overtakes what is on its way before it.
                                begun.notified().await;
                                body.send_reset(h2::Reason::NO_ERROR);
                            });
                        }
                        _ => answer(respond, "ok")?,
                    }
                }
                Ok(())
            }
        }
    })?;
    let daemon = upstream.daemon()?;
    run(async {
        let client = Client::open(&daemon).await?;
        let early = client.ask("GET", "/early").await?;
        ensure!(early.status == 502 && early.code() == "upstream-reset", "{early:?}");
        let mut late = client.head("GET", "/late").await?.into_body();
        ensure!(piece(&mut late).await?.is_some(), "it doesn't begin");
        begun.notify_one();
        let error: h2::Error = piece(&mut late).await.err().context("it ended in order")?.downcast()?;
        ensure!(error.reason() == Some(h2::Reason::INTERNAL_ERROR), "{error:?}");
        ensure!(client.ask("GET", "/").await?.status == 200, "the connection ended too");
        Ok(())
    })?;
    recorded::wait_for(&daemon.database(), 0, |one| {
        one.summary == "GET /late" && one.outcome == Some(("upstream-reset".into(), Some(200)))
    })?;
    ensure!(upstream.connections() == 1, "{} connections", upstream.connections());
    daemon.finish()
}

#[test]
fn what_a_client_gives_up_ends_upstream() -> Result<()> {
    require_root!(Ok(()));
    let gone = Arc::new(Notify::new());
    let upstream = Upstream::start({
        let gone = Arc::clone(&gone);
        move |stream, _| {
            let gone = Arc::clone(&gone);
            async move {
                let mut connection = handshake(stream).await?;
                while let Some(request) = connection.accept().await {
                    let (request, mut respond) = request?;
                    if request.uri().path() == "/" {
                        answer(respond, "ok")?;
                        continue;
                    }
                    let gone = Arc::clone(&gone);
                    tokio::spawn(async move {
                        // Keeps the answer, or its body, until the client has gone.
                        let begun = request.uri().path() == "/begun";
                        let mut body = begun.then(|| respond.send_response(Response::new(()), false)).transpose()?;
                        let reason = std::future::poll_fn(|cx| match &mut body {
                            Some(body) => body.poll_reset(cx),
                            None => respond.poll_reset(cx),
                        });
                        if reason.await? == h2::Reason::CANCEL {
                            gone.notify_one();
                        }
                        Ok::<_, anyhow::Error>(())
                    });
                }
                Ok(())
            }
        }
    })?;
    let daemon = upstream.daemon()?;
    run(async {
        let client = Client::open(&daemon).await?;
        for path in ["/waiting", "/begun"] {
            let (response, mut body) = client.send(request("POST", path), false).await?;
            let head = if path == "/begun" { Some(response.await?) } else { None };
            ensure!(client.ask("GET", "/").await?.status == 200, "no sibling");
            body.send_reset(h2::Reason::CANCEL);
            tokio::time::timeout(Duration::from_secs(20), gone.notified()).await.context(path)?;
            drop(head);
        }
        ensure!(client.ask("GET", "/").await?.status == 200, "the connection ended too");
        Ok(())
    })?;
    for path in ["/waiting", "/begun"] {
        recorded::wait_for(&daemon.database(), 0, |one| {
            one.summary == format!("POST {path}")
                && one.outcome.as_ref().is_some_and(|(outcome, _)| outcome == "client-gone")
        })?;
    }
    daemon.finish()
}

/// A gRPC message: not compressed, its length, its bytes.
fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).expect("short").to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat().into()
}

fn grpc(path: &str) -> Request<()> {
    let mut request = request("POST", path);
    let headers = request.headers_mut();
    headers.insert("content-type", "application/grpc".parse().expect("a value"));
    headers.insert("te", "trailers".parse().expect("a value"));
    request
}

fn trailers(status: &str) -> http::HeaderMap {
    [("grpc-status".parse().expect("a name"), status.parse().expect("a value"))].into_iter().collect()
}

#[test]
fn grpc_passes_unary_streaming_and_with_an_error_alone() -> Result<()> {
    require_root!(Ok(()));
    let upstream = Upstream::start(|stream, _| async move {
        let mut connection = handshake(stream).await?;
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request?;
            if request.headers().get("te").is_none_or(|te| te != "trailers") || request.uri().path() == "/s.S/Fails" {
                // The status in the head, and the stream's end with it.
                let mut head = Response::new(());
                *head.headers_mut() = trailers("12");
                respond.send_response(head, true)?;
                continue;
            }
            // Echoes each message as it comes.
            tokio::spawn(async move {
                let mut input = request.into_body();
                let mut output = respond.send_response(Response::new(()), false)?;
                while let Some(data) = input.data().await {
                    let data = data?;
                    input.flow_control().release_capacity(data.len())?;
                    output.send_data(data, false)?;
                }
                output.send_trailers(trailers("0"))?;
                Ok::<_, anyhow::Error>(())
            });
        }
        Ok(())
    })?;
    let daemon = upstream.daemon()?;
    run(async {
        let client = Client::open(&daemon).await?;
        let (response, mut body) = client.send(grpc("/s.S/Unary"), false).await?;
        body.send_data(message("hello"), true)?;
        let unary = whole(response).await?;
        ensure!(unary.body == message("hello") && unary.trailers == Some(trailers("0")), "{unary:?}");

        let (response, mut body) = client.send(grpc("/s.S/Stream"), false).await?;
        body.send_data(message("0"), false)?;
        let mut answers = response.await?.into_body();
        for number in 0..100 {
            ensure!(piece(&mut answers).await? == Some(message(&number.to_string())), "message {number} isn't echoed");
            body.send_data(message(&(number + 1).to_string()), number == 99)?;
        }
        ensure!(piece(&mut answers).await? == Some(message("100")), "the last message isn't echoed");
        ensure!(piece(&mut answers).await?.is_none(), "there is more");
        ensure!(answers.trailers().await? == Some(trailers("0")), "no status");

        let (response, mut body) = client.send(grpc("/s.S/Fails"), false).await?;
        body.send_data(message("hello"), true)?;
        let response = response.await?;
        ensure!(response.headers()["grpc-status"] == "12", "{response:?}");
        ensure!(response.body().is_end_stream(), "the head isn't the end");
        Ok(())
    })?;
    daemon.finish()
}

#[test]
fn connect_is_refused_plain_and_extended() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let plain = Request::builder().method("CONNECT").uri("graph.microsoft.com:443").body(())?;
        let answer = client.ask_this(plain).await?;
        ensure!(answer.status == 403 && answer.code() == "connect-method-refused", "{answer:?}");
        let mut extended = request("CONNECT", "/chat");
        extended.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let error: h2::Error = client.ask_this(extended).await.err().context("it was answered")?.downcast()?;
        ensure!(error.reason() == Some(h2::Reason::PROTOCOL_ERROR), "{error:?}");
        ensure!(client.ask("GET", "/v1.0/users").await?.status == 200, "the connection ended too");
        Ok(())
    })?;
    ensure!(graph.received().len() == 1, "{:?}", graph.received());
    daemon.finish()
}

#[test]
fn a_stopping_daemon_says_goaway_and_lets_streams_finish() -> Result<()> {
    require_root!(Ok(()));
    let graph = interceptor_tests::graph::Graph::start(&[])?;
    let mut order = order(&graph, ALL);
    order.more = "[limits]\ndrain = \"6s\"\n".to_owned();
    let mut daemon = interceptor_tests::daemon::Daemon::start(&order)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let (short, _) = client.send(request("GET", "/slow?ms=1500"), true).await?;
        let mut endless = client.head("GET", "/stream").await?.into_body();
        ensure!(piece(&mut endless).await?.is_some(), "nothing streams");
        let stopping = tokio::task::spawn_blocking(move || daemon.stop().map(|status| (daemon, status)));
        let short = whole(short).await?;
        ensure!(short.status == 200, "{short:?}");
        let error: h2::Error = loop {
            match piece(&mut endless).await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("the endless one ended in order"),
                Err(error) => break error.downcast()?,
            }
        };
        ensure!(error.reason() == Some(h2::Reason::CANCEL) || error.is_io(), "{error:?}");
        let (daemon, status) = stopping.await??;
        ensure!(status.success(), "it failed");
        Ok(daemon)
    })
    .and_then(|daemon| {
        let outcome = |summary: &str| {
            recorded::wait_for(&daemon.database(), 0, |one| one.summary == summary && one.outcome.is_some())
        };
        ensure!(outcome("GET /slow")?.outcome == Some(("done".into(), Some(200))), "the short one");
        ensure!(outcome("GET /stream")?.outcome == Some(("daemon-stopped".into(), Some(200))), "the endless one");
        daemon.finish()
    })
}

#[test]
fn a_server_without_http2_gets_http1_for_both() -> Result<()> {
    require_root!(Ok(()));
    let authority = interceptor_tests::authority::Authority::new()?;
    let tls = authority.server(&["graph.microsoft.com"])?;
    let upstream = interceptor_tests::scripted::Scripted::start(tls, |peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    })?;
    let graph = interceptor_tests::graph::Graph::start(&[])?;
    let mut order = order(&graph, ALL);
    order.resolve = vec![("graph.microsoft.com".to_owned(), upstream.address())];
    order.extra_ca = authority.pem();
    let daemon = interceptor_tests::daemon::Daemon::start(&order)?;
    let mut wire = Wire::open(&daemon, "graph.microsoft.com", 443, "alpn=h2,http/1.1")?;
    ensure!(wire.ask("GET", "/")?.body == b"ok", "no answer in HTTP/1.1");
    drop(wire);
    // Who speaks nothing but HTTP/2 is told in it.
    run(async {
        let answer = Client::open(&daemon).await?.ask("GET", "/").await?;
        ensure!(answer.status == 502 && answer.code() == "upstream-tls", "{answer:?}");
        Ok(())
    })?;
    daemon.finish()
}

/// h2 counts the bytes of header sections, and not their fields.
#[test]
fn header_sections_with_too_many_fields_are_told_with_the_keys() -> Result<()> {
    require_root!(Ok(()));
    let fields = |headers: &mut http::HeaderMap, count: usize| {
        for number in 0..count {
            headers.insert(http::HeaderName::try_from(format!("x-{number}"))?, http::HeaderValue::from_static("a"));
        }
        Ok::<(), anyhow::Error>(())
    };
    let upstream = Upstream::start(move |stream, _| async move {
        let mut connection = handshake(stream).await?;
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request?;
            let mut head = Response::new(());
            match request.uri().path() {
                "/many" => fields(head.headers_mut(), 120)?,
                "/large" => _ = head.headers_mut().insert("x-large", "a".repeat(100_000).parse()?),
                _ => {}
            }
            respond.send_response(head, true)?;
        }
        Ok(())
    })?;
    let daemon = upstream.daemon()?;
    run(async {
        let client = Client::open(&daemon).await?;
        for path in ["/many", "/large"] {
            let answer = client.ask("GET", path).await?;
            let told = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(answer.status == 502 && answer.code() == "upstream-malformed", "{path}: {answer:?}");
            ensure!(told.contains("limits.header_bytes") && told.contains("limits.header_fields"), "{path}: {told}");
        }
        let mut asked = request("GET", "/");
        fields(asked.headers_mut(), 120)?;
        let answer = client.ask_this(asked).await?;
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 431 && answer.code() == "header-too-large", "{answer:?}");
        ensure!(told.contains("limits.header_bytes") && told.contains("limits.header_fields"), "{told}");
        ensure!(client.ask("GET", "/").await?.status == 200, "the connection ended too");
        Ok(())
    })?;
    daemon.finish()
}

/// Without a length it is known to be too large when most of it was sent: the piece that is too much would end the request.
#[test]
fn a_body_that_gets_too_large_never_ends_as_a_request_upstream() -> Result<()> {
    require_root!(Ok(()));
    let whole_ones = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (came, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let upstream = Upstream::start({
        let (whole_ones, came, ended) = (Arc::clone(&whole_ones), Arc::clone(&came), Arc::clone(&ended));
        move |stream, _| {
            let (whole_ones, came, ended) = (Arc::clone(&whole_ones), Arc::clone(&came), Arc::clone(&ended));
            async move {
                let mut connection = handshake(stream).await?;
                while let Some(request) = connection.accept().await {
                    let (request, respond) = request?;
                    let (whole_ones, came, ended) = (Arc::clone(&whole_ones), Arc::clone(&came), Arc::clone(&ended));
                    tokio::spawn(async move {
                        let is_large = request.uri().path() == "/large";
                        let mut body = request.into_body();
                        let is_whole = loop {
                            match body.data().await {
                                Some(Ok(data)) => {
                                    body.flow_control().release_capacity(data.len())?;
                                    if is_large {
                                        came.notify_one();
                                    }
                                }
                                Some(Err(_reset)) => break false,
                                None => break true,
                            }
                        };
                        if is_whole {
                            whole_ones.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            answer(respond, "ok")?;
                        }
                        ended.notify_one();
                        Ok::<_, anyhow::Error>(())
                    });
                }
                Ok(())
            }
        }
    })?;
    let mut order = upstream.order(ALL);
    order.more = "[limits]\nrequest_body = \"1KiB\"\n".to_owned();
    let daemon = interceptor_tests::daemon::Daemon::start(&order)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let (response, mut body) = client.send(request("POST", "/fits"), false).await?;
        body.send_data(Bytes::from_static(&[b'x'; 512]), false)?;
        body.send_data(Bytes::from_static(&[b'x'; 512]), true)?;
        ensure!(whole(response).await?.status == 200, "what fits is refused");
        tokio::time::timeout(Duration::from_secs(20), ended.notified()).await?;
        let (response, mut body) = client.send(request("POST", "/large"), false).await?;
        body.send_data(Bytes::from_static(&[b'x'; 1000]), false)?;
        tokio::time::timeout(Duration::from_secs(20), came.notified()).await.context("it doesn't begin upstream")?;
        body.send_data(Bytes::from_static(&[b'x'; 100]), true)?;
        let refused = whole(response).await?;
        ensure!(refused.status == 413 && refused.code() == "request-too-large", "{refused:?}");
        tokio::time::timeout(Duration::from_secs(20), ended.notified()).await.context("it doesn't end upstream")?;
        Ok(())
    })?;
    ensure!(whole_ones.load(std::sync::atomic::Ordering::Relaxed) == 1, "the upstream got all of it");
    daemon.finish()
}
