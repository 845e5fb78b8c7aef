//! What these tests begin with.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use interceptor_tests::daemon::{Daemon, Order, UID};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::logged_in;
use serde_json::Value;

/// Local users who are asked; none of them runs a workload.
pub(crate) const ADA: u32 = 61_301;
pub(crate) const BOB: u32 = 61_302;
pub(crate) const EVE: u32 = 61_303;

/// Reading is permitted, writing is once `crm-approvers` have said yes.
pub(crate) const HELD: &str = r#"
@id("reads")
permit (principal, action in [Action::"reach", Action::"http:read"], resource == Target::"graph");

@id("writes")
@reason("writing is looked at first")
@approval("crm-approvers")
permit (principal, action in Action::"http:write", resource == Target::"graph");
"#;

/// Who people are and who is asked, and how long a client is kept waiting.
pub(crate) fn people(hold: &str) -> String {
    let id = |last: u32| format!("72f988bf-86f1-41af-91ab-2d7cd011db47/00000000-0000-4000-8000-0000000{last}");
    format!(
        "[[tenant]]\nid = \"72f988bf-86f1-41af-91ab-2d7cd011db47\"\n[limits]\nhold = \"{hold}\"\n\
         [people]\n{ADA} = \"{}\"\n{BOB} = \"{}\"\n{EVE} = \"{}\"\n{UID} = \"{}\"\n\
         [approvers]\ncrm-approvers = [\"{ADA}\", \"{BOB}\", \"{UID}\"]\nsecurity = [\"{EVE}\", \"{BOB}\"]\n",
        id(ADA),
        id(BOB),
        id(EVE),
        id(UID)
    )
}

/// An order of a daemon in front of a Graph, that keeps clients waiting for `hold`.
pub(crate) fn order(graph: &Graph, policy: &str, hold: &str) -> Order {
    Order { purpose: "approvals", bring: vec!["wire"], more: people(hold), ..Order::for_graph(graph, policy) }
}

/// A daemon in front of a Graph.
pub(crate) fn begin(policy: &str, hold: &str) -> Result<(Graph, Daemon)> {
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&order(&graph, policy, hold))?;
    Ok((graph, daemon))
}

/// A request that authenticates with nothing.
pub(crate) fn post(body: &str) -> String {
    format!(
        "POST /echo?to=ada HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Type: application/json\r\n\
         Interceptor-Justification: ticket 7\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// `interceptor …` as a local user.
pub(crate) fn as_user(daemon: &Daemon, uid: u32, arguments: &[&str]) -> Result<Output> {
    let mut command: Command = daemon.interceptor(arguments);
    // It changes nothing that a user could not change.
    Ok(command.uid(uid).gid(uid).current_dir("/").output()?)
}

/// What `interceptor …` says to a local user, who may.
pub(crate) fn says(daemon: &Daemon, uid: u32, arguments: &[&str]) -> Result<String> {
    let output = as_user(daemon, uid, arguments)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` failed for {uid}: {error}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// What `interceptor …` says to a local user, who may not.
pub(crate) fn refuses(daemon: &Daemon, uid: u32, arguments: &[&str]) -> Result<String> {
    let output = as_user(daemon, uid, arguments)?;
    ensure!(!output.status.success(), "`{}` is done for {uid}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `interceptor …` says to a local user who logged in as another, and may not.
pub(crate) fn refuses_who_logged_in(daemon: &Daemon, login: u32, uid: u32, arguments: &[&str]) -> Result<String> {
    let output = logged_in(&daemon.interceptor(arguments), login, uid).current_dir("/").output()?;
    ensure!(!output.status.success(), "`{}` is done for {uid}, logged in as {login}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Waits until as many questions as this are open, and gives their ids, the oldest first.
pub(crate) fn open(daemon: &Daemon, count: usize) -> Result<Vec<String>> {
    let deadline = Instant::now() + Duration::from_secs(20) + Duration::from_millis(50) * u32::try_from(count)?;
    loop {
        let open = daemon.json(&["approvals", "list", "--limit", "10000"])?;
        let open = open.as_array().context("a list")?;
        if open.len() == count {
            return open.iter().map(|one| Ok(one["approval"].as_str().context("an id")?.to_owned())).collect();
        }
        if Instant::now() > deadline {
            bail!("{} questions are open instead of {count}: {open:?}", open.len());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One question as it is shown, for scripts.
pub(crate) fn shown(daemon: &Daemon, uid: u32, id: &str) -> Result<Value> {
    Ok(serde_json::from_str(&says(daemon, uid, &["approvals", "show", id, "--json"])?)?)
}
