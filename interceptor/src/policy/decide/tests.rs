use cedar_policy_core::ast::{EntityUIDEntry, Request};
use cedar_policy_core::authorizer::{AuthorizationError, Authorizer};
use cedar_policy_core::extensions::Extensions;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::ask::Ask;
use super::super::condition::{self, Said};
use super::super::fixture::{Line, MONDAY, settings, snapshot, verdict};
use super::super::{Credential, Decision, Grants, Snapshot, State, decide, explain};

mod identity;

const POLICIES: &str = r#"
@id("reach") permit(principal, action in Action::"reach", resource in Target::"graph");
@id("reach-api") permit(principal, action == Action::"connect", resource == Target::"api")
  when { context.connect.host like "*.api.example" && context.connect.port == 443 };
@id("dns-api") permit(principal, action == Action::"dns:resolve", resource == Target::"api")
  unless { context.dns.name == "secret.api.example" };
@id("read") @max_session("15m") permit(principal, action in Action::"http:read", resource == Target::"graph");
@id("users") @max_session("1h") @reason("people are looked up here")
permit(principal == Identity::"none", action == Action::"http:GET", resource is Target)
  when { context.http.s0 == "v1.0" && context.http.s1 == "users" };
@id("no-delete") @reason("nothing is deleted here")
forbid(principal, action == Action::"http:DELETE", resource);
@id("no-batch") forbid(principal, action, resource)
  when { context has http && context.http.path like "*/$batch" };
@id("write-notes") permit(principal, action in [Action::"http:write"], resource == Target::"api")
  when { context.http.s0 == "notes" && context.http.tls };
@id("office") permit(principal, action == Action::"http:POST", resource == Target::"graph")
  when { context.base.weekday <= 5 && context.base.minute >= 540 && context.base.minute < 1080 };
@id("prod") permit(principal, action == Action::"http:PUT", resource == Target::"graph")
  when { context.base.classes.contains("prod") && context.base.workload == Workload::"crm" };
@id("dry") permit(principal, action == Action::"http:PATCH", resource == Target::"graph")
  when { context.http.query.hasTag("dry") && context.http.query.getTag("dry").contains("yes") };
@id("not-many") @reason("too much at once") forbid(principal, action in Action::"http", resource)
  when { context.http.query.hasTag("$top") && context.http.query.getTag("$top").contains("999") };
@id("foreign") forbid(principal, action, resource == Target::"graph") when { context.base.credential == "foreign" };
@id("held") @confirm("send it?") permit(principal, action == Action::"http:POST", resource == Target::"api")
  when { context.http.s0 == "held" };
@id("sum") permit(principal, action == Action::"http:OPTIONS", resource == Target::"api")
  when { context.base.initiator + 9223372036854775000 > 0 };
@id("over") permit(principal, action == Action::"http:HEAD", resource == Target::"api")
  when { context.base.initiator * 9223372036854775000 > 0 };
@id("deep") permit(principal, action == Action::"http:PUT", resource == Target::"api")
  when { context.http.segments > 16 && context.http.s15 == "15" && context.http.raw like "*/last" };
@id("year") permit(principal, action == Action::"http:GET", resource == Target::"box")
  when { context.base.now < datetime("2026-12-01") && !context.http.tls && context.http.method == "GET" };
"#;

/// Question, then the verdict and the determining policies.
const TABLE: &[(&str, &str)] = &[
    // Reaching.
    ("crm graph connect graph.microsoft.com:443", "allow reach"),
    ("batch graph connect graph.microsoft.com:443", "allow reach"),
    ("crm graph resolve graph.microsoft.com", "allow reach"),
    ("crm api connect a.api.example:443", "allow reach-api"),
    ("crm api connect a.api.example:8443", "denied-by-default"),
    ("crm api resolve a.api.example", "allow dns-api"),
    ("crm api resolve secret.api.example", "denied-by-default"),
    ("crm box connect 192.0.2.7:80", "denied-by-default"),
    // What the target doesn't list, as after a reload that changed it.
    ("crm graph connect graph.microsoft.com:8443", "denied-by-default"),
    ("crm graph connect evil.example:443", "denied-by-default"),
    ("crm graph resolve evil.example", "denied-by-default"),
    ("crm graph GET evil.example/v1.0/users", "denied-by-default"),
    ("crm api resolve a.b.api.example", "denied-by-default"),
    ("crm gone connect gone.example:443", "denied-by-default"),
    ("crm gone GET gone.example/v1.0/users", "denied-by-default"),
    ("stranger graph connect graph.microsoft.com:443", "denied-by-default"),
    ("stranger graph GET graph.microsoft.com/", "denied-by-default"),
    // Reading.
    ("crm graph GET graph.microsoft.com/", "allow read"),
    ("crm graph HEAD graph.microsoft.com/x", "allow read"),
    ("crm graph OPTIONS graph.microsoft.com/x", "allow read"),
    ("crm graph GET graph.microsoft.com/v1.0/users", "allow read users"),
    ("crm graph GET graph.microsoft.com/v1.0/users/", "allow read users"),
    ("crm graph GET graph.microsoft.com/v1.0/%75sers/7", "allow read users"),
    ("crm graph HEAD graph.microsoft.com/v1.0/users", "allow read"),
    ("crm api GET a.api.example/v1.0/users", "allow users"),
    ("crm api GET a.api.example/v1.0/Users", "denied-by-default"),
    ("crm api GET a.api.example/v1.0", "denied-by-default"),
    ("crm api GET a.api.example/", "denied-by-default"),
    ("crm api HEAD a.api.example/v1.0/users", "policy-error over"),
    // Writing.
    ("crm graph DELETE graph.microsoft.com/v1.0/users/7", "denied-by-policy no-delete"),
    ("crm api DELETE a.api.example/notes/7", "denied-by-policy no-delete"),
    ("crm graph delete graph.microsoft.com/v1.0/users/7", "denied-by-default"),
    ("crm api delete a.api.example/notes/7", "allow write-notes"),
    ("crm graph TRACE graph.microsoft.com/", "denied-by-default"),
    ("crm graph PROPFIND graph.microsoft.com/v1.0/users", "denied-by-default"),
    ("crm graph get graph.microsoft.com/v1.0/users", "denied-by-default"),
    ("crm graph connect graph.microsoft.com:443/", "allow reach"),
    ("crm graph CONNECT graph.microsoft.com:443", "denied-by-default"),
    ("crm api POST a.api.example/notes", "allow write-notes"),
    ("crm api PUT a.api.example/notes", "allow write-notes"),
    ("crm api PATCH a.api.example/notes/7", "allow write-notes"),
    ("crm api MERGE a.api.example/notes/7", "allow write-notes"),
    ("crm api POST a.api.example/other", "denied-by-default"),
    ("crm api POST a.api.example/", "denied-by-default"),
    // A forbid wins over every permit, however the path is encoded.
    ("crm graph POST graph.microsoft.com/v1.0/$batch", "denied-by-policy no-batch"),
    ("crm graph POST graph.microsoft.com/v1.0/%24batch", "denied-by-policy no-batch"),
    ("crm graph POST graph.microsoft.com/v1.0/%24%62atch", "denied-by-policy no-batch"),
    ("crm graph GET graph.microsoft.com/$batch", "denied-by-policy no-batch"),
    ("crm graph DELETE graph.microsoft.com/$batch", "denied-by-policy no-batch no-delete"),
    // Time, on Monday at 09:15.
    ("crm graph POST graph.microsoft.com/v1.0/users", "allow office"),
    ("crm box GET 192.0.2.7:80/", "allow year"),
    ("crm box HEAD 192.0.2.7:80/", "denied-by-default"),
    // Workloads and their classes.
    ("crm graph PUT graph.microsoft.com/x", "allow prod"),
    ("batch graph PUT graph.microsoft.com/x", "denied-by-default"),
    // The query.
    ("crm graph PATCH graph.microsoft.com/x?dry=yes", "allow dry"),
    ("crm graph PATCH graph.microsoft.com/x?dry=no&dry=yes", "allow dry"),
    ("crm graph PATCH graph.microsoft.com/x?%64ry=%79es", "allow dry"),
    ("crm graph PATCH graph.microsoft.com/x?dry=no", "denied-by-default"),
    ("crm graph PATCH graph.microsoft.com/x?dry", "denied-by-default"),
    ("crm graph PATCH graph.microsoft.com/x?", "denied-by-default"),
    ("crm graph PATCH graph.microsoft.com/x", "denied-by-default"),
    ("crm graph GET graph.microsoft.com/x?$top=5", "allow read"),
    ("crm graph GET graph.microsoft.com/x?$top=999", "denied-by-policy not-many"),
    ("crm graph GET graph.microsoft.com/x?%24top=999", "denied-by-policy not-many"),
    ("crm graph GET graph.microsoft.com/x?$top=5&$top=999", "denied-by-policy not-many"),
    ("crm graph GET graph.microsoft.com/x?a=%ZZ", "policy-error"),
    ("crm graph GET graph.microsoft.com/x?a=%00", "policy-error"),
    // What is held, and evaluations that err.
    ("crm api POST a.api.example/held", "hold held"),
    ("crm api OPTIONS a.api.example/", "policy-error sum"),
    // Segments.
    ("crm api PUT a.api.example/0/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/last", "allow deep"),
    ("crm api PUT a.api.example/0/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15", "denied-by-default"),
    ("crm api PUT a.api.example/0/1/2/3/4/5/6/7/8/9/10/11/12/13/14/x/last", "denied-by-default"),
];

fn at(time: &str) -> jiff::Timestamp {
    time.parse().unwrap()
}

#[test]
fn the_table_of_verdicts() {
    let snapshot = snapshot(POLICIES);
    for (question, expected) in TABLE {
        let line = Line::new(question);
        let decision = decide(&snapshot, &line.question(), &Grants::default(), at(MONDAY));
        assert_eq!(verdict(&decision), *expected, "{question}");
    }
}

#[test]
fn time_is_local_to_the_zone() {
    let office = r#"@id("office") permit(principal, action, resource)
        when { context.base.weekday <= 5 && context.base.minute >= 540 && context.base.minute < 1080 };"#;
    let line = Line::new("crm graph GET graph.microsoft.com/");
    for (zone, time, expected) in [
        (0, "2026-11-23T09:00:00Z", "allow office"),
        (0, "2026-11-23T08:59:59.999Z", "denied-by-default"),
        (0, "2026-11-23T18:00:00Z", "denied-by-default"),
        (0, "2026-11-27T17:59:59Z", "allow office"),
        (0, "2026-11-28T12:00:00Z", "denied-by-default"),
        (0, "2026-11-29T12:00:00Z", "denied-by-default"),
        (1, "2026-11-23T08:00:00Z", "allow office"),
        (1, "2026-11-23T17:00:00Z", "denied-by-default"),
        // Sunday in UTC, Monday morning at UTC+10.
        (10, "2026-11-22T23:30:00Z", "allow office"),
    ] {
        let zoned = snapshot(office).in_zone(jiff::tz::TimeZone::fixed(jiff::tz::offset(zone)));
        assert_eq!(
            verdict(&decide(&zoned, &line.question(), &Grants::default(), at(time))),
            expected,
            "{time} at UTC+{zone}"
        );
    }
}

#[test]
fn permits_add_up_their_obligations() {
    let snapshot = snapshot(POLICIES);
    let line = Line::new("crm graph GET graph.microsoft.com/v1.0/users");
    let Decision::Allow(permit) = decide(&snapshot, &line.question(), &Grants::default(), at(MONDAY)) else {
        panic!("it is allowed")
    };
    assert_eq!(permit.basis().obligations.max_session, Some(900));
    assert_eq!(permit.basis().reasons, ["people are looked up here"]);
    assert_eq!(permit.basis().generation, 7);
}

#[test]
fn one_permit_without_the_obligation_does_not_lift_it() {
    let snapshot = snapshot(
        r#"@id("a") permit(principal, action, resource);
           @id("b") @confirm("are you sure?") permit(principal, action, resource);"#,
    );
    let line = Line::new("crm graph connect graph.microsoft.com:443");
    let Decision::Hold(hold) = decide(&snapshot, &line.question(), &Grants::default(), at(MONDAY)) else {
        panic!("it is held")
    };
    assert_eq!((hold.terms.confirm, &*hold.basis.policies.join(" ")), (vec!["are you sure?".into()], "a b"));
}

#[test]
fn masks_of_all_permits_and_of_the_target_add_up() {
    let snapshot = snapshot(
        r#"@id("a") permit(principal, action, resource);
           @id("b") @mask("pii, keys") permit(principal, action, resource);
           @id("c") @mask("mail,pii") permit(principal, action, resource == Target::"box");"#,
    );
    for (target, masks) in [("graph graph.microsoft.com:443", "keys pii"), ("box 192.0.2.7:80", "keys mail names pii")]
    {
        let (name, host) = target.split_once(' ').unwrap();
        let line = Line::new(&format!("crm {name} connect {host}"));
        let Decision::Allow(permit) = decide(&snapshot, &line.question(), &Grants::default(), at(MONDAY)) else {
            panic!("it is allowed")
        };
        let named: Vec<_> = permit.basis().obligations.masks.iter().map(|mask| mask.as_str()).collect();
        assert_eq!(named.join(" "), masks, "{name}");
    }
}

#[test]
fn an_erring_forbid_denies_what_is_permitted() {
    let text = r#"@id("yes") permit(principal, action, resource);
                  @id("errs") forbid(principal, action, resource) when { context.base.initiator * 9223372036854775807 == 1 };"#;
    let line = Line::new("crm graph connect graph.microsoft.com:443");
    let Decision::Deny(denial) = decide(&snapshot(text), &line.question(), &Grants::default(), at(MONDAY)) else {
        panic!("it is denied")
    };
    assert_eq!((denial.code, &*denial.basis.policies.join(" ")), ("policy-error", "errs"));
    assert!(denial.basis.reasons[0].contains("overflow"), "{:?}", denial.basis.reasons);
    assert!(!denial.told().contains("overflow"), "the client isn't told what operators wrote");
}

#[test]
fn clients_are_told_the_reasons_of_forbids() {
    let snapshot = snapshot(POLICIES);
    let line = Line::new("crm graph DELETE graph.microsoft.com/v1.0/users/7");
    let Decision::Deny(denial) = decide(&snapshot, &line.question(), &Grants::default(), at(MONDAY)) else {
        panic!("it is denied")
    };
    assert_eq!(denial.told(), "nothing is deleted here");
    assert!(denial.next().contains("don't retry"));
}

#[test]
fn a_foreign_credential_is_seen() {
    let snapshot = snapshot(POLICIES);
    let mut line = Line::new("crm graph GET graph.microsoft.com/");
    line.credential = Credential::Foreign;
    assert_eq!(
        verdict(&decide(&snapshot, &line.question(), &Grants::default(), at(MONDAY))),
        "denied-by-policy foreign"
    );
}

#[test]
fn nothing_loaded_and_nothing_loadable_allow_nothing() {
    let line = Line::new("crm graph connect graph.microsoft.com:443");
    assert_eq!(verdict(&decide(&snapshot(""), &line.question(), &Grants::default(), at(MONDAY))), "denied-by-default");
    let sealed = Snapshot::sealed(settings(), "policy.d/a.cedar:1:1: unexpected token", 1);
    let Decision::Deny(denial) = decide(&sealed, &line.question(), &Grants::default(), at(MONDAY)) else {
        panic!("it is denied")
    };
    assert_eq!(denial.code, "policy-sealed");
    assert_eq!(denial.basis.reasons, ["policy.d/a.cedar:1:1: unexpected token"]);
}

#[test]
fn no_time_breaks_a_decision() {
    let snapshot = snapshot("permit(principal, action, resource);");
    let line = Line::new("crm graph connect graph.microsoft.com:443");
    for time in [jiff::Timestamp::MIN, jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::MAX] {
        let verdict = verdict(&decide(&snapshot, &line.question(), &Grants::default(), time));
        assert!(["allow test.cedar:1", "policy-error"].contains(&verdict.as_str()), "{verdict} at {time}");
    }
}

#[test]
fn every_context_has_the_type_that_the_schema_says() {
    let (schema, _) = cedar_policy::Schema::from_cedarschema_str(super::super::SCHEMA).unwrap();
    let snapshot = snapshot("permit(principal, action, resource);");
    let State::Open(rules) = &snapshot.state else { panic!("it is open") };
    let mut asked = 0;
    for (question, _) in TABLE {
        let line = Line::new(question);
        let Ok(ask) = Ask::whole(&snapshot, rules, &line.question(), at(MONDAY)) else { continue };
        let uid = |entry: &EntityUIDEntry| (entry.uid().unwrap().clone(), None);
        let request = Request::new(
            uid(ask.request.principal()),
            uid(ask.request.action()),
            uid(ask.request.resource()),
            ask.request.context().unwrap().clone(),
            Some(schema.as_ref()),
            Extensions::all_available(),
        );
        request.unwrap_or_else(|error| panic!("{question}: {error}"));
        cedar_policy::Entities::from_entities(ask.entities.iter().cloned(), Some(&schema))
            .unwrap_or_else(|error| panic!("{question}: {error}"));
        asked += 1;
    }
    assert!(asked > 50);
}

#[test]
fn an_explanation_shows_what_decided_and_what_nearly_did() {
    let snapshot = snapshot(POLICIES);
    let line = Line::new("crm graph PATCH graph.microsoft.com/x?dry=no");
    let told = explain(&snapshot, &line.question(), at(MONDAY));
    assert_eq!((told.verdict.as_str(), told.code.as_deref()), ("deny", Some("denied-by-default")));
    let near: Vec<_> = told.near.iter().map(|cited| cited.id.as_str()).collect();
    assert_eq!(near, ["dry", "foreign", "no-batch", "not-many"]);
    assert!(told.near[0].text.starts_with("@id(\"dry\") permit("), "{}", told.near[0].text);
    assert_eq!((told.near[0].file.as_str(), told.near[0].effect.as_str()), ("policy.d/test.cedar", "permit"));
    let line_of_dry = POLICIES[..POLICIES.find("@id(\"dry\")").unwrap()].matches('\n').count() + 1;
    assert_eq!(told.near[0].line, line_of_dry);
    let asked = told.asked.as_ref().unwrap();
    assert_eq!(asked.action, r#"Action::"http:PATCH""#);
    assert_eq!(asked.context["http"]["path"], "/x");
    assert_eq!(asked.context["base"]["weekday"], 1);
    assert_eq!(asked.query["dry"], ["no"]);
    let json = serde_json::to_string(&told).unwrap();
    assert_eq!(serde_json::from_str::<super::super::Explanation>(&json).unwrap(), told);
}

#[test]
fn explanations_and_decisions_agree() {
    let snapshot = snapshot(POLICIES);
    for (question, _) in TABLE {
        let line = Line::new(question);
        let told = explain(&snapshot, &line.question(), at(MONDAY));
        let (code, basis) = match decide(&snapshot, &line.question(), &Grants::default(), at(MONDAY)) {
            Decision::Allow(permit) => (None, permit.basis().clone()),
            Decision::Deny(denial) => (Some(denial.code), denial.basis),
            Decision::Hold(hold) => (Some("approval-pending"), hold.basis),
        };
        assert_eq!((told.code.as_deref(), &told.basis), (code, &basis), "{question}");
        let cited: Vec<_> = told.determining.iter().map(|cited| &cited.id).collect();
        assert_eq!(cited, basis.policies.iter().collect::<Vec<_>>(), "{question}");
        let recalled = super::super::recall(&snapshot, code, &basis);
        assert_eq!((recalled.verdict, recalled.determining), (told.verdict, told.determining), "{question}");
        let older = super::super::Basis { generation: basis.generation - 1, ..basis };
        let recalled = super::super::recall(&snapshot, code, &older);
        assert_eq!((recalled.basis, recalled.determining), (older, Vec::new()), "{question}");
    }
}

fn policy() -> impl Strategy<Value = String> {
    let effect = select(vec!["permit", "forbid"]);
    let principal = select(vec![
        "principal",
        r#"principal == Identity::"none""#,
        "principal is Identity",
        r#"principal in Identity::"none""#,
        r#"principal is Identity in Identity::"none""#,
    ]);
    let action = select(vec![
        "action",
        r#"action == Action::"connect""#,
        r#"action == Action::"http:GET""#,
        r#"action == Action::"http:other""#,
        r#"action in Action::"reach""#,
        r#"action in Action::"http""#,
        r#"action in Action::"http:read""#,
        r#"action in [Action::"http:write", Action::"dns:resolve"]"#,
        r#"action in [Action::"http:DELETE"]"#,
    ]);
    let resource = select(vec![
        "resource",
        "resource is Target",
        r#"resource == Target::"graph""#,
        r#"resource in Target::"api""#,
        r#"resource is Target in Target::"box""#,
    ]);
    let when = select(vec![
        "",
        "when { context has http && context.http.tls }",
        r#"unless { context.base.workload == Workload::"crm" }"#,
        r#"when { resource == Target::"graph" }"#,
        r#"when { action in Action::"http:read" }"#,
        "when { context.base.initiator * 9223372036854775807 > 3 }",
        "when { context.base.minute > 600 || context.base.weekday == 1 }",
        "when { context has http && context.http.query.hasTag(\"dry\") && context.http.s1 != \"x\" }",
        "when { [context.base.credential, \"none\"].contains(context.base.kind) }",
        "unless { context.base has person }",
    ]);
    let note = select(vec!["", "@max_session(\"5m\")", "@approval(\"ada\")"]);
    (effect, principal, action, resource, when, note).prop_map(|(effect, principal, action, resource, when, note)| {
        let note = if effect == "permit" { note } else { "" };
        format!("{note}\n{effect}({principal}, {action}, {resource}) {when};\n")
    })
}

/// The satisfied permits and forbids, or only the latter, and the errors, as Cedar's own authorizer tells them.
fn authorizer(ask: &Ask<'_>, policies: &cedar_policy::PolicySet) -> (Vec<String>, Vec<(String, String)>) {
    let entities = (*ask.entities).as_ref();
    let response = Authorizer::new().is_authorized(ask.request.clone(), policies.as_ref(), entities);
    let mut reasons: Vec<_> = response.diagnostics.reason.iter().map(ToString::to_string).collect();
    let of = |error: &AuthorizationError| match error {
        AuthorizationError::PolicyEvaluationError { id, .. } => (id.to_string(), error.to_string()),
    };
    let mut errors: Vec<_> = response.diagnostics.errors.iter().map(of).collect();
    reasons.sort();
    errors.sort();
    (reasons, errors)
}

proptest! {
    /// Leaving policies out of a slice by their scope, scope tests out of a condition, and attributes out of a question
    /// that none of the slice looks at, changes no verdict, no reason and no error.
    #[test]
    fn conditions_and_cedars_authorizer_agree(policies in prop::collection::vec(policy(), 0..8)) {
        // Some combinations can never apply, which is an error at load; they are of no interest here.
        let loaded: Vec<_> = policies
            .into_iter()
            .filter(|text| Snapshot::load(settings(), super::super::fixture::source(text), 1).is_ok())
            .collect();
        let snapshot = snapshot(&loaded.concat());
        let State::Open(rules) = &snapshot.state else { panic!("it is open") };
        let whole = rules.whole();
        for (question, _) in TABLE {
            let line = Line::new(question);
            let Ok(ask) = Ask::new(&snapshot, rules, &line.question(), false, at(MONDAY)) else { continue };
            let Ok(all) = Ask::whole(&snapshot, rules, &line.question(), at(MONDAY)) else {
                return Err(TestCaseError::fail(format!("{question} can be asked, but not whole")));
            };
            let Said { permits, forbids, mut errors } = condition::ask(&ask);
            let determining = if forbids.is_empty() { permits } else { forbids };
            let mut reasons: Vec<_> = determining.iter().map(|rule| rule.id.clone()).collect();
            reasons.sort();
            errors.sort();
            prop_assert_eq!((reasons, errors), authorizer(&all, &whole), "{}", question);
        }
    }
}
