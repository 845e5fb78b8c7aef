//! Nobody answers for himself: not by another uid, nor for what he had a server ask for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::graph::Graph;
use interceptor_tests::unit::{self, ADOPTED, Unit};
use interceptor_tests::wire::{Wire, logged_in};
use interceptor_tests::{port, require_root};

use super::fixture::{ADA, BOB, EVE, HELD, open, order, post, refuses, refuses_who_logged_in, says, shown};

/// Who acts as somebody else by `sudo` is who he logged in as: for what he launched, and where he answers.
#[test]
fn nobody_answers_for_himself_by_sudo() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let order = Order { workload: "user = \"nobody\"".into(), ..order(&graph, HELD, "20s") };
    let daemon = Daemon::start(&order)?;
    let mut wire = Wire::tls_by(&daemon, 0, Some(ADA))?;
    wire.send(post("{}"))?;
    let id = open(&daemon, 1)?.remove(0);
    let asked = shown(&daemon, BOB, &id)?;
    ensure!(asked["initiator"] == 0 && asked["loginuid"] == ADA, "{asked}");
    let text = says(&daemon, BOB, &["approvals", "show", &id])?;
    ensure!(text.contains(&format!("launched by uid 0, logged in as uid {ADA}")), "{text}");
    let approve = ["approvals", "approve", &id];
    ensure!(text.contains(&format!("for        workload crm, launched by uid 0, logged in as uid {ADA}, ")), "{text}");
    let own = refuses(&daemon, ADA, &approve)?;
    ensure!(own.contains("own-operation"), "{own}");
    let own = refuses_who_logged_in(&daemon, ADA, BOB, &approve)?;
    ensure!(own.contains("own-operation"), "she became another approver: {own}");

    // Another's launch by the same user is another question, which the first one's launcher may answer.
    let mut other = Wire::tls_by(&daemon, 0, Some(EVE))?;
    other.send(post("{}"))?;
    let second = open(&daemon, 2)?.into_iter().find(|one| *one != id).context("two questions")?;
    says(&daemon, ADA, &["approvals", "approve", &second])?;
    ensure!(other.answer()?.status == 200, "it wasn't let through");
    ensure!(graph.received().len() == 1, "a yes to one was a yes to another: {:?}", graph.received());
    says(&daemon, BOB, &approve)?;
    ensure!(wire.answer()?.status == 200, "it wasn't let through");
    drop((wire, other));
    daemon.finish()
}

/// What the order says besides, with somebody more of whom `[people]` says who it is among `crm-approvers`.
fn also_asked(order: &Order, uid: u32) -> String {
    let person = format!("{uid} = \"72f988bf-86f1-41af-91ab-2d7cd011db47/00000000-0000-4000-8000-{uid:012}\"\n");
    let more = order.more.replacen("[people]\n", &format!("[people]\n{person}"), 1);
    more.replacen("crm-approvers = [", &format!("crm-approvers = [\"{uid}\", "), 1)
}

/// Root is nobody's name, and answers only where the configuration says who it is and that it is asked.
#[test]
fn root_answers_where_it_is_listed() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let order = order(&graph, HELD, "20s");
    let daemon = Daemon::start(&Order { more: also_asked(&order, 0), ..order })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(post("{}"))?;
    let id = open(&daemon, 1)?.remove(0);
    ensure!(says(&daemon, 0, &["approvals", "approve", &id])?.contains("approved"), "root's yes doesn't count");
    ensure!(wire.answer()?.status == 200 && graph.received().len() == 1, "it wasn't let through");
    let answered = shown(&daemon, 0, &id)?;
    let person = "72f988bf-86f1-41af-91ab-2d7cd011db47/00000000-0000-4000-8000-000000000000";
    ensure!(answered["answers"][0]["uid"] == 0 && answered["answers"][0]["person"] == person, "{answered}");
    drop(wire);
    daemon.finish()
}

/// Nobody launched an adopted service; what it runs as answers nothing all the same, for as long as it runs.
#[test]
fn nobody_answers_as_the_user_of_a_service() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let (order, service) = (order(&graph, HELD, "20s"), unit::uid());
    let more = also_asked(&order, service) + ADOPTED;
    let daemon = Daemon::start(&Order { more, bring: vec!["wire", "probe"], ..order })?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send(post("{}"))?;
    let id = open(&daemon, 1)?.remove(0);
    // Too wide for anybody: who is refused for another reason is so before that is looked at.
    let is_refused_for = |code: &str| -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let refused = refuses(&daemon, service, &["approvals", "approve", &id, "--scope", "target"])?;
            if refused.contains(code) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not for `{code}`: {refused}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    is_refused_for("too-wide")?;
    let unit = Unit::new(&daemon)?;
    let mut running = unit.command("sleep").arg("60").spawn()?;
    let refused = is_refused_for("runs-a-workload");
    running.kill()?;
    running.wait()?;
    refused?;
    is_refused_for("too-wide")?;
    says(&daemon, service, &["approvals", "approve", &id])?;
    ensure!(wire.answer()?.status == 200 && graph.received().len() == 1, "it wasn't let through");
    drop(wire);
    unit.remove()?;
    daemon.finish()
}

/// Calls what is published at `address`, as root.
fn call(address: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let attempt = || -> std::io::Result<usize> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.write_all(b"hello")?;
            stream.read(&mut [0; 5])
        };
        match attempt() {
            Ok(count) if count > 0 => return Ok(()),
            other => ensure!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a server asks for may be what its caller has it ask for.
#[test]
fn who_calls_a_server_doesnt_answer_for_what_it_asks() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let address = format!("127.0.0.1:{}", port::free()?);
    let order = order(&graph, HELD, "20s");
    // Root, who may call, is an approver here.
    let more = also_asked(&order, 0);
    let workload = format!("publish = [\"{address}:8000\"]\n");
    let daemon = Daemon::start(&Order { bring: vec!["wire", "probe"], workload, more, ..order })?;
    let mut wire = Wire::tls_of_a_server(&daemon, 8000)?;
    wire.send(post("{}"))?;
    let id = open(&daemon, 1)?.remove(0);
    ensure!(shown(&daemon, 0, &id)?["callers"].is_null(), "somebody has called");
    call(&address)?;
    let own = refuses(&daemon, 0, &["approvals", "approve", &id])?;
    ensure!(own.contains("own-operation"), "who has called since answers: {own}");
    says(&daemon, BOB, &["approvals", "approve", &id])?;
    ensure!(wire.answer()?.status == 200, "it wasn't let through");

    wire.send(post("{\"note\":\"another\"}"))?;
    let second = open(&daemon, 1)?.remove(0);
    let asked = shown(&daemon, BOB, &second)?;
    ensure!(asked["callers"] == serde_json::json!([0]), "{asked}");
    let text = says(&daemon, BOB, &["approvals", "show", &second])?;
    ensure!(text.contains("called of late by uid 0"), "{text}");
    let own = refuses(&daemon, 0, &["approvals", "deny", &second])?;
    ensure!(own.contains("own-operation"), "{own}");
    says(&daemon, BOB, &["approvals", "approve", &second])?;
    ensure!(wire.answer()?.status == 200 && graph.received().len() == 2, "it wasn't let through");

    // Who calls by `sudo` is who he logged in as.
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("exec 3<>/dev/tcp/{}; echo hello >&3; head -c 5 <&3", address.replace(':', "/"))]);
    let answered = logged_in(&bash, ADA, 0).output()?;
    ensure!(answered.stdout == b"HELLO", "{answered:?}");
    wire.send(post("{\"note\":\"a third\"}"))?;
    let third = open(&daemon, 1)?.remove(0);
    ensure!(shown(&daemon, BOB, &third)?["callers"] == serde_json::json!([0, ADA]));
    let own = refuses(&daemon, ADA, &["approvals", "approve", &third])?;
    ensure!(own.contains("own-operation"), "{own}");
    says(&daemon, BOB, &["approvals", "deny", &third])?;
    ensure!(wire.answer()?.status == 403);
    drop(wire);
    daemon.finish()
}
