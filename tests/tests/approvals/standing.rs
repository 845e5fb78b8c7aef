//! What an answer is good for once something has changed meanwhile: the client, the people, the daemon. Who sees what.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use interceptor_tests::wire::Wire;
use serde_json::Value;

use super::fixture::{ADA, BOB, EVE, HELD, begin, open, order, post, refuses, says, shown};

/// A client is looked at five times a second. One that has gone in between gets nothing done, either.
#[test]
fn a_yes_that_comes_just_after_the_client_has_gone_runs_nothing() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(HELD, "20s")?;
    for round in 0..8 {
        let mut wire = Wire::tls(&daemon)?;
        wire.send(post(&format!("{{\"round\":{round}}}")))?;
        let id = open(&daemon, 1)?.remove(0);
        wire.hang_up()?;
        // Its end has arrived by then.
        std::thread::sleep(Duration::from_millis(20));
        says(&daemon, ADA, &["approvals", "approve", &id])?;
    }
    std::thread::sleep(Duration::from_millis(500));
    ensure!(graph.received().is_empty(), "{:?}", graph.received());
    daemon.finish()
}

/// Puts other people into the group that is asked.
fn regroup(daemon: &Daemon, members: &[u32]) -> Result<()> {
    let config = std::fs::read_to_string(daemon.config())?;
    let members: Vec<String> = members.iter().map(|uid| format!("\"{uid}\"")).collect();
    let is_it = |line: &&str| line.starts_with("crm-approvers = ");
    let line = config.lines().find(is_it).context("the group")?;
    std::fs::write(daemon.config(), config.replace(line, &format!("crm-approvers = [{}]", members.join(", "))))?;
    daemon.ask(&["policy", "reload"])?;
    Ok(())
}

#[test]
fn a_yes_of_who_isnt_in_the_group_any_more_doesnt_make_up_the_number() -> Result<()> {
    require_root!(Ok(()));
    let policy = HELD.replace("@approval(\"crm-approvers\")", "@approval(\"crm-approvers\")\n@approvals(\"2\")");
    let (graph, daemon) = begin(&policy, "20s")?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(post("{}"))?;
    let id = open(&daemon, 1)?.remove(0);
    let approve = ["approvals", "approve", &id];
    ensure!(says(&daemon, ADA, &approve)?.contains("noted"), "one was enough");
    regroup(&daemon, &[BOB, EVE])?;
    ensure!(says(&daemon, BOB, &approve)?.contains("noted"), "Ada's yes counted, who has left");
    ensure!(graph.received().is_empty(), "it went on");
    ensure!(says(&daemon, EVE, &approve)?.contains("approved"), "two of the group weren't enough");
    ensure!(wire.answer()?.status == 200, "it wasn't let through");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_no_outlives_a_killed_daemon() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let mut daemon = Daemon::start(&order(&graph, HELD, "300ms"))?;
    let delete = "/v1.0/users/00000001-1111-4222-8333-444455556666";
    ensure!(Wire::tls(&daemon)?.ask("DELETE", delete)?.code() == "approval-pending", "it isn't asked about");
    let id = open(&daemon, 1)?.remove(0);
    says(&daemon, ADA, &["approvals", "deny", &id])?;
    daemon.kill9()?;
    daemon.restart()?;
    let again = Wire::tls(&daemon)?.ask("DELETE", delete)?;
    ensure!(again.code() == "approval-denied" && again.json()?["approval"] == id, "{again:?}");
    ensure!(open(&daemon, 0)?.is_empty() && graph.received().is_empty(), "somebody is asked again");
    daemon.finish()
}

/// By its permit or by its target: then chats aren't told whom it is about.
#[test]
fn a_question_says_whether_its_answer_is_masked() -> Result<()> {
    require_root!(Ok(()));
    let masked = HELD.replace("@approval(", "@mask(\"pii\")\n@approval(");
    for (policy, target, expected) in
        [(HELD, "", Value::Null), (masked.as_str(), "", true.into()), (HELD, "mask = [\"pii\"]\n", true.into())]
    {
        let graph = Graph::start(&[])?;
        let mut order = order(&graph, policy, "20s");
        order.more += "[[mask]]\nname = \"pii\"\ndetect = [\"email\"]\n";
        order.targets += target;
        let daemon = Daemon::start(&order)?;
        let mut wire = Wire::tls(&daemon)?;
        wire.send(post("{}"))?;
        let id = open(&daemon, 1)?.remove(0);
        ensure!(shown(&daemon, ADA, &id)?["masked"] == expected, "{policy} {target}");
        drop(wire);
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn an_auditor_sees_every_question_and_answers_none() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let mut order = order(&graph, HELD, "20s");
    order.more += &format!("[control]\nauditors = [\"user:{EVE}\"]\n");
    let daemon = Daemon::start(&order)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(post("{}"))?;
    let id = open(&daemon, 1)?.remove(0);
    ensure!(says(&daemon, EVE, &["approvals", "list"])?.contains(&id), "Eve doesn't see it");
    ensure!(shown(&daemon, EVE, &id)?["exhibit"]["body"] == "{}", "nor all of it");
    let refused = refuses(&daemon, EVE, &["approvals", "approve", &id])?;
    ensure!(refused.contains("not-asked") && graph.received().is_empty(), "{refused}");
    says(&daemon, ADA, &["approvals", "deny", &id])?;
    ensure!(wire.answer()?.code() == "approval-denied", "it isn't denied");
    daemon.finish()
}
