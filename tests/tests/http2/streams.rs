//! Streams of one connection: decided apart, recorded apart, and none stops another.

use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use http::Request;
use interceptor_tests::daemon::{Daemon, Order, UID};
use interceptor_tests::graph::Graph;
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, Client, READ, begin, order, piece, request, run, whole};

#[test]
fn each_stream_of_a_connection_is_decided_and_recorded_by_itself() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(READ)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let users = client.ask("GET", "/v1.0/users").await?;
        ensure!(users.status == 200 && users.body.starts_with(b"{"), "{users:?}");
        let denied = client.ask("DELETE", "/v1.0/users/1").await?;
        ensure!(denied.status == 403 && denied.code() == "denied-by-default", "{denied:?}");
        ensure!(denied.headers["content-type"] == "application/problem+json", "{denied:?}");
        ensure!(client.ask("GET", "/v1.0/users").await?.status == 200, "a denial ended the connection");
        Ok(())
    })?;
    let received = graph.received();
    ensure!(received.len() == 2 && received.iter().all(|one| one.method == "GET"), "{received:?}");
    ensure!(received[0].connection == received[1].connection, "there was more than one connection upstream");
    let get =
        recorded::wait_for(&daemon.database(), 0, |one| one.summary == "GET /v1.0/users" && one.outcome.is_some())?;
    ensure!(get.outcome == Some(("done".into(), Some(200))), "{get:?}");
    let delete = recorded::wait_for(&daemon.database(), 0, |one| one.summary == "DELETE /v1.0/users/1")?;
    ensure!(delete.session == get.session && delete.code.as_deref() == Some("denied-by-default"), "{delete:?}");
    daemon.finish()
}

#[test]
fn a_connection_has_so_many_streams_at_once() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let more = "[limits]\nstreams = 2\n".to_owned();
    let daemon = Daemon::start(&Order { more, ..order(&graph, ALL) })?;
    run(async {
        let client = Client::open(&daemon).await?;
        let first = client.head("GET", "/stream").await?;
        let _second = client.head("GET", "/stream").await?;
        let (third, _) = client.send(request("GET", "/v1.0/users"), true).await?;
        let mut third = std::pin::pin!(whole(third));
        let early = tokio::time::timeout(Duration::from_millis(500), third.as_mut()).await;
        ensure!(early.is_err() && graph.received().len() == 2, "a third was served");
        drop(first);
        ensure!(third.await?.status == 200, "it isn't served when there is room");
        Ok(())
    })?;
    daemon.finish()
}

#[test]
fn a_hundred_streams_of_one_connection_are_served_at_once() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let start = Instant::now();
        let mut under_way = Vec::new();
        for number in 0..100 {
            under_way.push(client.send(request("GET", &format!("/slow?ms=1000&n={number}")), true).await?.0);
        }
        for response in under_way {
            ensure!(whole(response).await?.status == 200, "one was refused");
        }
        // One after the other they take 100 s.
        ensure!(start.elapsed() < Duration::from_secs(40), "they took {:?}", start.elapsed());
        Ok(())
    })?;
    ensure!(graph.received().len() == 100 && graph.connections() == 1, "{} came", graph.received().len());
    daemon.finish()
}

#[test]
fn a_stream_that_is_not_read_does_not_stop_its_siblings() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    run(async {
        // The client's own window of the connection must not be what stops them.
        let mut settings = h2::client::Builder::new();
        settings.initial_connection_window_size(1 << 26);
        let client = Client::with(&daemon, &settings).await?;
        // More than any buffer or window on the way holds.
        let mut unread = Vec::new();
        for _ in 0..20 {
            unread.push(client.head("GET", "/bytes/50000000").await?.into_body());
        }
        for _ in 0..20 {
            ensure!(client.ask("GET", "/v1.0/users").await?.status == 200, "it waits for what isn't read");
        }
        // Once it is read, it goes on.
        let mut body = unread.swap_remove(0);
        let mut count = 0;
        while count < 1_000_000 {
            let Some(bytes) = piece(&mut body).await? else { break };
            count += bytes.len();
        }
        ensure!(count >= 1_000_000, "only {count} bytes came");
        Ok(())
    })?;
    daemon.finish()
}

#[test]
fn an_upload_that_stands_still_does_not_stop_its_siblings() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let (upload, mut body) = client.send(request("POST", "/upload"), false).await?;
        body.send_data("a".into(), false)?;
        for _ in 0..20 {
            ensure!(client.ask("GET", "/v1.0/users").await?.status == 200, "it waited");
        }
        body.send_data("bc".into(), true)?;
        let answer = whole(upload).await?;
        let json: serde_json::Value = serde_json::from_slice(&answer.body)?;
        ensure!(json["bytes"] == 3, "{json}");
        Ok(())
    })?;
    daemon.finish()
}

#[test]
fn trailers_pass_both_ways() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let answer = client.ask("GET", "/trailers").await?;
        let trailers = answer.trailers.as_ref();
        ensure!(trailers.is_some_and(|trailers| trailers.contains_key("x-digest")), "{answer:?}");
        let (upload, mut body) = client.send(request("POST", "/upload"), false).await?;
        body.send_data("abc".into(), false)?;
        body.send_trailers([("x-sum".parse()?, "1".parse()?)].into_iter().collect())?;
        let json: serde_json::Value = serde_json::from_slice(&whole(upload).await?.body)?;
        ensure!(json["trailers"] == 1 && json["bytes"] == 3, "{json}");
        Ok(())
    })?;
    daemon.finish()
}

#[test]
fn every_stream_has_to_name_the_host_of_its_connection() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let build = |uri: &str, host: Option<&str>| {
            let request = Request::builder().uri(uri);
            host.map_or_else(|| Request::builder().uri(uri), |host| request.header("host", host)).body(())
        };
        for (uri, host) in [
            ("https://other.example/v1.0/users", None),
            ("https://graph.microsoft.com:8443/v1.0/users", None),
            ("http://graph.microsoft.com/v1.0/users", None),
            ("https://graph.microsoft.com/v1.0/users", Some("other.example")),
        ] {
            let answer = client.ask_this(build(uri, host)?).await?;
            ensure!(answer.status == 421 && answer.code() == "misdirected-request", "{uri} {host:?}: {answer:?}");
        }
        ensure!(graph.received().is_empty(), "something was forwarded");
        let fits = build("https://graph.microsoft.com/echo", Some("graph.microsoft.com"))?;
        ensure!(client.ask_this(fits).await?.status == 200, "refused though both agree");
        Ok(())
    })?;
    let denied = recorded::wait_for(&daemon.database(), 0, |one| one.code.as_deref() == Some("misdirected-request"))?;
    ensure!(denied.summary == "GET /v1.0/users", "{denied:?}");
    daemon.finish()
}

/// Writing waits for the person who launched it, and nobody answers.
const HELD: &str = r#"
@id("read")
permit (principal, action in [Action::"reach", Action::"http:read"], resource == Target::"graph");

@id("held")
@confirm("really?")
permit (principal, action in Action::"http:write", resource == Target::"graph");
"#;

#[test]
fn a_connection_is_idle_once_nothing_was_asked_for_long_and_nothing_is_held() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let more = "[limits]\nidle_timeout = \"1500ms\"\nhold = \"5s\"\n".to_owned();
    let daemon = Daemon::start(&Order { more, ..order(&graph, HELD) })?;
    run(async {
        let mut client = Client::open(&daemon).await?;
        let held = client.ask("DELETE", "/v1.0/users/1").await?;
        ensure!(held.code() == "approval-pending", "{held:?}");
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            ensure!(client.ask("GET", "/v1.0/users").await?.status == 200, "it isn't served");
        }
        // What a client gives up while it is held isn't held any more.
        let since = Instant::now();
        drop(client.send(request("DELETE", "/v1.0/users/2"), true).await?);
        client.is_ended().await?;
        let lasted = since.elapsed();
        ensure!(lasted < Duration::from_secs(5), "it is idle after {lasted:?}, as if something were held");
        let late = client.ask("GET", "/v1.0/users").await;
        ensure!(late.is_err(), "it is served though it was idle: {late:?}");
        Ok(())
    })?;
    daemon.finish()
}

/// The question that is open.
async fn question(daemon: &Daemon) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(id) = daemon.json(&["approvals", "list"])?[0]["approval"].as_str() {
            return Ok(id.to_owned());
        }
    }
    bail!("nobody is asked")
}

#[test]
fn a_held_stream_that_is_reset_isnt_run_by_the_yes_that_follows() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(HELD)?;
    run(async {
        let client = Client::open(&daemon).await?;
        for user in 1..=5 {
            let path = format!("/v1.0/users/{user}");
            let (held, mut stream) = client.send(request("DELETE", &path), true).await?;
            let id = question(&daemon).await?;
            // What was sent may be counted later than it is asked about.
            let before = client.given();
            stream.send_reset(h2::Reason::CANCEL);
            drop(held);
            // It has arrived by then: a frame's head and the reason.
            client.until_sent(before + 13).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut yes = daemon.interceptor(&["approvals", "approve", &id]);
            let output = yes.uid(UID).gid(UID).current_dir("/").output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        ensure!(client.ask("GET", "/v1.0/users").await?.status == 200, "the connection is over");
        Ok(())
    })?;
    ensure!(graph.received().iter().all(|one| one.method == "GET"), "{:?}", graph.received());
    daemon.finish()
}

#[test]
fn a_held_stream_does_not_stop_its_siblings() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(HELD)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let held = client.send(request("DELETE", "/v1.0/users/1"), true).await?.0;
        let mut held = std::pin::pin!(whole(held));
        let start = Instant::now();
        for _ in 0..20 {
            ensure!(client.ask("GET", "/v1.0/users").await?.status == 200, "a sibling isn't served");
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "they took {:?}", start.elapsed());
        let pending = tokio::time::timeout(Duration::from_millis(100), held.as_mut()).await;
        ensure!(pending.is_err(), "it isn't held: {pending:?}");
        Ok(())
    })?;
    ensure!(graph.received().iter().all(|one| one.method == "GET"), "{:?}", graph.received());
    daemon.finish()
}
