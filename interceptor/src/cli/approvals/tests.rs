use std::collections::BTreeSet;

use jiff::ToSpan;

use super::*;
use crate::control::protocol::{Allowed, Exhibit};
use crate::ids::{ApprovalId, LaunchId, SessionId};
use crate::policy::{Shape, Terms};
use crate::record::approval::Answer;
use crate::record::event::ApprovalRequest;
use crate::who::Process;

pub(super) fn asked() -> ShownApproval {
    let at: Timestamp = "2026-11-25T09:00:00Z".parse().unwrap();
    let request = ApprovalRequest {
        approval: ApprovalId::new(),
        until: at + 1.hour(),
        session: SessionId::new(),
        launch: LaunchId::new(),
        workload: "crm".parse().unwrap(),
        process: Some(Process { pid: 7, tid: 7, comm: "crm\x1b[2J".into(), exe: None }),
        initiator: 1000,
        loginuid: None,
        callers: Vec::new(),
        identity: None,
        credential: Some(Credential::Injected),
        target: "graph".parse().unwrap(),
        action: "http:POST".into(),
        summary: "POST /notes/\u{202e}7".into(),
        digest: [7; 32].into(),
        shape: Shape { method: "POST".into(), path: "/notes/{id}".into(), keys: vec![], websocket: false },
        policies: vec!["writes".into()],
        reasons: vec!["writing is looked at first".into()],
        terms: Terms {
            groups: vec!["crm".into(), "security".into()],
            confirm: vec![],
            approvals: 2,
            within: 3600,
            grant_for: 300,
            grant_uses: 1,
            grant_scope: Width::Shape,
        },
        justification: Some("urgent\x07\nyes: y".into()),
        masked: false,
    };
    let answer = Answer {
        at,
        person: Some("t/o".into()),
        uid: 5,
        loginuid: None,
        yes: true,
        groups: vec!["crm".into()],
        by_sign_in: BTreeSet::new(),
        confirms: false,
        width: Some("operation".into()),
        note: Some("fine\r".into()),
        signed: None,
    };
    let lines = (0..LINES + 5).map(|line| format!("line {line}\n")).collect();
    ShownApproval {
        approval: Approval { request, asked_at: at, answers: vec![answer], closed_at: None, outcome: None },
        waiting: 3,
        exhibit: Some(Exhibit {
            start: "POST /notes/7 HTTP/1.1".into(),
            headers: vec![("x-note".into(), "\x1b]0;owned\x07".into())],
            body: lines,
            bytes: 999,
            partial: None,
        }),
        allows: vec![Allowed { width: Width::Operation, told: "this operation".into() }],
        names: BTreeMap::new(),
    }
}

#[test]
fn a_question_tells_who_what_and_why_and_what_a_yes_lets_through() {
    let text = shown(&asked());
    for part in [
        "open until 2026-11-25T10:00:00Z; 3 waiting",
        "workload crm, process crm",
        "launched by uid 1000",
        "nobody: the target's own credential is put in",
        "policy writes wants it approved: writing is looked at first",
        "2 of crm and 2 of security",
        "yes by uid 5 (t/o): fine",
        "--scope operation lets through this operation, once within 300 s",
        "for        workload crm, launched by uid 1000, without a token; for nobody else",
        "> POST /notes/7 HTTP/1.1",
        "line 59\n",
        "… 999 bytes in all",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    assert!(!text.contains("line 60\n"), "{text}");
}

#[test]
fn of_a_websocket_it_is_told_that_nobody_looks_at_what_is_said_over_it() {
    let mut one = asked();
    assert!(!shown(&one).contains("WebSocket"), "{}", shown(&one));
    one.approval.request.shape.websocket = true;
    let text = shown(&one);
    let line = "opens      a WebSocket: whatever is said over it afterwards, by either side, isn't looked at\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_a_process_wrote_moves_nothing_on_the_terminal_and_forges_no_line() {
    let text = shown(&asked());
    assert!(!text.contains(['\x1b', '\x07', '\r', '\u{202e}']), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("yes: y")), "{text}");
}

#[test]
fn an_answer_says_what_is_still_to_come() {
    let mut approval = asked().approval;
    assert!(answered(&approval).contains("noted; 2 of crm and 2 of security have to answer"));
    approval.outcome = Some("denied".into());
    assert!(answered(&approval).ends_with(": denied\n"));
    approval.outcome = Some("granted".into());
    approval.request.terms.grant_uses = 3;
    assert!(answered(&approval).ends_with(": approved; it can be used 3 times within 300 s\n"));
}

#[test]
fn who_is_known_is_named() {
    let names = BTreeMap::new();
    assert_eq!(identity(None, None, &names), "nobody");
    let foreign = identity(None, Some(Credential::Foreign), &names);
    assert!(foreign.starts_with("nobody that is known"), "{foreign}");
}

#[test]
fn whose_token_it_is_is_told_by_ids_and_by_what_they_are_called() {
    const PRINCIPAL: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47/11111111-0000-4000-8000-000000000001";
    const CLIENT: &str = "44444444-0000-4000-8000-000000000004";
    let mut one = asked();
    one.approval.request.identity = Some(Box::new(crate::record::event::Identity {
        principal: PRINCIPAL.parse().unwrap(),
        kind: crate::policy::PrincipalKind::User,
        client: Some(CLIENT.parse().unwrap()),
        authentic: crate::policy::Authentic::Signature,
        bound: crate::policy::Bound::IssuedHere,
        token: crate::identity::provenance::Digest::from([0; 32]),
        uti: None,
    }));
    one.approval.request.credential = Some(Credential::Entra);
    let line = |one: &ShownApproval| {
        let text = shown(one);
        text.lines().find(|line| line.starts_with("as ")).unwrap().split_once(' ').unwrap().1.trim().to_owned()
    };
    assert_eq!(line(&one), format!("user {PRINCIPAL}, by application {CLIENT}"));
    assert!(shown(&one).contains("as this identity by this application; for nobody else"));
    one.names = [(PRINCIPAL.into(), "ada\u{202e}".into()), (CLIENT.into(), "crm-app".into())].into();
    let told = line(&one);
    assert!(told.starts_with(&format!("user {PRINCIPAL} (ada")), "{told}");
    assert!(told.ends_with(&format!(", by application {CLIENT} (crm-app)")) && !told.contains('\u{202e}'), "{told}");
    if let Some(identity) = &mut one.approval.request.identity {
        identity.client = None;
    }
    assert!(line(&one).ends_with(')') && !line(&one).contains("by application"), "{}", line(&one));
    assert!(shown(&one).contains("as this identity; for nobody else"));
}
