use super::*;
use crate::ids::{Digest, LaunchId, SessionId};
use crate::policy::Behind;
use crate::policy::{Scope, Shape, Terms, Whose, Width};
use crate::who::Process;

fn at() -> Timestamp {
    "2026-11-25T09:00:00Z".parse().unwrap()
}

/// An approval whose every free text is `text`.
pub(in crate::notify) fn request(text: &str) -> ApprovalRequest {
    ApprovalRequest {
        approval: "apr_01kb0000000000000000000000".parse().unwrap(),
        until: "2026-11-25T10:00:00.123Z".parse().unwrap(),
        session: SessionId::new(),
        launch: LaunchId::new(),
        workload: "crm".parse().unwrap(),
        process: Some(Process { pid: 7, tid: 7, comm: text.into(), exe: None }),
        initiator: 1000,
        loginuid: None,
        callers: Vec::new(),
        identity: None,
        credential: None,
        target: "graph".parse().unwrap(),
        action: "http:POST".into(),
        summary: format!("POST /{text}"),
        digest: Digest::from([1; 32]),
        shape: Shape { method: "POST".into(), path: "/x".into(), keys: Vec::new(), websocket: false },
        policies: vec!["writes".into()],
        reasons: vec!["writing is looked at first".into()],
        terms: Terms {
            groups: vec!["crm-approvers".into()],
            confirm: Vec::new(),
            approvals: 1,
            within: 3600,
            grant_for: 300,
            grant_uses: 1,
            grant_scope: Width::Operation,
        },
        justification: Some(text.into()),
        masked: false,
    }
}

pub(in crate::notify) fn requested(text: &str) -> Notice {
    let mut memory = Memory::new("host.example".into());
    let what = What::ApprovalRequested(Box::new(request(text)));
    memory.notice(at(), &what, &Identities::default()).unwrap()
}

pub(in crate::notify) fn emergency() -> Notice {
    let (id, note) = (BreakGlassId::new(), "rightly".to_owned());
    let what = What::BreakGlassClosed { id, by: 8, note };
    Memory::new("host.example".into()).notice(at(), &what, &Identities::default()).unwrap()
}

fn grant(origin: Origin) -> Grant {
    Grant {
        id: "grt_01kb0000000000000000000000".parse().unwrap(),
        workload: "crm".parse().unwrap(),
        whose: Whose::Anyone,
        behind: Behind::Anybody,
        target: "graph".parse().unwrap(),
        scope: Scope::Target,
        origin,
        until: at(),
        uses: Some(2),
        bytes: None,
        rows: None,
    }
}

#[test]
fn a_question_is_told_with_who_what_why_and_how_to_answer() {
    let notice = requested("ticket 7");
    assert_eq!(notice.title, "Approval wanted: http:POST on graph for crm");
    let facts: Vec<String> = notice.facts.iter().map(|(label, text)| format!("{label}: {text}")).collect();
    assert_eq!(
        facts,
        [
            "approval: apr_01kb0000000000000000000000, open until 2026-11-25T10:00:00Z",
            "who: workload crm, process ticket 7 (7), launched by uid 1000",
            "what: POST /ticket 7 on graph",
            "because: policy writes: writing is looked at first",
            "they say: ticket 7",
            "asked of: crm-approvers",
            "to answer: interceptor approvals show apr_01kb0000000000000000000000 (on host.example)",
        ]
    );
    assert_eq!(notice.data["summary"], "POST /ticket 7");
    assert_eq!(notice.data["who"]["process"], "ticket 7");
}

#[test]
fn texts_are_bounded_without_secrets_and_with_what_is_hidden_spelled_out() {
    let long = "a".repeat(10_000);
    let notice = requested(&long);
    let most = notice.facts.iter().map(|(_, text)| text.chars().count()).max().unwrap();
    assert_eq!(most, MOST + 1, "{:?}", notice.facts);
    assert!(Value::from(notice.data).to_string().len() < 3_000);

    let jwt = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlc2lnbmF0dXJlc2ln";
    let notice = requested(&format!("see {jwt} \u{202e}txt\nasked of"));
    let all = format!("{:?} {}", notice.facts, Value::from(notice.data.clone()));
    assert!(!all.contains("c2lnbmF0dXJl"), "{all}");
    assert_eq!(notice.facts[4].0, "they say");
    assert!(notice.facts[4].1.ends_with("\\u{202e}txt\\u{a}asked of"), "{:?}", notice.facts[4]);
}

/// What the process doesn't get to see isn't told in a chat.
#[test]
fn what_is_masked_isnt_told() {
    let mut memory = Memory::new("host.example".into());
    let mut asked = request("for ada@contoso.com");
    asked.summary = "DELETE /users/ada@contoso.com".into();
    let keys = vec!["mail".into()];
    asked.shape = Shape { method: "DELETE".into(), path: "/users/{id}".into(), keys, websocket: false };
    let mut tell = |asked: &ApprovalRequest| {
        let what = What::ApprovalRequested(Box::new(asked.clone()));
        let notice = memory.notice(at(), &what, &Identities::default()).unwrap();
        let closed = What::ApprovalClosed { approval: asked.approval, outcome: "denied".into() };
        let later = memory.notice(at(), &closed, &Identities::default()).unwrap();
        [notice, later].map(|one| format!("{} {:?} {}", one.title, one.facts, Value::from(one.data)))
    };
    let plain = tell(&asked);
    assert!(plain.iter().all(|text| text.contains("/users/ada@contoso.com")), "{plain:?}");
    (asked.masked, asked.process) = (true, None);
    let masked = tell(&asked);
    assert!(masked.iter().all(|text| text.contains("DELETE /users/{id}")), "{masked:?}");
    assert!(!masked.iter().any(|text| text.contains("ada@contoso.com")), "{masked:?}");
}

#[test]
fn later_events_say_what_they_are_about() {
    let mut memory = Memory::new("host.example".into());
    let none = Identities::default();
    memory.notice(at(), &What::ApprovalRequested(Box::new(request("x"))), &none).unwrap();
    let approval = request("x").approval;
    let answered = What::ApprovalAnswered(Box::new(ApprovalAnswer {
        approval,
        yes: false,
        person: None,
        uid: 61_301,
        loginuid: None,
        groups: vec!["crm-approvers".into()],
        confirms: false,
        width: None,
        note: Some("no <b>".into()),
        evidence: None,
    }));
    let notice = memory.notice(at(), &answered, &none).unwrap();
    assert_eq!(notice.title, "Approval answered, no: http:POST on graph for crm");
    assert_eq!(notice.facts[3], ("answer", "no, by uid 61301, for crm-approvers".into()));
    assert_eq!((&notice.data["yes"], &notice.data["summary"]), (&json!(false), &json!("POST /x")));
    let closed = What::ApprovalClosed { approval, outcome: "denied".into() };
    let notice = memory.notice(at(), &closed, &none).unwrap();
    assert_eq!(notice.title, "Approval denied: http:POST on graph for crm");
    assert_eq!(notice.groups.as_deref(), Some(["crm-approvers".to_owned()].as_slice()));
    // It is forgotten then; somebody who is told of all still is.
    let notice = memory.notice(at(), &closed, &none).unwrap();
    assert_eq!((notice.title.as_str(), notice.groups), ("Approval denied", Some(Vec::new())));

    let issued = What::GrantIssued { grant: Box::new(grant(Origin::Operator)), by: Some(0) };
    let notice = memory.notice(at(), &issued, &none).unwrap();
    assert_eq!(notice.title, "Grant issued: graph for crm");
    assert_eq!(notice.facts[2], ("what", "everything on `graph`".into()));
    let ended = What::GrantEnded { grant: grant(Origin::Operator).id, reason: "revoked".into(), by: Some(0) };
    let notice = memory.notice(at(), &ended, &none).unwrap();
    assert_eq!(notice.title, "Grant revoked: graph for crm");
    assert!(memory.grants.is_empty() && memory.approvals.is_empty());
    assert_eq!(memory.notice(at(), &What::DaemonStopped { reason: "SIGTERM".into() }, &none), None);
}

#[test]
fn a_channel_is_told_what_it_is_for() {
    let all = Occasion::ALL;
    let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let notice = requested("x");
    assert!(notice.is_for(all, None));
    assert!(notice.is_for(&[Occasion::ApprovalRequested], Some(&groups(&["security", "crm-approvers"]))));
    assert!(!notice.is_for(&[Occasion::GrantEnded], None));
    assert!(!notice.is_for(all, Some(&groups(&["security"]))));
    // What an operator issued concerns no group; a test concerns everybody.
    let mut memory = Memory::default();
    let issued = What::GrantIssued { grant: Box::new(grant(Origin::Operator)), by: Some(0) };
    let notice = memory.notice(at(), &issued, &Identities::default()).unwrap();
    assert!(notice.is_for(all, None) && !notice.is_for(all, Some(&groups(&["security"]))));
    assert!(Notice::test("hook", "host", at()).is_for(&[Occasion::GrantEnded], Some(&groups(&["security"]))));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut memory = Memory::default();
    for _ in 0..REMEMBERED + 5 {
        memory.approval(&ApprovalRequest { approval: ApprovalId::new(), ..request("x") });
    }
    assert_eq!(memory.approvals.len(), REMEMBERED);
}

#[test]
fn an_emergency_is_told_to_every_channel() {
    let mut memory = Memory::new("host.example".into());
    let id: BreakGlassId = "brk_01kb0000000000000000000000".parse().unwrap();
    let (workload, until) = ("crm".parse().unwrap(), "2026-11-25T09:30:00Z".parse().unwrap());
    let broken = Box::new(BreakGlass { id, workload, until, reason: "the directory is down".into(), loginuid: None });
    let (reason, note) = ("expired".to_owned(), "rightly".to_owned());
    for (what, occasion, title, fact) in [
        (
            What::BreakGlassStarted { broken, by: 7 },
            Occasion::BreakGlassStarted,
            "The glass is broken for crm",
            ("because", "the directory is down"),
        ),
        (
            What::BreakGlassEnded { id, reason, by: None },
            Occasion::BreakGlassEnded,
            "An emergency is over",
            ("to close", "interceptor break-glass close brk_01kb0000000000000000000000 (on host.example)"),
        ),
        (
            What::BreakGlassClosed { id, by: 8, note },
            Occasion::BreakGlassClosed,
            "An emergency was looked at",
            ("note", "rightly"),
        ),
    ] {
        let notice = memory.notice(at(), &what, &Identities::default()).unwrap();
        assert_eq!(
            (notice.title.as_str(), notice.data["break_glass"].as_str()),
            (title, Some(id.to_string().as_str()))
        );
        assert!(notice.facts.contains(&(fact.0, fact.1.to_owned())), "{:?}", notice.facts);
        assert!(notice.is_for(&[occasion], Some(&["security".to_owned()])), "whatever its groups");
        let on = [Occasion::ApprovalRequested, Occasion::ApprovalClosed];
        assert!(notice.is_for(&on, Some(&["security".to_owned()])), "and whatever it is told of else");
    }
}
