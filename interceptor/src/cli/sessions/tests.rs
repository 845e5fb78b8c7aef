use super::*;
use crate::policy::{Authentic, Basis, Bound, PrincipalKind};
use crate::record::Fault;
use crate::record::event::Identity;
use crate::record::query::Body;
use crate::who::Process;

/// An operation that was denied.
pub(super) fn operation() -> Operation {
    story().operations.remove(0)
}

const PRINCIPAL: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47/11111111-2222-4333-8444-555555555555";

pub(super) fn story() -> Story {
    let session = Session {
        session: "ses_01kgz0000000000000000000aa".into(),
        launch: "wl_01kgz0000000000000000000bb".into(),
        workload: "crm".into(),
        process: Some(Process { pid: 7, tid: 8, comm: "\x1b[31mcrm".into(), exe: Some("/usr/bin/crm".into()) }),
        original: "198.18.0.1:443".into(),
        host: Some("graph.microsoft.com".into()),
        target: Some("graph".into()),
        opened_at: "2026-11-23T09:15:37.123456789Z".into(),
        closed_at: Some("2026-11-23T09:15:39Z".into()),
        reason: Some("done".into()),
        operations: 1,
        denied: 1,
        principals: vec![PRINCIPAL.into()],
        names: BTreeMap::from([(PRINCIPAL.into(), "crm-bot".into())]),
        cut_by: Vec::new(),
    };
    let operation = Operation {
        operation: "op_01kgz0000000000000000000cc".into(),
        session: Some(session.session.clone()),
        launch: session.launch.clone(),
        workload: "crm".into(),
        target: Some("graph".into()),
        action: "http:DELETE".into(),
        summary: "DELETE /v1.0/users/\u{202e}7".into(),
        verdict: "deny".into(),
        code: Some("denied-by-policy".into()),
        basis: Basis {
            generation: 1,
            policies: vec!["no-deletes".into()],
            reasons: vec!["nobody\ndeletes".into()],
            ..Basis::default()
        },
        decided_at: "2026-11-23T09:15:38.5Z".into(),
        finished_at: None,
        outcome: Some("denied".into()),
        status: Some(403),
        request: Body { bytes: Some(0), digest: None },
        response: Body { bytes: Some(312), digest: None },
        payload: None,
        initiator: Some(1000),
        credential: Some("entra".into()),
        identity: Some(Identity {
            principal: PRINCIPAL.parse().unwrap(),
            kind: PrincipalKind::User,
            client: None,
            authentic: Authentic::Issuer,
            bound: Bound::IssuedHere,
            token: "00".repeat(32).parse().unwrap(),
            uti: None,
        }),
        names: session.names.clone(),
        approval: None,
        service_request: None,
        spent: None,
        cut_by: Vec::new(),
        masked: BTreeMap::from([("$..mail".into(), 3), ("email".into(), 1)]),
    };
    Story { session, launch: None, operations: vec![operation], omitted: 0 }
}

fn printed(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn show_tells_who_where_and_each_operation_on_a_line() {
    let text = printed(|out| show(out, &story()));
    assert!(text.contains("process   \\u{1b}[31mcrm, pid 7, thread 8, /usr/bin/crm\n"), "{text}");
    assert!(text.contains("to        graph.microsoft.com, target graph, by 198.18.0.1:443\n"), "{text}");
    let line = text.lines().find(|line| line.contains("http:DELETE")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..5], ["09:15:38.500", "crm-bot", "http:DELETE", "DELETE", "/v1.0/users/\\u{202e}7"]);
    assert!(text.contains(&format!("crm-bot is user {PRINCIPAL}\n")), "{text}");
    assert_eq!(
        words[5..],
        ["deny", "denied-by-policy", "no-deletes", "403", "0", "312", "op_01kgz0000000000000000000cc"]
    );
    assert!(text.contains("op_01kgz0000000000000000000cc was denied:\n  nobody\\u{a}deletes\n"), "{text}");
    assert!(!text.contains(['\x1b', '\u{202e}']), "{text}");
}

#[test]
fn show_names_the_policies_that_cut_a_session_and_its_operations() {
    let mut story = story();
    assert!(!printed(|out| show(out, &story)).contains("cut by"));
    story.session.reason = Some("policy-changed".into());
    story.session.cut_by = vec!["shut".into(), "x\u{1b}".into()];
    story.operations[0].cut_by = vec!["audit".into()];
    let text = printed(|out| show(out, &story));
    assert!(text.contains(" (policy-changed)\ncut by    shut, x\\u{1b}\n"), "{text}");
    assert!(text.contains("\nop_01kgz0000000000000000000cc was cut by audit\n"), "{text}");
    let value = serde_json::to_value(&story).unwrap();
    assert_eq!(value["session"]["cut_by"][0], "shut");
}

#[test]
fn list_keeps_ids_whole_and_says_when_there_is_nothing() {
    let text = printed(|out| list(out, &[story().session]));
    assert!(text.starts_with(" SESSION"), "{text}");
    assert!(text.contains("ses_01kgz0000000000000000000aa  2026-11-23T09:15:37Z  crm       crm-bot"), "{text}");
    assert!(printed(|out| list(out, &[])).contains("no sessions yet"));
}

#[test]
fn verify_names_the_first_fault() {
    let report = Report {
        ok: false,
        events: 4,
        hash: "00".into(),
        fault: Some(Fault { seq: Some(5), what: "the event is missing".into() }),
        damage: vec![],
        checkpoints: None,
        uncovered: None,
        notes: vec!["note".into()],
    };
    let text = printed(|out| verified(out, &report));
    assert!(text.starts_with("NOT ok: event 5: the event is missing\n4 events up to there"), "{text}");
}

#[test]
fn verify_names_what_no_checkpoint_covers() {
    let report = |checkpoints: Option<Anchored>, uncovered| {
        let (hash, damage, notes) = ("00".into(), vec![], vec![]);
        let report = Report { ok: true, events: 9, hash, fault: None, damage, checkpoints, uncovered, notes };
        printed(|out| verified(out, &report))
    };
    let anchored = |uncovered| Anchored {
        count: 3,
        seq: 4,
        at: "2026-11-25T09:00:00Z".parse().unwrap(),
        key: "00".repeat(32).parse().unwrap(),
        uncovered,
    };
    let some = report(Some(anchored(Some((5, 9)))), Some((5, 9)));
    assert!(some.contains("3 checkpoints, the last of event 4"), "{some}");
    assert!(some.ends_with("\nevents 5 to 9 have no checkpoint yet\n"), "{some}");
    let none = report(None, Some((1, 9)));
    assert!(none.ends_with("\nevents 1 to 9 have no checkpoint yet\n"), "{none}");
    let all = report(Some(anchored(None)), None);
    assert!(!all.contains("have no checkpoint"), "{all}");
}

#[test]
fn json_is_the_daemons_answer() {
    let value = serde_json::to_value(story()).unwrap();
    let mut out = Vec::new();
    print::<Story>(&mut out, true, value.clone(), |_, _| Ok(())).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), value);
}

#[test]
fn every_field_of_the_json_is_in_the_documentation() {
    let documentation = include_str!("../../../../docs/record.md");
    let (_, described) = documentation.split_once("## JSON of the commands").expect("the section");
    let story = serde_json::to_value(story()).unwrap();
    let operation = &story["operations"][0];
    for part in [&story["session"], operation, &operation["identity"]] {
        for name in part.as_object().unwrap().keys() {
            assert!(described.contains(&format!("\"{name}\": ")), "`{name}` isn't in docs/record.md");
        }
    }
}
