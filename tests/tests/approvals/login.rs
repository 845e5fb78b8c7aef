//! People who sign in: to answer at all, for a time, and for one answer, which the ID token then signs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use interceptor::record::event::{Way, What};
use interceptor_tests::daemon::{Daemon, Order};
use interceptor_tests::entra::directory::{ADELE, ALEX, CONTOSO, CRM_READERS, TOOL, User};
use interceptor_tests::entra::{DeviceAnswer, Entra};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};
use rusqlite::Connection;
use serde_json::Value;

use super::fixture::{ADA, BOB, EVE, HELD, open, refuses, says, shown};

const POST: &str = "POST /echo HTTP/1.1\r\nHost: graph.microsoft.com\r\nContent-Length: 2\r\n\r\n{}";

/// An Entra, a Graph, and a daemon. Ada is Adele; Bob is somebody by his uid; of Eve nothing is known. Who signs in and
/// is in `CRM_READERS` is asked, and so are Bob and Alex.
struct Scene {
    entra: Entra,
    graph: Graph,
    daemon: Daemon,
}

fn begin(login: &str) -> Result<Scene> {
    let (entra, graph) = (Entra::start(&[])?, Graph::start(&[])?);
    let (tenant, client) = (CONTOSO.id, TOOL.id);
    let more = format!(
        "[[tenant]]\nid = \"{tenant}\"\n[limits]\nhold = \"20s\"\n\
         [people]\n{ADA} = \"{tenant}/{}\"\n{BOB} = \"{tenant}/00000000-0000-4000-8000-000000061302\"\n\
         [login]\ntenant = \"{tenant}\"\nclient = \"{client}\"\n{login}\n\
         [approvers]\ncrm-approvers = [\"{BOB}\", \"group:{tenant}/{CRM_READERS}\", \"identity:{tenant}/{}\"]\n",
        ADELE.id, ALEX.id
    );
    let mut order = Order { purpose: "login", bring: vec!["wire"], more, ..Order::for_graph(&graph, HELD) };
    order.resolve.push(("login.microsoftonline.com".into(), entra.places().login));
    order.extra_ca += &entra.ca_pem();
    let daemon = Daemon::start(&order)?;
    Ok(Scene { entra, graph, daemon })
}

/// An `interceptor …` that waits for a browser.
struct Waiting {
    child: Child,
    url: String,
}

impl Scene {
    fn ask(&self) -> Result<(Wire, String)> {
        let mut wire = Wire::tls(&self.daemon)?;
        wire.send(POST)?;
        Ok((wire, open(&self.daemon, 1)?.remove(0)))
    }

    /// Starts a command that shows an address, as a local user with an empty home.
    fn start(&self, uid: u32, arguments: &[&str]) -> Result<Waiting> {
        let mut command = self.daemon.interceptor(arguments);
        command.uid(uid).gid(uid).env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").env("HOME", self.home(uid)?);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stderr.as_mut().context("stderr")?);
        let mut line = String::new();
        while !line.trim_start().starts_with("https://") {
            line.clear();
            ensure!(lines.read_line(&mut line)? > 0, "no address was shown");
        }
        Ok(Waiting { child, url: line.trim().to_owned() })
    }

    fn home(&self, uid: u32) -> Result<std::path::PathBuf> {
        let home = self.daemon.room().join(format!("home-{uid}"));
        if !home.exists() {
            std::fs::create_dir(&home)?;
            std::os::unix::fs::chown(&home, Some(uid), Some(uid))?;
        }
        Ok(home)
    }

    /// Signs in as `user` in a browser, for what a local user does.
    fn sign_in(&self, uid: u32, user: &'static User, arguments: &[&str]) -> Result<Output> {
        let waiting = self.start(uid, arguments)?;
        let back = self.entra.browse(&waiting.url, user)?;
        waiting.finish(&back)
    }

    /// The kinds of what was recorded of sign-ins, with what matters of each.
    fn logins(&self) -> Result<Vec<String>> {
        self.daemon.json(&["sessions", "list"])?;
        let told = |what: What| match what {
            What::LoginSucceeded { uid, way, approval, until, uti, .. } => {
                let what = if approval.is_some() { "answer" } else { "time" };
                let sound = approval.is_some() != until.is_some() && uti.is_some();
                Some(format!("{uid} in by {way:?} for {what}{}", if sound { "" } else { ", oddly" }))
            }
            What::LoginRefused { uid, code, .. } => Some(format!("{uid} refused {code}")),
            What::LoginEnded { uid, reason, .. } => Some(format!("{uid} out {reason}")),
            _ => None,
        };
        let events = recorded::events(&self.daemon.database(), 0)?;
        Ok(events.into_iter().filter_map(|(_, event)| told(event.what)).collect())
    }

    /// Nothing of what must stay secret is anywhere that a user, a log or (but for the evidence) the record shows.
    fn keeps_secrets(&self) -> Result<()> {
        for uid in [ADA, BOB, EVE] {
            let home = self.home(uid)?;
            ensure!(std::fs::read_dir(&home)?.next().is_none(), "something was written in a home: {home:?}");
        }
        let mut secrets: Vec<String> = self.entra.issued().into_iter().map(|one| one.token).collect();
        for request in self.entra.received() {
            let fields = ["code", "code_verifier", "device_code"].iter().filter_map(|name| request.field(name));
            secrets.extend(fields.map(str::to_owned));
        }
        ensure!(secrets.len() > 1, "nothing was exchanged");
        self.daemon.json(&["sessions", "list"])?;
        let events = recorded::events(&self.daemon.database(), 0)?;
        let kept = serde_json::to_string(&events.iter().map(|(_, event)| event).collect::<Vec<_>>())?;
        for secret in secrets {
            ensure!(!self.daemon.log().contains(&secret), "a secret is in the log");
            ensure!(!kept.contains(&secret), "a secret is in the record");
        }
        Ok(())
    }
}

/// What a command said.
#[derive(Debug)]
struct Output {
    done: bool,
    out: String,
    error: String,
}

impl Waiting {
    /// Has the browser go to the address that it was sent to, and gives what the command says then.
    fn finish(mut self, back: &str) -> Result<Output> {
        let (place, query) = back.split_once('?').context("a query")?;
        let port: u16 = place.strip_prefix("http://localhost:").context("localhost")?.parse()?;
        let mut browser = TcpStream::connect(("127.0.0.1", port))?;
        browser.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(browser, "GET /?{query} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n")?;
        let mut page = String::new();
        browser.read_to_string(&mut page)?;
        ensure!(page.starts_with("HTTP/1.1 200 "), "{page}");
        self.output()
    }

    fn output(&mut self) -> Result<Output> {
        let (mut out, mut error) = (String::new(), String::new());
        self.child.stdout.take().context("stdout")?.read_to_string(&mut out)?;
        self.child.stderr.take().context("stderr")?.read_to_string(&mut error)?;
        Ok(Output { done: self.child.wait()?.success(), out, error })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // One that has ended can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `approvals verify` finds in a copy of the record, without the daemon.
fn verified(daemon: &Daemon, database: &Path, id: &str) -> Result<(bool, Value)> {
    let database = database.to_str().context("a path in UTF-8")?;
    let output = daemon.interceptor(&["approvals", "verify", id, "--db", database, "--json"]).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout).with_context(|| error.into_owned())?;
    Ok((output.status.success(), found))
}

#[test]
fn a_person_signs_an_answer_and_the_evidence_verifies_without_the_daemon() -> Result<()> {
    require_root!(Ok(()));
    let scene = begin("required = \"bound\"")?;
    let (mut wire, id) = scene.ask()?;
    // Nobody knows that Ada is in the group before she signs in; then she sees the question.
    let refused = refuses(&scene.daemon, ADA, &["approvals", "show", &id])?;
    ensure!(refused.contains("not-an-approver"), "{refused}");
    let signed = scene.sign_in(ADA, ADELE, &["login"])?;
    ensure!(signed.done && signed.out.contains("you answer for crm-approvers"), "{signed:?}");
    ensure!(shown(&scene.daemon, ADA, &id)?["summary"] == "POST /echo", "she doesn't see it");
    // To be signed in isn't enough here, for neither of them.
    for uid in [ADA, BOB] {
        let refused = refuses(&scene.daemon, uid, &["approvals", "approve", &id])?;
        ensure!(refused.contains("login-required") && refused.contains("--login"), "{refused}");
    }
    ensure!(scene.graph.received().is_empty(), "it went on");
    let signed = scene.sign_in(ADA, ADELE, &["approvals", "approve", &id, "--login", "--note", "fine"])?;
    ensure!(signed.done && signed.out.contains("approved"), "{signed:?}");
    ensure!(wire.answer()?.status == 200 && scene.graph.received().len() == 1, "it wasn't let through");

    let shown = says(&scene.daemon, ADA, &["approvals", "show", &id])?;
    ensure!(shown.contains("signed: fine"), "{shown}");
    ensure!(!shown.contains("eyJ"), "the token is shown:\n{shown}");
    let told = scene.daemon.ask(&["approvals", "verify", &id])?;
    ensure!(told.contains("signed: the ID token was issued for this very answer"), "{told}");
    // The chain and all that is derived from it hold.
    ensure!(scene.daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    let expected = [format!("{ADA} in by Browser for time"), format!("{ADA} in by Browser for answer")];
    ensure!(scene.logins()? == expected, "{:?}", scene.logins()?);
    scene.keeps_secrets()?;

    // The tenant has other keys by now, and nobody can be asked.
    let copy = scene.daemon.room().join("copy.db");
    Connection::open(scene.daemon.database())?.execute("VACUUM INTO ?1", [copy.to_str().context("UTF-8")?])?;
    let Scene { entra, graph, daemon } = scene;
    drop((entra, graph, wire));
    let (holds, found) = verified(&daemon, &copy, &id)?;
    ensure!(holds && found[0]["verdict"] == "signed", "{found}");
    ensure!(found[0]["person"] == format!("{}/{}", CONTOSO.id, ADELE.id), "{found}");
    ensure!(found[0]["audience"] == TOOL.id, "{found}");
    // Each change of what was said shows, whatever else is made to fit it.
    for (from, to) in [
        ("\"yes\":true", "\"yes\":false"),
        ("\"width\":\"operation\"", "\"width\":\"target\""),
        ("\"note\":\"fine\"", "\"note\":\"else\""),
        (ADELE.id, ALEX.id),
    ] {
        forge(&copy, "approval.answered", from, to)?;
        let (holds, found) = verified(&daemon, &copy, &id)?;
        ensure!(!holds && found[0]["verdict"] == "broken", "{from} -> {to}: {found}");
        forge(&copy, "approval.answered", to, from)?;
    }
    forge(&copy, "approval.requested", "POST /echo", "GET /other")?;
    ensure!(verified(&daemon, &copy, &id)?.1[0]["verdict"] == "broken", "another question passes");
    daemon.finish()
}

/// Changes an event as root could.
fn forge(database: &Path, kind: &str, from: &str, to: &str) -> Result<()> {
    let db = Connection::open(database)?;
    let triggers: Vec<String> = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for trigger in triggers {
        db.execute_batch(&format!("DROP TRIGGER \"{trigger}\""))?;
    }
    let sql = "UPDATE events SET body = replace(body, ?2, ?3) WHERE kind = ?1 AND instr(body, ?2) > 0";
    ensure!(db.execute(sql, [kind, from, to])? == 1, "`{from}` isn't in one event `{kind}`");
    Ok(())
}

#[test]
fn a_sign_in_is_for_its_uid_and_for_what_was_asked() -> Result<()> {
    require_root!(Ok(()));
    let scene = begin("")?;
    let (mut wire, id) = scene.ask()?;
    // An ID token that was issued for something else.
    scene.entra.set_nonce(Some("another"));
    let login = ["login"];
    let refused = scene.sign_in(EVE, ADELE, &login)?;
    ensure!(!refused.done && refused.error.contains("token-nonce"), "{refused:?}");
    let approve = ["approvals", "approve", &id, "--login"];
    let refused = scene.sign_in(BOB, ADELE, &approve)?;
    ensure!(!refused.done && refused.error.contains("token-nonce"), "{refused:?}");
    scene.entra.set_nonce(None);
    // Bob is somebody else than he who signs in.
    let refused = scene.sign_in(BOB, ADELE, &approve)?;
    ensure!(!refused.done && refused.error.contains("login-other-person"), "{refused:?}");
    // Somebody says no, or comes with what isn't of this sign-in.
    let waiting = scene.start(EVE, &login)?;
    let back = scene.entra.browse(&waiting.url, ADELE)?;
    let (place, query) = back.split_once('?').context("a query")?;
    let state = query.split('&').find(|part| part.starts_with("state=")).context("a state")?;
    let refused = waiting.finish(&format!("{place}?error=access_denied&{state}"))?;
    ensure!(!refused.done && refused.error.contains("login-denied"), "{refused:?}");
    // The code of one sign-in is nothing to another: it was sent elsewhere, and its verifier is another.
    let (first, second) = (scene.start(EVE, &login)?, scene.start(EVE, &login)?);
    let stolen = scene.entra.browse(&first.url, ADELE)?;
    let code = stolen.split(['?', '&']).find(|part| part.starts_with("code=")).context("a code")?;
    let own = scene.entra.browse(&second.url, ADELE)?;
    let (place, query) = own.split_once('?').context("a query")?;
    let state = query.split('&').find(|part| part.starts_with("state=")).context("a state")?;
    let refused = second.finish(&format!("{place}?{code}&{state}"))?;
    ensure!(!refused.done && refused.error.contains("login-denied"), "{refused:?}");
    drop(first);

    // Eve signs in as Adele; that is hers, and nobody else's.
    let signed = scene.sign_in(EVE, ADELE, &login)?;
    ensure!(signed.done && signed.out.contains("crm-approvers"), "{signed:?}");
    let other = refuses(&scene.daemon, 61_399, &["approvals", "approve", &id])?;
    ensure!(other.contains("not-an-approver"), "{other}");
    says(&scene.daemon, EVE, &["logout"])?;
    let gone = refuses(&scene.daemon, EVE, &["approvals", "approve", &id])?;
    ensure!(gone.contains("not-an-approver"), "{gone}");
    ensure!(says(&scene.daemon, EVE, &["logout"])?.contains("weren't signed in"), "twice");
    ensure!(scene.graph.received().is_empty(), "it went on");

    // Alex is in more groups than a token lists, and asked by his own name.
    let signed = scene.sign_in(EVE, ALEX, &login)?;
    ensure!(signed.done && signed.out.contains("crm-approvers"), "{signed:?}");
    let said = says(&scene.daemon, EVE, &["approvals", "approve", &id])?;
    ensure!(said.contains("approved"), "{said}");
    ensure!(wire.answer()?.status == 200, "it wasn't let through");
    // Signed in, and not signed: the check says so, and fails.
    let output = scene.daemon.interceptor(&["approvals", "verify", &id]).output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!output.status.success() && told.contains("not signed"), "{told}");
    let expected = [
        format!("{EVE} refused token-nonce"),
        format!("{BOB} refused token-nonce"),
        format!("{BOB} refused login-other-person"),
        format!("{EVE} refused login-denied: access_denied"),
        format!("{EVE} refused login-denied: invalid_client"),
        format!("{EVE} in by Browser for time"),
        format!("{EVE} out logout"),
        format!("{EVE} in by Browser for time"),
    ];
    ensure!(scene.logins()? == expected, "{:#?}", scene.logins()?);
    scene.keeps_secrets()?;
    drop(wire);
    scene.daemon.finish()
}

#[test]
fn nobody_takes_over_the_sign_in_of_another_uid_or_answers_as_himself_twice() -> Result<()> {
    require_root!(Ok(()));
    use interceptor::control::client;
    use interceptor::control::protocol::Request;
    let scene = begin("")?;
    let waiting = scene.start(EVE, &["login"])?;
    // Root asks for what Eve began: it is called by a name that nobody can guess, and is hers.
    let asked = Request::LoginEnd { login: "x".into(), query: Some("code=c&state=s".into()) };
    let refused = client::call(&scene.daemon.socket(), &asked).err().context("root went on with it")?;
    ensure!(refused.to_string().contains("login-unknown"), "{refused}");
    let back = scene.entra.browse(&waiting.url, ADELE)?;
    ensure!(waiting.finish(&back)?.done, "it was disturbed");
    // Two uids, one person: one answer.
    let (wire, id) = scene.ask()?;
    scene
        .daemon
        .reload(&HELD.replace("@approval(\"crm-approvers\")", "@approval(\"crm-approvers\")\n@approvals(\"2\")"))?;
    drop(wire);
    let (wire, second) = {
        let mut wire = Wire::tls(&scene.daemon)?;
        wire.send(POST)?;
        let all = open(&scene.daemon, 2)?;
        (wire, all.into_iter().find(|one| *one != id).context("a second question")?)
    };
    let said = says(&scene.daemon, EVE, &["approvals", "approve", &second])?;
    ensure!(said.contains("noted"), "{said}");
    ensure!(scene.sign_in(ADA, ADELE, &["login"])?.done, "Ada can't sign in");
    let twice = refuses(&scene.daemon, ADA, &["approvals", "approve", &second])?;
    ensure!(twice.contains("answered-already"), "{twice}");
    drop(wire);
    scene.daemon.finish()
}

/// Whom his groups in Entra put there was one of them when he said yes; a local group beside them changes nothing of that.
#[test]
fn a_yes_by_the_groups_of_a_sign_in_counts_when_that_is_over() -> Result<()> {
    require_root!(Ok(()));
    let scene = begin("")?;
    let config = std::fs::read_to_string(scene.daemon.config())?;
    std::fs::write(scene.daemon.config(), config.replace("crm-approvers = [", "crm-approvers = [\"group:61399\", "))?;
    let two = HELD.replace("@approval(\"crm-approvers\")", "@approval(\"crm-approvers\")\n@approvals(\"2\")");
    let reloaded = scene.daemon.reload(&two)?;
    ensure!(reloaded.status.success(), "{reloaded:?}");
    let (mut wire, id) = scene.ask()?;
    ensure!(scene.sign_in(EVE, ADELE, &["login"])?.done, "Eve can't sign in");
    let approve = ["approvals", "approve", &id];
    ensure!(says(&scene.daemon, EVE, &approve)?.contains("noted"), "one was enough");
    says(&scene.daemon, EVE, &["logout"])?;
    ensure!(says(&scene.daemon, BOB, &approve)?.contains("approved"), "Eve's yes doesn't count any more");
    ensure!(wire.answer()?.status == 200, "it wasn't let through");
    drop(wire);
    scene.daemon.finish()
}

#[test]
fn a_device_code_says_who_it_is_and_signs_nothing() -> Result<()> {
    require_root!(Ok(()));
    let scene = begin("required = \"login\"")?;
    let (mut wire, id) = scene.ask()?;
    // Whoever begins it could have another enter the code: it is only for whom `[people]` names.
    let unmapped = refuses(&scene.daemon, EVE, &["login", "--device"])?;
    ensure!(unmapped.contains("login-device-unmapped"), "{unmapped}");
    scene.entra.set_device_answer(DeviceAnswer::Granted { by: ALEX, after: 0 });
    let other = refuses(&scene.daemon, ADA, &["login", "--device"])?;
    ensure!(other.contains("login-other-person"), "{other}");
    scene.entra.set_device_answer(DeviceAnswer::Declined);
    let declined = refuses(&scene.daemon, ADA, &["login", "--device"])?;
    ensure!(declined.contains("login-denied"), "{declined}");
    let unsigned = refuses(&scene.daemon, BOB, &["approvals", "approve", &id])?;
    ensure!(unsigned.contains("login-required"), "{unsigned}");

    scene.entra.set_device_answer(DeviceAnswer::Granted { by: ADELE, after: 1 });
    let signed = says(&scene.daemon, ADA, &["login", "--device"])?;
    ensure!(signed.contains("crm-approvers"), "{signed}");
    let said = says(&scene.daemon, ADA, &["approvals", "approve", &id])?;
    ensure!(said.contains("approved"), "{said}");
    ensure!(wire.answer()?.status == 200, "it wasn't let through");
    scene.daemon.json(&["sessions", "list"])?;
    let events = recorded::events(&scene.daemon.database(), 0)?;
    let evidence = events.into_iter().find_map(|(_, event)| match event.what {
        What::ApprovalAnswered(answer) => answer.evidence,
        _ => None,
    });
    let evidence = evidence.context("no evidence")?;
    ensure!(!evidence.bound && evidence.salt.is_none() && evidence.way == Way::Device, "{evidence:?}");
    ensure!(scene.logins()?.contains(&format!("{ADA} in by Device for time")), "{:?}", scene.logins()?);
    scene.keeps_secrets()?;
    drop(wire);
    let Scene { daemon, .. } = scene;
    let denied = daemon.json(&["approvals", "verify", &id]);
    if denied.is_ok() {
        bail!("a sign-in passes for a signature");
    }
    daemon.finish()
}

/// One sign-in is the evidence of the answers to a row of questions, to each of them and to no other row.
#[test]
fn one_sign_in_signs_the_answers_to_all_of_a_row() -> Result<()> {
    require_root!(Ok(()));
    let scene = begin("required = \"bound\"")?;
    let mut wires = Vec::new();
    for number in 1..=2 {
        let mut wire = Wire::tls(&scene.daemon)?;
        let path = format!("/v1.0/users/0000000{number}-1111-4222-8333-444455556666");
        wire.send(format!("DELETE {path} HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n"))?;
        wires.push(wire);
        open(&scene.daemon, number)?;
    }
    let ids = open(&scene.daemon, 2)?;
    ensure!(scene.sign_in(ADA, ADELE, &["login"])?.done, "Ada can't sign in");
    let unsigned = says(&scene.daemon, ADA, &["approvals", "approve", &ids[0], "--batch", "--yes"])?;
    ensure!(unsigned.matches("login-required").count() == 2, "{unsigned}");
    ensure!(scene.graph.received().is_empty(), "it went on");
    let batch = ["approvals", "approve", &ids[0], "--batch", "--yes", "--login", "--note", "both"];
    let signed = scene.sign_in(ADA, ADELE, &batch)?;
    ensure!(signed.done && signed.out.matches(": approved").count() == 2, "{signed:?}");
    for wire in &mut wires {
        ensure!(matches!(wire.answer()?.status, 204 | 404), "one of them didn't go on");
    }
    for id in &ids {
        let told = scene.daemon.ask(&["approvals", "verify", id])?;
        ensure!(told.contains("signed: the ID token was issued for this very answer"), "{told}");
    }
    // For a time, then one for both.
    let expected = [format!("{ADA} in by Browser for time"), format!("{ADA} in by Browser for answer")];
    ensure!(scene.logins()? == expected, "{:?}", scene.logins()?);

    // What was asked of one of them shows in that one only; another list in each that has it.
    let copy = scene.daemon.room().join("copy.db");
    Connection::open(scene.daemon.database())?.execute("VACUUM INTO ?1", [copy.to_str().context("UTF-8")?])?;
    forge(&copy, "approval.requested", "DELETE /v1.0/users/00000002", "DELETE /v1.0/users/00000009")?;
    let (first, second) = (verified(&scene.daemon, &copy, &ids[0])?, verified(&scene.daemon, &copy, &ids[1])?);
    ensure!(first.0 && !second.0 && second.1[0]["verdict"] == "broken", "{first:?} {second:?}");
    scene.keeps_secrets()?;
    drop(wires);
    scene.daemon.finish()
}
