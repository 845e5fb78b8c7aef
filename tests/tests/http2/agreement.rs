//! Which version of HTTP is agreed on, and how a client is told in it that it may not be here.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::Wire;
use interceptor_tests::{port, recorded, require_root};

use super::fixture::{ALL, Client, begin, order, run};

#[test]
fn a_client_that_offers_nothing_or_only_http1_gets_http1() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(ALL)?;
    for how in ["alpn=", "alpn=http/1.1", "alpn=spdy/3"] {
        let mut wire = Wire::open(&daemon, "graph.microsoft.com", 443, how)?;
        ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "refused with {how}");
    }
    ensure!(graph.received().len() == 3, "{:?}", graph.received());
    daemon.finish()
}

#[test]
fn a_client_of_http2_alone_can_read_why_it_may_not_connect() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(
        "forbid (principal, action == Action::\"connect\", resource);\npermit (principal, action == Action::\"dns:resolve\", resource);",
    )?;
    run(async {
        let client = Client::open(&daemon).await?;
        let answer = client.ask("GET", "/v1.0/users").await?;
        ensure!(answer.status == 403 && answer.code() == "denied-by-policy", "{answer:?}");
        // It is told so once; the connection then ends in order.
        client.ended().await?.context("it ended otherwise")?;
        Ok(())
    })?;
    ensure!(graph.connections() == 0, "it was dialled");
    daemon.finish()
}

#[test]
fn a_client_of_http2_alone_can_read_why_there_is_no_upstream() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    // A port where nothing listens.
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
    let mut order = order(&graph, ALL);
    order.resolve = vec![("graph.microsoft.com".to_owned(), nowhere)];
    order.targets = GRAPH_TARGET.to_owned();
    let daemon = Daemon::start(&order)?;
    run(async {
        let answer = Client::open(&daemon).await?.ask("GET", "/v1.0/users").await?;
        ensure!(answer.status == 502 && answer.code() == "upstream-refused", "{answer:?}");
        Ok(())
    })?;
    recorded::wait_for(&daemon.database(), 0, |one| {
        one.outcome.as_ref().is_some_and(|(outcome, _)| outcome == "upstream-refused")
    })?;
    daemon.finish()
}
