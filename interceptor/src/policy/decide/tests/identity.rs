//! What policy makes of who asks.

use super::super::super::fixture::{CLIENT, Line, MONDAY, OTHER_TENANT, TENANT, principal, snapshot, verdict};
use super::super::super::{Credential, Grants, Operation, Principal, PrincipalKind, Question, TokenRequest, decide};

const POLICIES: &str = r#"
@id("readers") permit(principal in Group::"crm-readers", action == Action::"http:GET", resource == Target::"graph");
@id("group-id") permit(principal in Group::"11111111-0000-4000-8000-000000000001/22222222-0000-4000-8000-000000000009",
  action == Action::"http:HEAD", resource == Target::"graph");
@id("role") permit(principal in Role::"11111111-0000-4000-8000-000000000001/api://crm/Crm.Write",
  action == Action::"http:POST", resource == Target::"graph");
@id("named-role") permit(principal in Role::"crm-writers", action == Action::"http:PUT", resource == Target::"graph");
@id("one") permit(principal == Identity::"11111111-0000-4000-8000-000000000001/33333333-0000-4000-8000-000000000003",
  action == Action::"http:PATCH", resource == Target::"graph");
@id("facts") permit(principal, action == Action::"http:DELETE", resource == Target::"graph") when {
  context.base.kind == "user" && context.base.client == "44444444-0000-4000-8000-000000000004" &&
  context.base.tenant == "11111111-0000-4000-8000-000000000001" && context.base.authentic == "issuer" &&
  context.base.bound == "issued-here" && context.base.credential == "entra" };
@id("person") permit(principal, action == Action::"http:OPTIONS", resource == Target::"graph") when {
  context.base has person &&
  context.base.person == Identity::"11111111-0000-4000-8000-000000000001/33333333-0000-4000-8000-000000000003" };
@id("tokens") permit(principal, action == Action::"token:request", resource == Target::"graph") when {
  context.token.grant == "client_credentials" && context.token.client == "44444444-0000-4000-8000-000000000004" &&
  context.token.scopes.contains("https://graph.microsoft.com/.default") &&
  context.token.tenant == "11111111-0000-4000-8000-000000000001" };
"#;

fn asked(line: &str, who: Option<Principal>) -> String {
    let mut line = Line::new(line);
    line.credential = if who.is_some() { Credential::Entra } else { Credential::None };
    line.principal = who;
    verdict(&decide(&snapshot(POLICIES), &line.question(), &Grants::default(), MONDAY.parse().unwrap()))
}

#[test]
fn groups_and_roles_go_by_their_id_and_by_their_name() {
    let group = |id: &str| Principal { groups: Some(vec![id.into()]), ..principal() };
    let role = |id: &str| Principal { roles: vec![id.into()], ..principal() };
    let readers = format!("{TENANT}/22222222-0000-4000-8000-000000000002");
    let other = format!("{TENANT}/22222222-0000-4000-8000-000000000009");
    let table = [
        ("GET", Some(group(&readers)), "allow readers"),
        ("GET", Some(group(&other)), "denied-by-default"),
        // The same group of another tenant is another group.
        ("GET", Some(group(&readers.replace(TENANT, OTHER_TENANT))), "denied-by-default"),
        ("GET", Some(principal()), "denied-by-default"),
        ("GET", None, "denied-by-default"),
        ("HEAD", Some(group(&other)), "allow group-id"),
        ("POST", Some(role(&format!("{TENANT}/api://crm/Crm.Write"))), "allow role"),
        ("POST", Some(role(&format!("{TENANT}/api://other/Crm.Write"))), "denied-by-default"),
        ("PUT", Some(role(&format!("{TENANT}/api://crm/Crm.Write"))), "allow named-role"),
        ("PATCH", Some(principal()), "allow one"),
        ("PATCH", None, "denied-by-default"),
    ];
    for (method, who, expected) in table {
        let line = format!("crm graph {method} graph.microsoft.com/v1.0/me");
        assert_eq!(asked(&line, who.clone()), expected, "{method} as {who:?}");
    }
}

/// Unknown groups are never no groups: a forbid on one would be passed over. Where no policy asks, they don't matter.
#[test]
fn unknown_groups_deny_where_a_policy_asks_for_them() {
    let unknown = Principal { groups: None, ..principal() };
    let asked = |method: &str| asked(&format!("crm graph {method} graph.microsoft.com/"), Some(unknown.clone()));
    assert_eq!(asked("GET"), "groups-unknown");
    assert_eq!(asked("PATCH"), "allow one");
    let snapshot = snapshot(POLICIES);
    let graph = "graph".parse().unwrap();
    assert!(snapshot.needs_groups(&graph, "http:GET") && !snapshot.needs_groups(&graph, "http:PATCH"));
}

#[test]
fn what_is_known_of_the_token_and_of_the_person_is_in_the_context() {
    let line = "crm graph DELETE graph.microsoft.com/v1.0/me";
    let user = Principal { kind: PrincipalKind::User, client: Some(CLIENT.parse().unwrap()), ..principal() };
    assert_eq!(asked(line, Some(user.clone())), "allow facts");
    assert_eq!(asked(line, Some(Principal { client: None, ..user.clone() })), "denied-by-default");
    assert_eq!(asked(line, Some(Principal { kind: PrincipalKind::AgentUser, ..user })), "denied-by-default");
    assert_eq!(asked(line, None), "denied-by-default");
    // The launching uid 1000 is a person in the settings.
    assert_eq!(asked("crm graph OPTIONS graph.microsoft.com/", None), "allow person");
}

/// A reload can take a tenant off the list while its tokens are in use.
#[test]
fn a_principal_of_a_realm_that_is_not_listed_is_denied() {
    let id = format!("{OTHER_TENANT}/33333333-0000-4000-8000-000000000003").parse().unwrap();
    let stranger = Principal { id, ..principal() };
    let all = r#"permit(principal, action, resource);"#;
    let mut line = Line::new("crm graph GET graph.microsoft.com/");
    line.principal = Some(stranger);
    assert_eq!(
        verdict(&decide(&snapshot(all), &line.question(), &Grants::default(), MONDAY.parse().unwrap())),
        "denied-by-default"
    );
    line.principal = Some(principal());
    assert_eq!(
        verdict(&decide(&snapshot(all), &line.question(), &Grants::default(), MONDAY.parse().unwrap())),
        "allow test.cedar:1"
    );
}

#[test]
fn a_token_request_is_decided_for_the_target_of_its_audience() {
    let line = Line::new("crm graph GET graph.microsoft.com/");
    let snapshot = snapshot(POLICIES);
    let scopes = ["https://graph.microsoft.com/.default".to_owned()];
    let asked = |tenant: &str, client: &str, grant: &str, scopes: &[String], audience: &str| {
        let request = TokenRequest { tenant, client, grant, scopes, audience };
        let question = Question { operation: Operation::Token(request), ..line.question() };
        verdict(&decide(&snapshot, &question, &Grants::default(), MONDAY.parse().unwrap()))
    };
    let graph = "https://graph.microsoft.com/";
    assert_eq!(asked(TENANT, CLIENT, "client_credentials", &scopes, graph), "allow tokens");
    assert_eq!(asked(OTHER_TENANT, CLIENT, "client_credentials", &scopes, graph), "denied-by-default");
    assert_eq!(asked(TENANT, "", "client_credentials", &scopes, graph), "denied-by-default");
    assert_eq!(asked(TENANT, CLIENT, "refresh_token", &scopes, graph), "denied-by-default");
    assert_eq!(asked(TENANT, CLIENT, "client_credentials", &[], graph), "denied-by-default");
    // The target in the question is not for tokens of this audience.
    assert_eq!(asked(TENANT, CLIENT, "client_credentials", &scopes, "api://other"), "denied-by-default");
}
