//! Every command is an event: what of each request to the daemon is in the record afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use interceptor::control::client;
use interceptor::control::protocol::{Begin, BreakGlassStart, HostCommand, Issue, Request, Run};
use interceptor::record::event::{Event, What};
use interceptor::record::search::Search;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};
use serde_json::{Value, json};

use super::fixture::{BOB, HELD, open, order, post};

const MEND: &str = r#"@id("mend") permit (principal, action in Action::"http", resource == Target::"graph");"#;

/// Whether a request gives an event where root asks it. A new one is to be put here, and among those that are asked.
fn is_an_event(request: &Request) -> bool {
    match request {
        Request::PolicyReload
        | Request::PolicyExplain { .. }
        | Request::PayloadRead { .. }
        | Request::SessionsPrune { .. }
        | Request::SessionsErase { .. }
        | Request::SessionsHold { .. }
        | Request::SessionsKill { .. }
        | Request::RecordRotate
        | Request::ApprovalsShow { .. }
        | Request::ApprovalsAnswer { .. }
        | Request::ApprovalsEvidence { .. }
        | Request::GrantsIssue(_)
        | Request::GrantsRevoke { .. }
        | Request::BreakGlassStart(_)
        | Request::BreakGlassStop { .. }
        | Request::BreakGlassClose { .. }
        | Request::NotifyTest { .. }
        | Request::HostCommand { .. }
        | Request::Run(_) => true,
        // States and lists, in which is nothing that was sent.
        Request::Status
        | Request::Workloads
        | Request::Ledger
        | Request::PolicyShow
        | Request::SessionsList { .. }
        | Request::SessionsShow { .. }
        | Request::SessionsOperations { .. }
        | Request::SessionsSearch { .. }
        | Request::SessionsVerify
        | Request::OperationLink { .. }
        | Request::ApprovalsList { .. }
        | Request::GrantsList { .. }
        | Request::BreakGlassList { .. } => false,
        // Where people can sign in, `login.rs` tells of it. Here nobody can, and nobody is signed in.
        Request::LoginBegin(_) | Request::LoginEnd { .. } | Request::Logout => false,
    }
}

/// The names of all requests, as the daemon tells somebody whose request is none.
fn names() -> Result<BTreeSet<String>> {
    let told = serde_json::from_value::<Request>(json!({ "request": "nothing" })).err().context("it is one")?;
    let told = told.to_string();
    let (_, list) = told.split_once("expected one of").with_context(|| told.clone())?;
    Ok(list.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// An event in words, if it is one of those that commands give.
fn in_words(event: &Event) -> Option<String> {
    match &event.what {
        // What stands in the way of a launch is told at length.
        What::ControlRequest { request, refused: Some(_), .. } if request == "run" => Some("run: refused".to_owned()),
        What::ControlRequest { request, refused, .. } => {
            Some(format!("{request}: {}", refused.as_deref().unwrap_or("done")))
        }
        _ => {
            let kind = serde_json::to_value(event).ok()?["event"].as_str()?.to_owned();
            let others = ["session.opened", "session.closed", "operation.", "workload.", "ledger", "adoption"];
            (!others.iter().any(|other| kind.starts_with(other))).then_some(kind)
        }
    }
}

/// What was asked, and which events came of it.
#[derive(Default)]
struct Asked {
    names: BTreeSet<String>,
    expected: Vec<String>,
}

impl Asked {
    /// Asks it as root, who is an operator and an auditor, and gives the answer; null if it was refused.
    fn ask(&mut self, daemon: &Daemon, request: &Request, expected: &[&str]) -> Result<Value> {
        ensure!(is_an_event(request) != expected.is_empty(), "{request:?} gives {expected:?}");
        self.names.insert(request.name().to_owned());
        self.expected.extend(expected.iter().map(|event| (*event).to_owned()));
        let input = std::io::stdin();
        let input = std::os::fd::AsFd::as_fd(&input);
        let descriptors = if matches!(request, Request::Run(_)) { vec![input; 3] } else { Vec::new() };
        Ok(client::call_with(&daemon.socket(), request, &descriptors).map_or(Value::Null, |(value, _)| value))
    }
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("no text: {value}"))?.to_owned())
}

/// A request of Bob's, who is nothing to the daemon, past the command line.
fn asks_as_bob(daemon: &Daemon, request: &Request) -> Result<String> {
    const SCRIPT: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
data = sys.argv[2].encode(); s.sendall(struct.pack(">I", len(data)) + data)
print(s.makefile("rb").read()[4:].decode())
"#;
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).arg(daemon.socket()).arg(serde_json::to_string(request)?);
    let output = python.uid(BOB).gid(BOB).current_dir("/").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn every_command_is_an_event_and_so_is_one_that_is_refused() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let mut order = order(&graph, HELD, "20s");
    order.more += "[control]\nauditors = [\"user:0\"]\n";
    let daemon = Daemon::start(&order)?;
    let mut reading = Wire::tls(&daemon)?;
    ensure!(reading.ask("GET", "/v1.0/users")?.status == 200, "it isn't read");
    let mut writing = Wire::tls(&daemon)?;
    writing.send(post("{}"))?;
    let approval = open(&daemon, 1)?.remove(0);
    let before = recorded::last(&daemon.database())?;
    let mut asked = Asked::default();
    let mut ask = |request: Request, expected: &[&str]| asked.ask(&daemon, &request, expected);

    let sessions = ask(Request::SessionsList { limit: 10 }, &[])?;
    let (live, session) = (text(&sessions[0]["session"])?, text(&sessions[1]["session"])?);
    let story = ask(Request::SessionsShow { id: session.clone() }, &[])?;
    let is_get = |one: &&Value| one["action"] == "http:GET";
    let operations = story["operations"].as_array().context("operations")?;
    let operation = text(&operations.iter().find(is_get).context("no GET")?["operation"])?;
    ask(Request::SessionsOperations { session: session.clone(), after: operation.clone() }, &[])?;
    ask(Request::OperationLink { operation: operation.clone() }, &[])?;
    let search = Box::new(Search { text: Some("users".into()), limit: 9, ..Search::default() });
    for request in [
        Request::Status,
        Request::Workloads,
        Request::Ledger,
        Request::PolicyShow,
        Request::SessionsVerify,
        Request::SessionsSearch { search },
        Request::ApprovalsList { all: false, limit: 9 },
        Request::ApprovalsList { all: true, limit: 9 },
        Request::GrantsList { all: true, limit: 9 },
        Request::BreakGlassList { all: true, limit: 9 },
        Request::LoginBegin(Box::new(Begin { port: None, answer: None })),
        Request::LoginEnd { login: "x".into(), query: None },
        Request::Logout,
    ] {
        ask(request, &[])?;
    }

    let explain = format!("policy-explain {operation}: done");
    ask(Request::PolicyExplain { operation: operation.clone() }, &[&explain])?;
    let unknown = ["policy-explain op_zzz: done", "policy-explain op_zzz: not-found"];
    ask(Request::PolicyExplain { operation: "op_zzz".into() }, &unknown)?;
    ask(Request::PayloadRead { operation: operation.clone() }, &["payload.read"])?;
    ask(Request::PayloadRead { operation: "op_!".into() }, &["payload-read op_!: malformed-id"])?;

    let evidence = format!("approvals-evidence {approval}: done");
    ask(Request::ApprovalsEvidence { id: approval.clone() }, &[&evidence])?;
    let shown = ask(Request::ApprovalsShow { id: approval.clone() }, &["approval.read"])?;
    ensure!(shown["exhibit"]["body"] == "{}", "{shown}");
    for (yes, verb) in [(true, "approve"), (false, "deny")] {
        // Root is none of those who are asked.
        let expected = format!("approvals-{verb} {approval}: not-an-approver");
        let answer = Request::ApprovalsAnswer { id: approval.clone(), yes, width: None, note: None };
        ask(answer, &[&expected])?;
    }

    ask(Request::SessionsKill { id: live.clone() }, &[&format!("sessions-kill {live}: done")])?;

    let issue = |target: &str| -> Result<Request> {
        Ok(Request::GrantsIssue(Issue {
            workload: "crm".parse()?,
            initiator: None,
            target: target.parse()?,
            action: None,
            path: None,
            seconds: 60,
            uses: None,
            bytes: None,
            rows: None,
        }))
    };
    ask(issue("nowhere")?, &["grants-issue crm nowhere: grant-malformed"])?;
    let grant = text(&ask(issue("graph")?, &["grant.issued"])?["id"])?;
    ask(Request::GrantsRevoke { id: grant.clone() }, &["grant.ended"])?;
    let again = format!("grants-revoke {grant}: not-live");
    ask(Request::GrantsRevoke { id: grant }, &[&again])?;

    let start = |seconds| -> Result<Request> {
        let reason = "the directory is down".to_owned();
        Ok(Request::BreakGlassStart(BreakGlassStart { workload: "crm".parse()?, seconds, reason }))
    };
    ask(start(60)?, &["break-glass-start crm: break-glass-empty"])?;
    let folder = daemon.room().join("etc/break-glass.d");
    fs::create_dir(&folder)?;
    fs::write(folder.join("mend.cedar"), MEND)?;
    ask(Request::PolicyReload, &["snapshot.loaded", "policy-reload: done"])?;
    ask(start(0)?, &["break-glass-start crm: break-glass-malformed"])?;
    let glass = text(&ask(start(60)?, &["break-glass.started"])?["id"])?;
    ask(Request::BreakGlassStop { id: "brk_zzz".into() }, &["break-glass-stop brk_zzz: not-found"])?;
    ask(Request::BreakGlassStop { id: glass.clone() }, &["break-glass.ended"])?;
    let own = format!("break-glass-close {glass}: own-operation");
    ask(Request::BreakGlassClose { id: glass, note: "fine".into() }, &[&own])?;

    let words = |verb: &str, more: &str| format!("sessions-{verb} {session}{more}: done");
    let hold = |held| Request::SessionsHold { id: session.clone(), held };
    ask(hold(true), &["session.held", &words("hold", "")])?;
    ask(hold(false), &["session.held", &words("hold", " --release")])?;
    ask(Request::SessionsErase { id: session.clone() }, &["session.erased", &words("erase", "")])?;
    ask(Request::SessionsErase { id: "ses_zzz".into() }, &["sessions-erase ses_zzz: not-found"])?;
    let pruned = ["record.pruned", "sessions-prune 2020-01-01T00:00:00Z: done"];
    ask(Request::SessionsPrune { before: "2020-01-01T00:00:00Z".parse()? }, &pruned)?;
    ask(Request::SessionsKill { id: "ses_zzz".into() }, &["sessions-kill ses_zzz: not-found"])?;
    ask(Request::NotifyTest { channel: "oncall".into() }, &["notify-test oncall: no-channel"])?;
    let adopt = Request::HostCommand { command: HostCommand::Adopt, unit: "crm.service".into() };
    ask(adopt, &["adopt crm.service: done"])?;
    let argv = vec![b"true".to_vec()];
    let run = Run { workload: Some("nowhere".parse()?), user: None, tty: None, argv, env: Vec::new() };
    ask(Request::Run(run), &["run: refused"])?;

    // Somebody who may do none of it. What he may not see isn't there.
    for (request, code) in [
        (Request::PayloadRead { operation: operation.clone() }, "not-found"),
        (Request::SessionsKill { id: live }, "not-an-operator"),
        (Request::PolicyExplain { operation }, "not-an-operator"),
    ] {
        let said = asks_as_bob(&daemon, &request)?;
        ensure!(said.contains(code), "{said}");
        asked.expected.push(format!("{}: {code}", request.in_words()));
    }

    let events = recorded::events(&daemon.database(), before)?;
    let told: Vec<String> = events.iter().filter_map(|(_, event)| in_words(event)).collect();
    ensure!(told == asked.expected, "{told:#?}\n\ninstead of\n\n{:#?}", asked.expected);

    // A new database has what comes after it.
    let mut last = Asked::default();
    last.ask(&daemon, &Request::RecordRotate, &["record-rotate: done"])?;
    let events = recorded::events(&daemon.database(), 0)?;
    let told: Vec<String> = events.iter().filter_map(|(_, event)| in_words(event)).collect();
    ensure!(told.first().is_some_and(|first| first == "record.begun"), "{told:?}");
    ensure!(told.last() == last.expected.last(), "{told:?}");

    asked.names.append(&mut last.names);
    ensure!(asked.names == names()?, "not all are asked: {:?} of {:?}", asked.names, names()?);
    drop((reading, writing));
    daemon.finish()
}
