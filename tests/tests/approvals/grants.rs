//! Grants: what they let through, how often, until when, and what their end does.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, Order, UID};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};

use super::fixture::{ADA, HELD, begin, open, order, refuses, says, shown};

/// Nothing but what an operator lets through for a time.
const JUST_IN_TIME: &str = r#"
@id("jit")
permit (principal, action in [Action::"reach", Action::"http"], resource == Target::"graph")
when { context.base.granted };
"#;

fn grant(daemon: &Daemon, arguments: &[&str]) -> Result<String> {
    let all = [&["grants", "issue", "--workload", "crm", "--target", "graph"], arguments].concat();
    let said = daemon.ask(&all)?;
    Ok(said.split(':').next().context("an id")?.to_owned())
}

#[test]
fn an_operator_opens_a_target_for_a_time_and_closes_it() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(JUST_IN_TIME, "1s")?;
    ensure!(Wire::tls(&daemon).is_err() || Wire::tls(&daemon)?.ask("GET", "/v1.0/users").is_err(), "it isn't closed");
    let id = grant(&daemon, &["--for", "30m"])?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "it isn't open");
    let listed = daemon.ask(&["grants", "list"])?;
    ensure!(listed.contains(&id) && listed.contains("everything on `graph`"), "{listed}");
    wire.send("GET /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    wire.until("tick")?;
    ensure!(daemon.ask(&["grants", "revoke", &id])?.contains("revoked"), "it isn't revoked");
    let since = Instant::now();
    let (came, _, at) = wire.rest_and_when()?;
    let lasted = at.saturating_duration_since(since);
    ensure!(lasted < Duration::from_secs(1), "it went on for {lasted:?}");
    ensure!(!came.ends_with(b"0\r\n\r\n"), "it looks complete");
    let cut = recorded::wait_for(&daemon.database(), 0, |one| {
        one.outcome.as_ref().is_some_and(|(outcome, _)| outcome == "grant-ended")
    })?;
    ensure!(cut.summary == "GET /stream", "{cut:?}");
    ensure!(daemon.ask(&["grants", "list"])?.contains("no grants"), "it is still listed");
    ensure!(graph.received().len() == 2, "{:?}", graph.received());
    daemon.finish()
}

#[test]
fn a_grant_that_could_let_nothing_through_isnt_issued() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(JUST_IN_TIME, "1s")?;
    let issue = ["grants", "issue", "--workload", "crm", "--target", "graph", "--for", "5m", "--action"];
    for (wrong, why) in [
        (&["http:reed"][..], "`http:reed` is no action"),
        (&["http:read", "--path", "v1.0/users"], "doesn't begin with `/`"),
    ] {
        let output = daemon.interceptor(&[&issue[..], wrong].concat()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains("grant-malformed") && said.contains(why), "{said}");
    }
    ensure!(daemon.ask(&["grants", "list"])?.contains("no grants"), "one is issued");
    grant(&daemon, &["--for", "5m", "--action", "http:read", "--path", "/v1.0/users"])?;
    daemon.finish()
}

/// A way to the target only while something lets it through; over it, reading is permitted.
const WAY: &str = r#"
@id("way")
permit (principal, action in Action::"reach", resource == Target::"graph") when { context.base.granted };
@id("reads")
permit (principal, action in Action::"http:read", resource == Target::"graph");
"#;

#[test]
fn a_connection_ends_with_the_grant_that_admitted_it() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(WAY, "1s")?;
    let id = grant(&daemon, &["--for", "30m"])?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 200, "it isn't open");
    ensure!(!wire.is_over(), "it ended before its time");
    daemon.ask(&["grants", "revoke", &id])?;
    let since = Instant::now();
    while !wire.is_over() {
        ensure!(since.elapsed() < Duration::from_secs(1), "the connection lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon.finish()
}

/// How long something went on after the end of a grant for a second. It is issued in this quarter of a second.
fn late(daemon: &Daemon, began: Instant, quarter: u32) -> Result<Duration> {
    let mut wire = Wire::tls(daemon)?;
    // It is connected by then.
    ensure!(wire.ask("GET", "/v1.0/users")?.status == 403, "it is let through without a grant");
    while began.elapsed().subsec_millis() / 250 != quarter {
        std::thread::sleep(Duration::from_millis(5));
    }
    grant(daemon, &["--for", "1s"])?;
    let issued = Instant::now();
    wire.send("GET /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    wire.until("tick")?;
    let (_, _, at) = wire.rest_and_when()?;
    Ok(at.saturating_duration_since(issued).saturating_sub(Duration::from_secs(1)))
}

/// At its end, not at the next look after it: four of them, a quarter of a second apart from each other's. One that is late
/// is looked at again: what else the machine does is late only now and then.
#[test]
fn a_grant_ends_by_itself_and_cuts_what_goes_on() -> Result<()> {
    require_root!(Ok(()));
    let reach = "@id(\"reach\") permit (principal, action in Action::\"reach\", resource);";
    let (_graph, daemon) = begin(&format!("{reach}{JUST_IN_TIME}"), "1s")?;
    let began = Instant::now();
    for quarter in 0..4 {
        let mut least = Duration::MAX;
        for _ in 0..4 {
            least = least.min(late(&daemon, began, quarter)?);
            if least < Duration::from_millis(500) {
                break;
            }
        }
        ensure!(least < Duration::from_millis(500), "it went on for {least:?} after its end");
    }
    daemon.finish()
}

#[test]
fn a_grant_of_bytes_ends_in_the_middle_of_an_answer() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = begin(JUST_IN_TIME, "1s")?;
    let id = grant(&daemon, &["--for", "5m", "--bytes", "300000"])?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("GET", "/bytes/100000")?.body.len() == 100_000, "it isn't let through");
    let listed = daemon.json(&["grants", "list"])?;
    ensure!(listed[0]["spent_bytes"] == 100_000, "{listed}");

    // What was let through counts after a restart as well.
    recorded::wait_for(&daemon.database(), 0, |one| one.summary == "GET /bytes/100000" && one.outcome.is_some())?;
    drop(wire);
    daemon.kill9()?;
    daemon.restart()?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /bytes/1000000 HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    let (came, _) = wire.rest()?;
    ensure!(came.len() < 202_000, "{} bytes came, 200,000 were left", came.len());
    let cut = recorded::wait_for(&daemon.database(), 0, |one| {
        one.outcome.as_ref().is_some_and(|(outcome, _)| outcome == "grant-ended")
    })?;
    ensure!(cut.summary == "GET /bytes/1000000", "{cut:?}");
    let story = daemon.json(&["sessions", "show", &cut.session.context("a session")?.to_string()])?;
    let spent = &story["operations"].as_array().and_then(|all| all.last()).context("an operation")?["spent"];
    ensure!(spent["grant"] == id.as_str() && spent["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{story}");
    let listed = daemon.json(&["grants", "list", "--all"])?;
    ensure!(listed[0]["id"] == id.as_str() && listed[0]["reason"] == "used-up", "{listed}");
    ensure!(listed[0]["spent_bytes"].as_u64().is_some_and(|spent| spent <= 300_000), "{listed}");
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    daemon.finish()
}

#[test]
fn a_killed_daemon_ends_grants_of_bytes_that_were_in_use_and_no_others() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = begin(JUST_IN_TIME, "1s")?;
    let used = grant(&daemon, &["--for", "5m", "--bytes", "1GiB"])?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    wire.until("tick")?;
    recorded::wait_for(&daemon.database(), 0, |one| one.summary == "GET /stream")?;
    let idle = grant(&daemon, &["--for", "5m", "--action", "http:write", "--bytes", "1GiB"])?;
    let revoked = grant(&daemon, &["--for", "5m"])?;
    daemon.ask(&["grants", "revoke", &revoked])?;
    let listed = daemon.json(&["grants", "list", "--limit", "1"])?;
    ensure!(listed[0]["id"] == idle.as_str(), "a live grant is hidden behind one that ended: {listed}");
    daemon.kill9()?;
    daemon.restart()?;
    let listed = daemon.json(&["grants", "list", "--all"])?;
    let reason =
        |id: &str| listed.as_array().and_then(|all| all.iter().find(|one| one["id"] == id)).map(|one| &one["reason"]);
    ensure!(reason(&used).is_some_and(|reason| reason == "daemon-killed"), "{listed}");
    ensure!(reason(&idle).is_some_and(serde_json::Value::is_null), "{listed}");
    drop(wire);
    daemon.finish()
}

#[test]
fn a_grant_of_rows_lets_through_so_many_and_only_what_has_rows() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(JUST_IN_TIME, "1s")?;
    grant(&daemon, &["--for", "5m", "--rows", "1000"])?;
    let mut wire = Wire::tls(&daemon)?;
    let users = wire.ask("GET", "/v1.0/users")?;
    let count = users.json()?["value"].as_array().context("rows")?.len() as u64;
    ensure!(users.status == 200 && count > 1, "{users:?}");
    ensure!(daemon.json(&["grants", "list"])?[0]["spent_rows"] == count, "{}", daemon.json(&["grants", "list"])?);
    let bytes = wire.ask("GET", "/bytes/10")?;
    ensure!(bytes.status == 403 && bytes.code() == "rows-uncountable", "{bytes:?}");
    drop(wire);

    // One less than the answer has.
    let (_graph, daemon) = (daemon.finish()?, begin(JUST_IN_TIME, "1s")?).1;
    grant(&daemon, &["--for", "5m", "--rows", &(count - 1).to_string()])?;
    let mut wire = Wire::tls(&daemon)?;
    let refused = wire.ask("GET", "/v1.0/users");
    ensure!(refused.is_err() || refused?.status == 403, "more rows than there are came");
    let listed = daemon.json(&["grants", "list", "--all"])?;
    ensure!(listed[0]["reason"] == "used-up" && listed[0]["spent_rows"] == 0, "{listed}");
    daemon.finish()
}

#[test]
fn a_thousand_at_once_use_a_grant_for_one_once() -> Result<()> {
    require_root!(Ok(()));
    let policy = "@id(\"reach\") permit (principal, action in Action::\"reach\", resource);\n\
                  @id(\"jit\") permit (principal, action, resource) when { context.base.granted };";
    let (graph, daemon) = begin(policy, "1s")?;
    grant(&daemon, &["--action", "http:read", "--for", "5m", "--uses", "1"])?;
    let curl = ["curl", "-sZ", "--http1.1", "--parallel-immediate", "--parallel-max", "100", "-o", "/dev/null"];
    let urls = ["-w", "%{http_code}\n", "https://graph.microsoft.com/v1.0/users?[1-1000]"];
    let output = daemon.run(&[&curl[..], &urls[..]].concat()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = |code: &str| said.lines().filter(|line| *line == code).count();
    ensure!(count("200") == 1 && count("403") == 999, "{} and {}: {said}", count("200"), count("403"));
    ensure!(graph.received().len() == 1, "{} requests arrived", graph.received().len());
    daemon.finish()
}

/// The same request, sent two hundred times at once, is one question. A yes to it is good for one of them; the others wait on,
/// for another yes, and take up nothing meanwhile.
#[test]
fn of_many_that_wait_for_one_yes_one_goes_on_and_people_are_asked_anew_for_the_others() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let mut order = order(&graph, HELD, "25s");
    // Two hundred handshakes at once may take longer than one may, where there are few processors.
    let limits = "[limits]\nholds = 200\nholds_in_all = 200\ndetect_timeout = \"20s\"\n";
    order.more = order.more.replace("[limits]\n", limits);
    let daemon = Daemon::start(&order)?;
    let mut reader = Wire::tls(&daemon)?;
    ensure!(reader.ask("GET", "/v1.0/users")?.status == 200, "it isn't read");
    let curl = ["curl", "-sZ", "--http1.1", "--parallel-immediate", "--parallel-max", "200", "-d", "{}"];
    // What follows `#` isn't sent.
    let urls = ["-o", "/dev/null", "-w", "%{http_code}\n", "https://graph.microsoft.com/echo#[1-200]"];
    let mut held = daemon.run(&[&curl[..], &urls[..]].concat());
    let held = held.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(22);
    let id = loop {
        if let [id] = open_now(&daemon)?.as_slice()
            && shown(&daemon, ADA, id)?["waiting"] == 200
        {
            break id.clone();
        }
        ensure!(Instant::now() < deadline, "two hundred don't wait for one answer");
        std::thread::sleep(Duration::from_millis(20));
    };
    let before = cpu(&daemon)?;
    says(&daemon, ADA, &["approvals", "approve", &id])?;
    let anew = open(&daemon, 1)?.remove(0);
    ensure!(anew != id, "what was answered is open still");
    let start = Instant::now();
    ensure!(reader.ask("GET", "/v1.0/users")?.status == 200, "nothing else goes on");
    ensure!(start.elapsed() < Duration::from_secs(5), "something else waits for {:?}", start.elapsed());
    let output = held.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = |code: &str| said.lines().filter(|line| *line == code).count();
    ensure!(count("200") == 1 && count("403") == 199, "{} and {}: {said}", count("200"), count("403"));
    ensure!(graph.received().len() == 3, "{} requests arrived", graph.received().len());
    let took = cpu(&daemon)?.saturating_sub(before);
    ensure!(took < Duration::from_secs(3), "the daemon was busy for {took:?} while they waited");
    drop(reader);
    daemon.finish()
}

/// The ids of the questions that are open at the moment.
fn open_now(daemon: &Daemon) -> Result<Vec<String>> {
    let open = daemon.json(&["approvals", "list"])?;
    let open = open.as_array().context("a list")?;
    open.iter().map(|one| Ok(one["approval"].as_str().context("an id")?.to_owned())).collect()
}

/// How long the daemon has been on a processor: its user and system time, proc_pid_stat(5), in ticks of 10 ms.
fn cpu(daemon: &Daemon) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid()?))?;
    // The name may have blanks in it.
    let rest = stat.rsplit_once(") ").context("a name")?.1;
    let ticks: Vec<u64> = rest.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}

#[test]
fn a_wider_yes_lets_through_what_it_says_and_no_more() -> Result<()> {
    require_root!(Ok(()));
    let policy = HELD.replace(
        "@approval(\"crm-approvers\")",
        "@approval(\"crm-approvers\")\n@grant_scope(\"shape\")\n@grant_uses(\"2\")\n@grant_for(\"1h\")",
    );
    let (graph, daemon) = begin(&policy, "300ms")?;
    let mut wire = Wire::tls(&daemon)?;
    let pending = wire.ask("DELETE", "/v1.0/users/00000001-1111-4222-8333-444455556666?a=1")?;
    ensure!(pending.code() == "approval-pending", "{pending:?}");
    let id = open(&daemon, 1)?.remove(0);
    let text = says(&daemon, ADA, &["approvals", "show", &id])?;
    ensure!(text.contains("every `DELETE /v1.0/users/{id}?a` on `graph`, with any ids"), "{text}");
    says(&daemon, ADA, &["approvals", "approve", &id, "--scope", "shape"])?;
    for (path, status) in [
        ("/v1.0/users/00000002-1111-4222-8333-444455556666?a=2", 204),
        ("/v1.0/groups/00000002-1111-4222-8333-444455556666?a=2", 403),
        ("/v1.0/users/00000003-1111-4222-8333-444455556666?b=2", 403),
        ("/v1.0/users/00000003-1111-4222-8333-444455556666?a=3", 204),
        ("/v1.0/users/00000001-1111-4222-8333-444455556666?a=1", 403),
    ] {
        let answer = wire.ask("DELETE", path)?;
        ensure!(answer.status == status, "{path}: {answer:?}");
    }
    ensure!(graph.received().len() == 2, "{:?}", graph.received());
    drop(wire);
    daemon.finish()
}

/// What people let one person do isn't let another do, by the same workload; nor does his request join the first one's.
#[test]
fn a_yes_is_for_who_launched_what_asked_and_for_nobody_else() -> Result<()> {
    require_root!(Ok(()));
    let policy = HELD.replace(
        "@approval(\"crm-approvers\")",
        "@approval(\"crm-approvers\")\n@grant_scope(\"shape\")\n@grant_uses(\"9\")\n@grant_for(\"1h\")",
    );
    let graph = Graph::start(&[])?;
    // Whoever launches it, it runs as the same user.
    let daemon = Daemon::start(&Order { workload: "user = \"nobody\"".into(), ..order(&graph, &policy, "300ms") })?;
    let delete = |user: u32| format!("/v1.0/users/0000000{user}-1111-4222-8333-444455556666");
    let (mut own, mut other) = (Wire::tls_by(&daemon, UID, None)?, Wire::tls_by(&daemon, 0, None)?);
    ensure!(own.ask("DELETE", &delete(1))?.code() == "approval-pending", "nobody has said yes");
    let id = open(&daemon, 1)?.remove(0);
    ensure!(other.ask("DELETE", &delete(1))?.code() == "approval-pending", "nobody has said yes");
    ensure!(open(&daemon, 2)?.contains(&id), "two people's request is one question");
    let text = says(&daemon, ADA, &["approvals", "show", &id])?;
    ensure!(text.contains(&format!("workload crm, launched by uid {UID}, without a token; for nobody else")), "{text}");

    says(&daemon, ADA, &["approvals", "approve", &id, "--scope", "shape"])?;
    ensure!(own.ask("DELETE", &delete(1))?.status == 204, "the grant isn't used");
    ensure!(own.ask("DELETE", &delete(2))?.status == 204, "the grant isn't as wide as it was said");
    ensure!(other.ask("DELETE", &delete(3))?.code() == "approval-pending", "a yes to one was a yes to another");
    let granted = daemon.ask(&["grants", "list"])?;
    ensure!(granted.contains(&format!("launched by uid {UID}")), "{granted}");
    // An operator's grant can be one person's too.
    grant(&daemon, &["--action", "http:write", "--for", "5m", "--initiator", "0"])?;
    ensure!(other.ask("DELETE", &delete(3))?.status == 204, "the grant isn't root's");
    ensure!(own.ask("PATCH", &delete(4))?.code() == "approval-pending", "root's grant is everybody's");
    ensure!(graph.received().len() == 3, "{:?}", graph.received());
    drop((own, other));
    daemon.finish()
}

#[test]
fn grants_and_their_uses_outlive_a_killed_daemon_and_questions_dont() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let mut daemon = Daemon::start(&order(&graph, HELD, "300ms"))?;
    grant(&daemon, &["--action", "http:write", "--for", "5m", "--uses", "2"])?;
    let delete = "/v1.0/users/00000001-1111-4222-8333-444455556666";
    ensure!(Wire::tls(&daemon)?.ask("DELETE", delete)?.status == 204, "the grant isn't used");
    daemon.kill9()?;
    daemon.restart()?;
    let mut wire = Wire::tls(&daemon)?;
    ensure!(wire.ask("DELETE", delete)?.status == 404, "the grant is gone");
    ensure!(wire.ask("DELETE", delete)?.code() == "approval-pending", "it was used three times");
    let id = open(&daemon, 1)?.remove(0);
    daemon.kill9()?;
    daemon.restart()?;
    ensure!(open(&daemon, 0)?.is_empty(), "a question outlived its daemon");
    let closed = daemon.ask(&["approvals", "show", &id])?;
    ensure!(closed.contains("daemon-restarted"), "{closed}");
    let late = refuses(&daemon, ADA, &["approvals", "approve", &id])?;
    ensure!(late.contains("approval-closed"), "{late}");
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    drop(wire);
    daemon.finish()
}

#[test]
fn an_operator_ends_a_session() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = begin(HELD, "1s")?;
    let mut wire = Wire::tls(&daemon)?;
    wire.send("GET /stream HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")?;
    wire.until("tick")?;
    let sessions = daemon.json(&["sessions", "list"])?;
    let id = sessions[0]["session"].as_str().context("a session")?.to_owned();
    ensure!(daemon.ask(&["sessions", "kill", &id])?.contains("cut"), "it isn't cut");
    let since = Instant::now();
    let (_, _, at) = wire.rest_and_when()?;
    let lasted = at.saturating_duration_since(since);
    ensure!(lasted < Duration::from_secs(1), "it went on for {lasted:?}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while daemon.json(&["sessions", "list"])?[0]["reason"] != "killed" {
        ensure!(Instant::now() < deadline, "{}", daemon.json(&["sessions", "list"])?);
    }
    daemon.finish()
}
