//! The broken glass: what it lets through, its end, and the auditor who looks at it afterwards. Who sees what.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, UID};
use interceptor_tests::entra::Entra;
use interceptor_tests::entra::directory::{CRM, FABRIKAM, GRAPH};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::{Wire, logged_in};
use interceptor_tests::{recorded, require_root};

use super::fixture::{BOB, EVE, order, refuses, refuses_who_logged_in, says};

const READS: &str = r#"
@id("reads")
permit (principal, action in [Action::"reach", Action::"http:read"], resource == Target::"graph");

@id("no-deletes")
forbid (principal, action == Action::"http:DELETE", resource);

@id("no-mail")
@always
@reason("mail is never sent from here")
forbid (principal, action, resource) when { context has http && context.http.path like "*/sendMail" };
"#;

const MEND: &str = r#"@id("mend") permit (principal, action in Action::"http", resource == Target::"graph");"#;

const DELETE: &str = "/v1.0/users/00000001-1111-4222-8333-444455556666";

/// A daemon with something for an emergency, and Eve as its auditor.
fn begin() -> Result<(Graph, Daemon)> {
    let graph = Graph::start(&[])?;
    let mut order = order(&graph, READS, "1s");
    order.more += &format!("[control]\nauditors = [\"user:{EVE}\"]\n");
    let daemon = Daemon::start(&order)?;
    Ok((graph, daemon))
}

fn write_for_emergencies(daemon: &Daemon) -> Result<()> {
    let folder = daemon.room().join("etc/break-glass.d");
    fs::create_dir(&folder)?;
    fs::write(folder.join("mend.cedar"), MEND)?;
    ensure!(daemon.ask(&["policy", "reload"])?.contains("1 more in an emergency"), "it isn't loaded");
    Ok(())
}

const START: [&str; 8] =
    ["break-glass", "start", "--workload", "crm", "--for", "30m", "--reason", "the directory is down"];

#[test]
fn an_emergency_lets_through_what_was_written_for_it_until_it_ends() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin()?;
    let empty = daemon.interceptor(&START).output()?;
    let said = String::from_utf8_lossy(&empty.stderr).into_owned();
    ensure!(!empty.status.success() && said.contains("break-glass-empty"), "{said}");
    write_for_emergencies(&daemon)?;

    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("DELETE", DELETE)?.code() == "denied-by-policy", "it is permitted before");
    let started = daemon.ask(&START)?;
    let id = started.split(':').next().context("an id")?.to_owned();
    until_status(&daemon, |status| status.contains("the glass is broken for `crm`"))?;
    ensure!(wire.ask("DELETE", DELETE)?.status == 204, "the glass isn't broken");
    let mail = wire.ask("POST", "/v1.0/me/sendMail")?;
    ensure!(mail.code() == "denied-by-policy", "what is forbidden always went on: {mail:?}");
    let (used, explained) = explained(&daemon, "DELETE /v1.0/users/")?;
    ensure!(used == id && explained.contains("mend"), "{used} {explained}");

    // The end cuts what goes on because of it.
    wire.send("POST /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 0\r\n\r\n")?;
    wire.until("tick")?;
    ensure!(daemon.ask(&["break-glass", "stop", &id])?.contains("stopped"), "it isn't stopped");
    let since = Instant::now();
    let (_, _, at) = wire.rest_and_when()?;
    let lasted = at.saturating_duration_since(since);
    ensure!(lasted < Duration::from_secs(1), "it went on for {lasted:?}");
    recorded::wait_for(&daemon.database(), 0, |one| {
        one.outcome.as_ref().is_some_and(|(outcome, _)| outcome == "break-glass-ended")
    })?;
    ensure!(Wire::tls(&daemon)?.ask("DELETE", DELETE)?.code() == "denied-by-policy", "it is permitted afterwards");

    // It is open until an auditor has looked at it.
    until_status(&daemon, |status| status.contains("no auditor has looked"))?;
    let close = ["break-glass", "close", &id, "--note", "the right users were removed"];
    ensure!(!daemon.interceptor(&close).output()?.status.success(), "root closed it");
    ensure!(says(&daemon, EVE, &close)?.contains("closed"), "an auditor can't close it");
    until_status(&daemon, |status| !status.contains("break-glass"))?;
    ensure!(daemon.ask(&["break-glass", "list", "--all"])?.contains(&format!("closed by uid {EVE}")), "by whom?");
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    ensure!(graph.received().len() == 2, "{:?}", graph.received());
    daemon.finish()
}

/// `status` tells what is in the database, a moment after it happened.
fn until_status(daemon: &Daemon, is_so: impl Fn(&str) -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = daemon.ask(&["status"])?;
        if is_so(&status) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{status}");
    }
}

/// The glass that an operation was let through by, and how it is explained.
fn explained(daemon: &Daemon, summary: &str) -> Result<(String, String)> {
    let found = daemon.json(&["sessions", "search", "--verdict", "allow", summary])?;
    let operation = found[0]["operation"].as_str().context("an operation")?;
    let glass = found[0]["basis"]["break_glass"].as_str().context("no glass")?.to_owned();
    Ok((glass, daemon.ask(&["policy", "explain", operation])?))
}

#[test]
fn one_person_with_two_uids_doesnt_close_what_he_started() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let mut order = order(&graph, READS, "1s");
    // Root is Eve, who is an auditor by her own uid.
    let eve = order.more.lines().find(|line| line.starts_with(&format!("{EVE} = "))).context("Eve")?;
    let root = eve.replacen(&EVE.to_string(), "0", 1);
    order.more = order.more.replacen("[people]\n", &format!("[people]\n{root}\n"), 1);
    order.more += &format!("[control]\nauditors = [\"user:{EVE}\", \"user:{BOB}\"]\n");
    let daemon = Daemon::start(&order)?;
    write_for_emergencies(&daemon)?;
    let started = daemon.ask(&START)?;
    let id = started.split(':').next().context("an id")?;
    daemon.ask(&["break-glass", "stop", id])?;
    let close = ["break-glass", "close", id, "--note", "looked at"];
    let why = refuses(&daemon, EVE, &close)?;
    ensure!(why.contains("own-operation"), "{why}");
    ensure!(says(&daemon, BOB, &close)?.contains("closed"), "another auditor can't close it");
    daemon.finish()
}

/// Nor does who began it by `sudo`, nor who becomes another auditor by it.
#[test]
fn who_breaks_the_glass_by_sudo_doesnt_close_it() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let mut order = order(&graph, READS, "1s");
    order.more += &format!("[control]\nauditors = [\"user:{EVE}\", \"user:{BOB}\"]\n");
    let daemon = Daemon::start(&order)?;
    write_for_emergencies(&daemon)?;
    let started = logged_in(&daemon.interceptor(&START), EVE, 0).output()?;
    let started = String::from_utf8(started.stdout)?;
    let id = started.split(':').next().context("an id")?;
    daemon.ask(&["break-glass", "stop", id])?;
    let close = ["break-glass", "close", id, "--note", "looked at"];
    for why in [refuses(&daemon, EVE, &close)?, refuses_who_logged_in(&daemon, EVE, BOB, &close)?] {
        ensure!(why.contains("own-operation"), "{why}");
    }
    ensure!(says(&daemon, BOB, &close)?.contains("closed"), "another auditor can't close it");
    daemon.finish()
}

#[test]
fn what_policy_no_longer_permits_doesnt_go_on_by_an_emergency_unrecorded() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin()?;
    write_for_emergencies(&daemon)?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    wire.until("tick")?;
    daemon.ask(&START)?;
    let forbidding = format!(
        "{READS}@id(\"no-reads\") forbid (principal, action in Action::\"http:read\", resource == Target::\"graph\");"
    );
    ensure!(daemon.reload(&forbidding)?.status.success(), "the policy isn't taken");
    wire.rest()?;
    recorded::wait_for(&daemon.database(), 0, |one| {
        one.summary == "GET /stream" && one.outcome.as_ref().is_some_and(|(outcome, _)| outcome == "policy-changed")
    })?;
    // Sent again it is let through by the emergency, and recorded so.
    ensure!(Wire::tls(&daemon)?.ask("GET", "/v1.0/users")?.status == 200, "the glass isn't broken");
    explained(&daemon, "GET /v1.0/users")?;
    daemon.finish()
}

#[test]
fn an_emergency_lets_nobody_in_whose_tenant_isnt_listed() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin()?;
    write_for_emergencies(&daemon)?;
    daemon.ask(&START)?;
    let foreign = Entra::start(&[])?.app_token(FABRIKAM, CRM, GRAPH)?.build()?;
    let mut wire = Wire::tls(&daemon)?;
    let bearer = format!("Bearer {foreign}");
    for (credential, code) in [(bearer.as_str(), "tenant-not-listed"), ("Basic eDp5", "foreign-credential")] {
        let head = format!("DELETE {DELETE} HTTP/1.1\r\nHost: graph.microsoft.com\r\n");
        wire.send(format!("{head}Authorization: {credential}\r\n\r\n"))?;
        let refused = wire.answer()?;
        ensure!(refused.status == 403 && refused.code() == code, "{refused:?}");
    }
    ensure!(graph.received().is_empty(), "{:?}", graph.received());
    ensure!(wire.ask("DELETE", DELETE)?.status == 204, "the glass isn't broken");
    drop(wire);
    daemon.finish()
}

#[test]
fn an_emergency_that_is_over_cuts_what_goes_on_by_it() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin()?;
    write_for_emergencies(&daemon)?;
    let mut wire = Wire::tls(&daemon)?;
    // It is connected by then.
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "it isn't read");
    daemon.ask(&[&START[..5], &["2s"], &START[6..]].concat())?;
    let since = Instant::now();
    wire.send("POST /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 0\r\n\r\n")?;
    wire.until("tick")?;
    let (came, _, at) = wire.rest_and_when()?;
    let lasted = at.saturating_duration_since(since);
    ensure!(lasted < Duration::from_secs(3), "it went on for {lasted:?}");
    ensure!(!came.ends_with(b"0\r\n\r\n"), "it looks complete");
    recorded::wait_for(&daemon.database(), 0, |one| {
        one.summary == "POST /stream" && one.outcome.as_ref().is_some_and(|(outcome, _)| outcome == "break-glass-ended")
    })?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while daemon.json(&["break-glass", "list"])?[0]["ending"] != "expired" {
        ensure!(Instant::now() < deadline, "it is recorded otherwise");
    }
    daemon.finish()
}

#[test]
fn an_emergency_outlives_a_killed_daemon_and_a_rotation_but_not_its_time() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = begin()?;
    write_for_emergencies(&daemon)?;
    let short = [&START[..5], &["15s"], &START[6..]].concat();
    daemon.ask(&short)?;
    let since = Instant::now();
    daemon.ask(&["record", "rotate"])?;
    daemon.kill9()?;
    daemon.restart()?;
    let lasts = daemon.json(&["break-glass", "list"])?;
    ensure!(lasts.as_array().map(Vec::len) == Some(1) && lasts[0]["ended_at"].is_null(), "{lasts}");
    ensure!(Wire::tls(&daemon)?.ask("DELETE", DELETE)?.status == 204, "it doesn't last");
    ensure!(since.elapsed() < Duration::from_secs(14), "too slow to tell: {:?}", since.elapsed());
    std::thread::sleep(Duration::from_secs(17).saturating_sub(since.elapsed()));
    ensure!(Wire::tls(&daemon)?.ask("DELETE", DELETE)?.code() == "denied-by-policy", "it lasts too long");
    ensure!(daemon.json(&["break-glass", "list"])?[0]["ending"] == "expired", "it isn't recorded to have ended");
    daemon.finish()
}

#[test]
fn everybody_sees_and_does_what_their_role_is() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin()?;
    ensure!(Wire::tls(&daemon)?.ask("GET", "/v1.0/users")?.status == 200, "it isn't read");
    let sessions = daemon.json(&["sessions", "list"])?;
    let session = sessions[0]["session"].as_str().context("a session")?.to_owned();

    // Who launched it sees it, and nothing that he can do to it.
    ensure!(says(&daemon, UID, &["sessions", "list"])?.contains("crm"), "he doesn't see his own");
    ensure!(says(&daemon, UID, &["sessions", "show", &session])?.contains("GET /v1.0/users"), "nor all of it");
    ensure!(says(&daemon, UID, &["sessions", "search", "users"])?.contains("GET"), "nor finds it");
    ensure!(says(&daemon, UID, &["sessions", "replay", &session, "--speed", "0"])?.contains("GET"), "nor its payload");
    ensure!(refuses(&daemon, UID, &["sessions", "kill", &session])?.contains("not-an-operator"), "he kills it");

    // To somebody else it isn't there.
    ensure!(!says(&daemon, BOB, &["sessions", "list"])?.contains("crm"), "Bob sees it");
    ensure!(refuses(&daemon, BOB, &["sessions", "show", &session])?.contains("nothing recorded"), "Bob is told of it");
    ensure!(says(&daemon, BOB, &["sessions", "search", "users"])?.contains("nothing recorded fits"), "Bob finds it");
    ensure!(refuses(&daemon, BOB, &["sessions", "replay", &session])?.contains("nothing recorded"), "Bob reads it");
    ensure!(refuses(&daemon, BOB, &["policy", "show"])?.contains("not-an-operator"), "Bob reads policies");

    // An auditor sees everything, and changes nothing but holds.
    ensure!(says(&daemon, EVE, &["sessions", "show", &session])?.contains("GET /v1.0/users"), "Eve doesn't see it");
    ensure!(says(&daemon, EVE, &["sessions", "verify", "--json"])?.contains("true"), "Eve can't verify");
    ensure!(says(&daemon, EVE, &["policy", "show"])?.contains("no-mail"), "Eve can't read policies");
    says(&daemon, EVE, &["sessions", "hold", &session])?;
    for forbidden in [&["policy", "reload"][..], &["sessions", "erase", &session], &["grants", "revoke", "grt_0"]] {
        ensure!(refuses(&daemon, EVE, forbidden)?.contains("not-an-operator"), "Eve may {forbidden:?}");
    }
    ensure!(refuses(&daemon, EVE, &START)?.contains("not-an-operator"), "Eve breaks the glass");
    daemon.finish()
}
