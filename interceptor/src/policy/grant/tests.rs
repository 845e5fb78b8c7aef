use std::slice::from_ref;

use super::super::annotation::Approval;
use super::super::fixture::{Line, MONDAY, snapshot};
use super::super::{Decision, decide};
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const HELD: &str = r#"
@id("reach") permit(principal, action in Action::"reach", resource);
@id("held") @approval("ada") permit(principal, action in Action::"http:write", resource == Target::"graph");
@id("also") @approval("bob") @approvals("2") @grant_scope("target")
permit(principal, action == Action::"http:PUT", resource == Target::"graph");
@id("jit") permit(principal, action == Action::"http:GET", resource == Target::"graph") when { context.base.granted };
@id("never") forbid(principal, action == Action::"http:DELETE", resource);
"#;

fn grant(scope: Scope) -> Grant {
    Grant {
        id: GrantId::new(),
        workload: "crm".parse().unwrap(),
        whose: Whose::Anyone,
        behind: Behind::Anybody,
        target: "graph".parse().unwrap(),
        scope,
        origin: Origin::Operator,
        until: at("2026-11-23T10:00:00Z"),
        uses: None,
        bytes: None,
        rows: None,
    }
}

fn asker(initiator: u32, loginuid: Option<u32>, client: Option<&str>) -> Behind {
    Behind::Asker { initiator, loginuid, client: client.map(|client| client.parse().unwrap()) }
}

fn approved(groups: &[&str], approvals: u64, scope: Scope) -> Grant {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let (confirm, lasts, given) = (Vec::new(), Some(GRANT_FOR), Some(GRANT_USES));
    Grant {
        origin: Origin::Approval { approval: ApprovalId::new(), groups, approvals, confirm, lasts, given },
        ..grant(scope)
    }
}

/// What is decided on a line, with these grants: a verdict in a word, and the grant.
fn decided(line: &str, grants: &[Grant], digest: Option<Digest>, using: Option<GrantId>) -> String {
    let line = Line::new(line);
    let grants = Grants::new(grants.iter().cloned().map(Arc::new).collect(), Vec::new());
    let question = Question { digest, using, ..line.question() };
    match decide(&snapshot(HELD), &question, &grants, at(MONDAY)) {
        Decision::Allow(permit) => permit.basis().grant.map_or("allow".into(), |_| "granted".into()),
        Decision::Deny(denial) => denial.code.into(),
        Decision::Hold(hold) => format!("hold {} {}", hold.terms.groups.join("+"), hold.terms.approvals),
    }
}

#[test]
fn what_is_held_is_let_through_by_who_was_asked_and_nothing_else_is() {
    let digest = Digest::from([7; 32]);
    let own = Scope::Operation { digest };
    let post = "crm graph POST graph.microsoft.com/v1.0/users";
    let ada = approved(&["ada"], 1, own.clone());
    assert_eq!(decided(post, &[], None, None), "hold ada 1");
    assert_eq!(decided(post, from_ref(&ada), Some(digest), None), "granted");
    assert_eq!(decided(post, from_ref(&ada), Some(Digest::from([8; 32])), None), "hold ada 1", "another operation");
    assert_eq!(decided(post, from_ref(&ada), None, None), "hold ada 1", "it isn't known yet");
    assert_eq!(decided(post, &[approved(&["bob"], 9, own.clone())], Some(digest), None), "hold ada 1", "not asked");
    // A forbid holds whatever is granted; what nothing permits isn't permitted by a yes.
    let everything = grant(Scope::Target);
    assert_eq!(
        decided("crm graph DELETE graph.microsoft.com/x", from_ref(&everything), None, None),
        "denied-by-policy"
    );
    let get = "crm graph GET graph.microsoft.com/x";
    assert_eq!(decided(get, &[approved(&["ada", "bob"], 9, Scope::Target)], None, None), "denied-by-default");
    // What an operator issued is what a policy waits for, and stands for everybody's yes.
    assert_eq!(decided(get, from_ref(&everything), None, None), "granted");
    assert_eq!(decided(post, &[everything], None, None), "granted");
}

#[test]
fn of_several_approvals_all_count_and_the_stricter_numbers() {
    let put = "crm graph PUT graph.microsoft.com/x";
    let digest = Digest::from([7; 32]);
    assert_eq!(decided(put, &[], None, None), "hold ada+bob 2");
    for (groups, approvals, expected) in
        [(&["ada", "bob"][..], 2, "granted"), (&["ada", "bob"], 1, "hold ada+bob 2"), (&["bob"], 2, "hold ada+bob 2")]
    {
        let own = approved(groups, approvals, Scope::Operation { digest });
        assert_eq!(decided(put, &[own], Some(digest), None), expected, "{groups:?}");
    }
    // One of the two lets a yes be no wider than the operation.
    let wide = approved(&["ada", "bob"], 2, Scope::Target);
    assert_eq!(decided(put, &[wide], Some(digest), None), "hold ada+bob 2");
    let one = |group: &str, scope, uses| Approval {
        group: Some(group.into()),
        grant_scope: scope,
        grant_uses: uses,
        ..Approval::default()
    };
    let all = [one("b", Some(Width::Target), Some(9)), one("a", Some(Width::Shape), None), one("b", None, Some(4))];
    let terms = Terms::of(all.iter()).unwrap();
    assert_eq!((terms.groups.join("+"), terms.grant_scope, terms.grant_uses), ("a+b".into(), Width::Operation, 1));
    assert_eq!((terms.approvals, terms.within, terms.grant_for), (1, WITHIN, GRANT_FOR));
    assert_eq!(Terms::of([].iter()), None);
}

/// A yes that was given where policy asks for little isn't one where it asks for more: elsewhere, or after a reload.
#[test]
fn a_yes_on_lax_terms_is_none_on_strict_ones() {
    let one = Approval { group: Some("ada".into()), ..Approval::default() };
    let terms = Terms {
        grant_scope: Width::Action,
        grant_for: 600,
        grant_uses: 10,
        confirm: vec!["send it?".into()],
        ..Terms::of([&one].into_iter()).unwrap()
    };
    let given = |scope: Scope, texts: &[&str], lasts: Option<u64>, given: Option<u64>| {
        let confirm = texts.iter().map(|text| (*text).to_owned()).collect();
        let (approval, groups) = (ApprovalId::new(), vec!["ada".to_owned()]);
        Grant { origin: Origin::Approval { approval, groups, approvals: 1, confirm, lasts, given }, ..grant(scope) }
    };
    let action = || Scope::Action { action: "http:POST".into(), path: None };
    let said = &["send it?"][..];
    for (grant, discharges) in [
        (given(action(), said, Some(600), Some(10)), true),
        (given(action(), &["another?", "send it?"], Some(1), Some(1)), true),
        (given(Scope::Target, said, Some(600), Some(10)), false),
        (given(action(), said, Some(601), Some(10)), false),
        (given(action(), said, Some(600), Some(11)), false),
        (given(action(), &["another?"], Some(600), Some(10)), false),
        (given(action(), &[], Some(600), Some(10)), false),
        (given(action(), said, None, None), true),
    ] {
        assert_eq!(grant.discharges(&terms), discharges, "{grant:?}");
        // What is left of it is another matter.
        assert_eq!(Grant { uses: Some(0), ..grant.clone() }.discharges(&terms), discharges, "{grant:?}");
    }
    assert!(grant(Scope::Target).discharges(&terms), "an operator's stands for everybody's yes");
}

/// A yes to a reading of everything lets no writing through that is asked about each time.
#[test]
fn a_wide_yes_to_reading_is_none_to_writing() {
    let text = r#"
@id("reach") permit(principal, action in Action::"reach", resource);
@id("get") @approval("ada") @grant_scope("target") @grant_uses("100")
permit(principal, action == Action::"http:GET", resource == Target::"graph");
@id("post") @approval("ada") permit(principal, action == Action::"http:POST", resource == Target::"graph");
"#;
    let wide = Grant { uses: Some(100), ..approved(&["ada"], 1, Scope::Target) };
    let Origin::Approval { approval, groups, .. } = &wide.origin else { panic!("{wide:?}") };
    let (approval, groups, confirm) = (*approval, groups.clone(), Vec::new());
    let (lasts, given) = (Some(GRANT_FOR), Some(100));
    let wide = Grant { origin: Origin::Approval { approval, groups, approvals: 1, confirm, lasts, given }, ..wide };
    let grants = Grants::new(vec![Arc::new(wide)], Vec::new());
    for (line, is_held) in
        [("crm graph GET graph.microsoft.com/x", false), ("crm graph POST graph.microsoft.com/x", true)]
    {
        let line = Line::new(line);
        let decision = decide(&snapshot(text), &line.question(), &grants, at(MONDAY));
        assert_eq!(matches!(decision, Decision::Hold(_)), is_held, "{decision:?}");
    }
}

#[test]
fn a_grant_of_an_earlier_version_is_read() {
    let earlier = approved(&["ada"], 2, Scope::Target);
    let mut value = serde_json::to_value(&earlier).unwrap();
    value["origin"] = serde_json::json!({
        "from": "approval", "approval": ApprovalId::new(), "groups": ["ada"], "approvals": 2, "confirmed": true,
    });
    let read: Grant = serde_json::from_value(value).unwrap();
    let Origin::Approval { confirm, lasts, given, .. } = &read.origin else { panic!("{read:?}") };
    assert_eq!((confirm.len(), *lasts, *given), (0, None, None));
    let one = Approval { confirm: Some("send it?".into()), ..Approval::default() };
    let terms = Terms { grant_scope: Width::Target, ..Terms::of([&one].into_iter()).unwrap() };
    assert!(!read.discharges(&terms), "nobody knows what was confirmed");
    assert!(read.discharges(&Terms { confirm: Vec::new(), ..terms }));
}

#[test]
fn a_grant_ends_with_its_time_its_uses_and_its_workload() {
    let get = "crm graph GET graph.microsoft.com/x";
    let used = Grant { uses: Some(0), ..grant(Scope::Target) };
    assert_eq!(decided(get, from_ref(&used), None, None), "denied-by-default");
    assert_eq!(decided(get, from_ref(&used), None, Some(used.id)), "granted", "it is this very use");
    let over = Grant { until: at(MONDAY), ..grant(Scope::Target) };
    assert_eq!(decided(get, from_ref(&over), None, Some(over.id)), "denied-by-default", "its time is over");
    for other in [
        Grant { workload: "batch".parse().unwrap(), ..grant(Scope::Target) },
        Grant { target: "api".parse().unwrap(), ..grant(Scope::Target) },
        Grant { whose: Whose::Principal("a-issuer/ada".parse().unwrap()), ..grant(Scope::Target) },
        Grant { behind: Behind::Initiator(1001), ..grant(Scope::Target) },
        Grant { behind: asker(1001, None, None), ..grant(Scope::Target) },
        Grant { behind: asker(1000, Some(1001), None), ..grant(Scope::Target) },
        Grant { behind: asker(1000, None, Some("00000000-0000-0000-0000-000000000001")), ..grant(Scope::Target) },
    ] {
        assert_eq!(decided(get, &[other], None, None), "denied-by-default");
    }
    for own in [
        Grant { whose: Whose::Nobody, ..grant(Scope::Target) },
        Grant { behind: Behind::Initiator(1000), ..grant(Scope::Target) },
        Grant { behind: asker(1000, None, None), ..grant(Scope::Target) },
    ] {
        assert_eq!(decided(get, &[own], None, None), "granted");
    }
}

/// What was asked where nobody had logged in, as a service does, isn't let through for who became root by `sudo`.
#[test]
fn a_grant_of_people_is_for_the_login_that_asked() {
    let given = [None, Some(5), Some(6)];
    for (granted, asks) in given.into_iter().flat_map(|granted| given.map(|asks| (granted, asks))) {
        let mut line = Line::new("crm graph GET graph.microsoft.com/x");
        line.asker.loginuid = asks;
        let grant = Grant { behind: asker(1000, granted, None), ..grant(Scope::Target) };
        let grants = Grants::new(vec![Arc::new(grant)], Vec::new());
        let covered = grants.covering(&line.question(), at(MONDAY)).len();
        assert_eq!(covered, usize::from(granted == asks), "{granted:?} {asks:?}");
    }
}

#[test]
fn an_action_and_a_path_narrow_a_grant() {
    let scope = |action: &str, path: Option<&str>| {
        grant(Scope::Action { action: action.into(), path: path.map(str::to_owned) })
    };
    let get = "crm graph GET graph.microsoft.com/v1.0/users/7";
    for (action, path, expected) in [
        ("http:GET", None, "granted"),
        ("http:read", Some("/v1.0/users"), "granted"),
        ("http", Some("/v1.0/users/"), "granted"),
        ("http:read", Some("/v1.0/user"), "denied-by-default"),
        ("http:write", None, "denied-by-default"),
        ("http:websocket", None, "denied-by-default"),
    ] {
        assert_eq!(decided(get, &[scope(action, path)], None, None), expected, "{action} {path:?}");
    }
}

#[test]
fn a_shape_is_a_method_a_path_without_ids_and_the_keys_of_a_query() {
    let shape = |line: &str| {
        let line = Line::new(line);
        match line.question().operation {
            Operation::Http(request) => Shape::of(&request).to_string(),
            _ => panic!("it is HTTP"),
        }
    };
    for (request, expected) in [
        ("POST graph.microsoft.com/v1.0/users", "POST /v1.0/users"),
        ("POST graph.microsoft.com/v1.0/users/42/sendMail?b=1&a=2&b=3", "POST /v1.0/users/{id}/sendMail?a&b"),
        ("GET graph.microsoft.com/v1.0/users/ada%40contoso.example", "GET /v1.0/users/{id}"),
        ("GET graph.microsoft.com/x/00000003-0000-0000-c000-000000000000/y", "GET /x/{id}/y"),
        ("GET graph.microsoft.com/repos/deadbeefcafe1/v2", "GET /repos/{id}/v2"),
        ("GET graph.microsoft.com/", "GET /"),
    ] {
        assert_eq!(shape(&format!("crm graph {request}")), expected);
    }
}

#[test]
fn a_grant_reads_back_as_it_is_written() {
    let shape = Shape { method: "GET".into(), path: "/{id}".into(), keys: vec!["a".into()], websocket: false };
    for scope in [
        Scope::Operation { digest: Digest::from([1; 32]) },
        Scope::Shape { shape: Shape { websocket: true, ..shape.clone() } },
        Scope::Shape { shape },
        Scope::Action { action: "http:GET".into(), path: Some("/v1.0".into()) },
        Scope::Target,
    ] {
        let grant = Grant { uses: Some(3), ..approved(&["ada"], 2, scope) };
        let text = serde_json::to_string(&grant).unwrap();
        assert_eq!(serde_json::from_str::<Grant>(&text).unwrap(), grant, "{text}");
    }
}

/// What was recorded before there was a shape of WebSockets was none.
#[test]
fn a_shape_of_an_earlier_version_is_one_of_plain_requests() {
    let read: Scope = serde_json::from_str(r#"{"width":"shape","method":"GET","path":"/x","keys":[]}"#).unwrap();
    let shape = Shape { method: "GET".into(), path: "/x".into(), keys: Vec::new(), websocket: false };
    assert_eq!(read, Scope::Shape { shape });
}

fn asked(line: &Line, websocket: bool) -> Question<'_> {
    let mut question = line.question();
    if let Operation::Http(request) = &mut question.operation {
        request.websocket = websocket;
    }
    question
}

/// A yes to plain requests opens no WebSocket at the same path, nor the other way round.
#[test]
fn a_shape_is_of_plain_requests_or_of_websockets() {
    let text = r#"
@id("chat") @approval("ada") @grant_scope("shape")
permit(principal, action in [Action::"http:GET", Action::"http:websocket"], resource == Target::"graph");
"#;
    let one = Line::new("crm graph GET graph.microsoft.com/chat/42");
    let another = Line::new("crm graph GET graph.microsoft.com/chat/43");
    for (granted, asks) in [(false, false), (false, true), (true, false), (true, true)] {
        let Operation::Http(request) = asked(&one, granted).operation else { panic!("it is HTTP") };
        let grant = approved(&["ada"], 1, Scope::Shape { shape: Shape::of(&request) });
        let grants = Grants::new(vec![Arc::new(grant)], Vec::new());
        let decision = decide(&snapshot(text), &asked(&another, asks), &grants, at(MONDAY));
        assert_eq!(matches!(decision, Decision::Allow(_)), granted == asks, "{granted} {asks}: {decision:?}");
    }
}

#[test]
fn a_grant_can_be_for_every_action_of_the_schema_and_no_other() {
    let (schema, _) = cedar_policy::Schema::from_cedarschema_str(super::super::SCHEMA).unwrap();
    let mut count = 0;
    for action in schema.actions() {
        let name: &str = action.id().unescaped();
        assert!(Scope::has_action(name), "{name}");
        count += 1;
    }
    assert_eq!(count, GROUPS.len() + ACTIONS.len());
    for name in ["http:reed", "GET", "", "http:", "HTTP"] {
        assert!(!Scope::has_action(name), "{name}");
    }
}

#[test]
fn what_a_wider_yes_leaves_open_is_all_told() {
    let target = "graph".parse().unwrap();
    for (websocket, name, last) in
        [(false, "http:GET", "any body"), (true, "http:websocket", "whatever is said over it afterwards")]
    {
        let shape = Shape { method: "GET".into(), path: "/{id}".into(), keys: Vec::new(), websocket };
        let action = |path: Option<&str>| Scope::Action { action: name.into(), path: path.map(str::to_owned) };
        for scope in [Scope::Shape { shape }, action(None), action(Some("/v1.0"))] {
            let told = scope.told(&target);
            for open in ["query", "header fields", last] {
                assert!(told.contains(open), "no `{open}` in `{told}`");
            }
            assert_eq!(told.to_lowercase().contains("websocket"), websocket, "{told}");
        }
    }
}
