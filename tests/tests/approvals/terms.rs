//! On which terms people are asked: whether the initiator confirms, for how long they are, for how long a client waits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, UID};
use interceptor_tests::require_root;
use interceptor_tests::wire::Wire;

use super::fixture::{ADA, BOB, HELD, begin, open, post, refuses, says};

/// [`HELD`] with these annotations instead of, or besides its `@approval`.
fn held(annotations: &str) -> String {
    HELD.replace("@approval(\"crm-approvers\")", annotations)
}

fn asking(daemon: &Daemon) -> Result<Wire> {
    let mut wire = Wire::tls(daemon)?;
    wire.send(post("{}"))?;
    Ok(wire)
}

#[test]
fn who_launched_it_confirms_what_is_done_for_him_and_nobody_else_does() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(&held("@confirm(\"send it?\")"), "20s")?;
    let mut wire = asking(&daemon)?;
    let id = open(&daemon, 1)?.remove(0);
    let approve = ["approvals", "approve", &id];
    for uid in [ADA, BOB] {
        let refused = refuses(&daemon, uid, &approve)?;
        ensure!(refused.contains("not-asked") && refused.contains("its initiator"), "{uid}: {refused}");
    }
    let text = says(&daemon, UID, &["approvals", "show", &id])?;
    ensure!(text.contains("confirm    send it?") && text.contains("asked of   its initiator"), "{text}");
    ensure!(graph.received().is_empty(), "it went on");
    ensure!(says(&daemon, UID, &approve)?.contains("approved"), "his yes doesn't count");
    ensure!(wire.answer()?.status == 200 && graph.received().len() == 1, "it wasn't let through");
    drop(wire);
    daemon.finish()
}

#[test]
fn who_confirms_doesnt_approve_and_who_approves_doesnt_confirm() -> Result<()> {
    require_root!(Ok(()));
    let both = held("@approval(\"crm-approvers\")\n@confirm(\"send it?\")");
    let (graph, daemon) = begin(&both, "20s")?;
    // Whoever of the two comes first.
    for (number, order) in [[UID, ADA], [ADA, UID]].into_iter().enumerate() {
        let mut wire = asking(&daemon)?;
        let id = open(&daemon, 1)?.remove(0);
        let approve = ["approvals", "approve", &id];
        let noted = says(&daemon, order[0], &approve)?;
        ensure!(noted.contains("crm-approvers and its initiator have to answer"), "{noted}");
        // He is listed in the group as well.
        ensure!(refuses(&daemon, order[0], &approve)?.contains("answered-already"), "one word counts for both");
        ensure!(graph.received().len() == number, "it went on by the word of {}", order[0]);
        ensure!(says(&daemon, order[1], &approve)?.contains("approved"), "both don't count");
        ensure!(wire.answer()?.status == 200, "it wasn't let through");
    }
    daemon.finish()
}

#[test]
fn what_nobody_answers_within_its_time_is_over_for_who_waits_and_who_comes_late() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(&held("@approval(\"crm-approvers\")\n@approval_within(\"1s\")"), "20s")?;
    let since = Instant::now();
    let mut wire = asking(&daemon)?;
    let answer = wire.answer()?;
    ensure!(answer.status == 403 && answer.code() == "approval-expired", "{answer:?}");
    ensure!(since.elapsed() > Duration::from_secs(1), "it expired after {:?}", since.elapsed());
    ensure!(since.elapsed() < Duration::from_secs(15), "it expired after {:?}", since.elapsed());
    let told = answer.json()?;
    ensure!(told["next"] == "ask the user whether it is still wanted, then send it again", "{told}");
    let id = told["approval"].as_str().context("an approval")?;
    let late = refuses(&daemon, ADA, &["approvals", "approve", id])?;
    ensure!(late.contains("approval-closed") && graph.received().is_empty(), "{late}");
    ensure!(daemon.ask(&["approvals", "show", id])?.contains("expired at"), "it is recorded otherwise");
    drop(wire);
    daemon.finish()
}

/// One request, asked about twice because policy changed, waits no longer than one that is asked about once.
#[test]
fn a_client_waits_for_one_time_however_often_people_are_asked() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(HELD, "6s")?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "reading is denied");
    let since = Instant::now();
    wire.send(post("{}"))?;
    open(&daemon, 1)?;
    std::thread::sleep(Duration::from_secs(3).saturating_sub(since.elapsed()));
    let other = held("@approval(\"crm-approvers\")\n@grant_uses(\"2\")");
    ensure!(daemon.reload(&other)?.status.success(), "the policy isn't taken");
    // On other terms it is another question.
    open(&daemon, 2)?;
    let answer = wire.answer()?;
    ensure!(answer.code() == "approval-pending" && graph.received().len() == 1, "{answer:?}");
    let waited = since.elapsed();
    // From the second question on it would be nine seconds.
    let once = Duration::from_millis(5900)..Duration::from_millis(8900);
    ensure!(once.contains(&waited), "it waited for {waited:?}");
    drop(wire);
    daemon.finish()
}
