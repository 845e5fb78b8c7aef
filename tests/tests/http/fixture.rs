//! What these tests begin with.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use interceptor::record::event::{Payload, Verdict, What};
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::recorded::{self, Operation};
use interceptor_tests::scripted::{Peer, Scripted};

pub(crate) const HOST: &str = "graph.microsoft.com";

/// All of HTTP on the target, and the ways to it.
pub(crate) const ALL: &str = r#"
@id("all")
permit (principal, action in [Action::"reach", Action::"http"], resource == Target::"graph");
"#;

/// The ways to the target, and nothing on it.
pub(crate) const REACH: &str = r#"
@id("reach")
permit (principal, action in Action::"reach", resource == Target::"graph");
"#;

/// An order with the policy `policy` that brings `wire`.
pub(crate) fn order(graph: &Graph, policy: &str) -> Order {
    Order { purpose: "http", bring: vec!["wire"], ..Order::for_graph(graph, policy) }
}

/// A daemon in front of a Graph, with the policy `policy`.
pub(crate) fn begin(policy: &str) -> Result<(Graph, Daemon)> {
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&order(&graph, policy))?;
    Ok((graph, daemon))
}

/// An order with the policy [`ALL`] whose upstream is at `address`, under the CA `ca`.
pub(crate) fn order_to(address: SocketAddr, ca: String) -> Order {
    Order {
        purpose: "http",
        policy: ALL.to_owned(),
        resolve: vec![(HOST.to_owned(), address)],
        extra_ca: ca,
        targets: interceptor_tests::daemon::GRAPH_TARGET.to_owned(),
        more: String::new(),
        workload: String::new(),
        bring: vec!["wire"],
    }
}

/// A daemon in front of an upstream that follows `script`.
pub(crate) fn scripted(
    script: impl Fn(&mut Peer) -> std::io::Result<()> + Send + Sync + 'static,
) -> Result<(Scripted, Daemon)> {
    let authority = interceptor_tests::authority::Authority::new()?;
    let upstream = Scripted::start(authority.server(&[HOST])?, script)?;
    let daemon = Daemon::start(&order_to(upstream.address(), authority.pem()))?;
    Ok((upstream, daemon))
}

/// A target that may be spoken to in clear, at plain.example.
pub(crate) const PLAIN_TARGET: &str = r#"
[[target]]
name = "plain"
hosts = ["plain.example"]
cleartext = true
"#;

/// Waits until the operation with this summary has ended, and gives it.
pub(crate) fn finished(daemon: &Daemon, summary: &str) -> Result<Operation> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let fits = |one: &Operation| one.summary == summary && one.outcome.is_some();
        match recorded::wait_for(&daemon.database(), 0, fits) {
            Ok(operation) => return Ok(operation),
            Err(error) if Instant::now() > deadline => return Err(error).context(format!("`{summary}` has not ended")),
            Err(_) => {}
        }
    }
}

/// Waits until something was denied with one of these codes after event `after`.
pub(crate) fn denied(daemon: &Daemon, after: u64, codes: &[&str]) -> Result<Operation> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let fits =
        |one: &Operation| one.verdict == Verdict::Deny && one.code.as_deref().is_some_and(|code| codes.contains(&code));
    loop {
        match recorded::wait_for(&daemon.database(), after, fits) {
            Ok(operation) => return Ok(operation),
            Err(error) if Instant::now() > deadline => return Err(error).context(format!("no denial with {codes:?}")),
            Err(_) => {}
        }
    }
}

/// What an operation with this summary ended as.
pub(crate) fn outcome(daemon: &Daemon, summary: &str) -> Result<(String, Option<u16>)> {
    finished(daemon, summary)?.outcome.context("it has an outcome")
}

/// The sizes and digests of the operation with this summary: of its request, and of its response.
pub(crate) fn payloads(daemon: &Daemon, summary: &str) -> Result<(Payload, Payload)> {
    let id = finished(daemon, summary)?.id;
    for (_, event) in recorded::events(&daemon.database(), 0)? {
        if let What::OperationFinished { operation, request, response, .. } = event.what
            && operation == id
        {
            return Ok((request, response));
        }
    }
    bail!("`{summary}` has not ended")
}

/// Waits until a session has ended for this reason.
pub(crate) fn closed(daemon: &Daemon, why: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reasons: Vec<String> = recorded::events(&daemon.database(), 0)?
            .into_iter()
            .filter_map(|(_, event)| match event.what {
                What::SessionClosed { reason, .. } => Some(reason),
                _ => None,
            })
            .collect();
        if reasons.iter().any(|reason| reason == why) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no session ended with `{why}`; they ended with {reasons:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
