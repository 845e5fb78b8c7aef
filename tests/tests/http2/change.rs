//! What ends streams, and which of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, Client, begin, piece, reload, run};

#[test]
fn an_operator_ends_all_streams_of_a_session() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let mut streams =
            [client.head("GET", "/stream").await?.into_body(), client.head("GET", "/stream?other").await?.into_body()];
        for stream in &mut streams {
            ensure!(piece(stream).await?.is_some(), "nothing streams");
        }
        let sessions = daemon.json(&["sessions", "list"])?;
        let id = sessions[0]["session"].as_str().context("a session")?;
        daemon.ask(&["sessions", "kill", id])?;
        let since = Instant::now();
        for stream in &mut streams {
            loop {
                match piece(stream).await {
                    Ok(Some(_)) => ensure!(since.elapsed() < Duration::from_secs(1), "it goes on"),
                    Ok(None) => anyhow::bail!("it ended in order"),
                    Err(_cut) => break,
                }
            }
        }
        ensure!(since.elapsed() < Duration::from_secs(1), "it went on for {:?}", since.elapsed());
        Ok(())
    })?;
    let ended = || -> Result<usize> {
        let all = recorded::operations(&daemon.database(), 0)?;
        Ok(all.iter().filter(|one| one.outcome == Some(("killed".into(), Some(200)))).count())
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while ended()? < 2 {
        ensure!(Instant::now() < deadline, "{:?}", recorded::operations(&daemon.database(), 0)?);
    }
    daemon.finish()
}

#[test]
fn a_reload_cuts_the_stream_that_it_no_longer_permits_and_no_other() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(ALL)?;
    run(async {
        let client = Client::open(&daemon).await?;
        let mut cut = client.head("GET", "/stream").await?.into_body();
        let mut goes_on = client.head("GET", "/stream?other").await?.into_body();
        ensure!(piece(&mut cut).await?.is_some() && piece(&mut goes_on).await?.is_some(), "nothing streams");
        let forbid = "forbid (principal, action == Action::\"http:GET\", resource) unless { context.http.query.hasTag(\"other\") || context.http.path == \"/v1.0/users\" };";
        reload(&daemon, &format!("{ALL}\n{forbid}"))?;
        let since = Instant::now();
        let error = loop {
            match piece(&mut cut).await {
                Ok(Some(_)) => ensure!(since.elapsed() < Duration::from_secs(1), "it goes on"),
                Ok(None) => anyhow::bail!("it ended in order"),
                Err(error) => break error,
            }
        };
        let error: h2::Error = error.downcast().context("an error of HTTP/2")?;
        ensure!(error.is_reset() && error.reason() == Some(h2::Reason::CANCEL), "{error:?}");
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            ensure!(piece(&mut goes_on).await?.is_some(), "its sibling ended");
        }
        ensure!(client.ask("GET", "/v1.0/users").await?.status == 200, "no new stream");
        ensure!(client.ask("GET", "/stream").await?.status == 403, "not denied");
        Ok(())
    })?;
    let cut = recorded::wait_for(&daemon.database(), 0, |one| {
        one.summary == "GET /stream" && one.outcome.as_ref().is_some_and(|(outcome, _)| outcome == "policy-changed")
    })?;
    ensure!(cut.outcome == Some(("policy-changed".into(), Some(200))), "{cut:?}");
    daemon.finish()
}
