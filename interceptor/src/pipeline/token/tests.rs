use super::*;
use crate::config::{Pin, Protocol};

fn target(name: &str, host: &str, audiences: &[&str], issues: Option<Issues>) -> Arc<Target> {
    Arc::new(Target {
        name: name.parse().unwrap(),
        hosts: vec![host.parse().unwrap()],
        ports: vec![443],
        protocol: Protocol::Http,
        cleartext: false,
        credential: None,
        issues,
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        accept_foreign: Vec::new(),
        pin: Pin::default(),
        masks: Vec::new(),
    })
}

/// What is decided for one target and issued for another is for neither.
#[test]
fn a_token_is_for_the_target_that_was_decided_and_for_no_other() {
    const GUID: &str = "5d1f0c7e-64b2-4a39-9e80-c3b7a2165e11";
    let targets = Targets::new(vec![
        target("a", "a.example", &["api://a"], None),
        target("b", "b.example", &["api://b"], None),
        target("pass", "pass.example", &[], Some(Issues::Oidc("pass".parse().unwrap()))),
    ]);
    // What was asked for, what the request and the token say, and which of it is astray.
    let table: [(&str, &[&str], Option<&str>); 10] = [
        ("api://a", &["api://a"], None),
        ("api://a", &["https://a.example"], None),
        ("api://a", &["api://a", "https://A.example/"], None),
        ("api://a", &["api://a", GUID], None),
        ("api://a", &["api://a", "https://pass.example"], None),
        ("api://a", &["api://a", "api://b"], Some("api://b")),
        ("api://a", &["api://a", "https://b.example"], Some("https://b.example")),
        ("api://a", &[GUID], Some(GUID)),
        ("api://a", &[], Some("")),
        ("api://gone", &["api://gone"], Some("api://gone")),
    ];
    for (asked, audiences, expected) in table {
        let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        assert_eq!(stray(&targets, asked, &audiences).as_deref(), expected, "{asked}: {audiences:?}");
    }
}

fn request(form: &str, dialect: Dialect) -> endpoint::TokenRequest {
    endpoint::TokenRequest::parse(form.as_bytes(), None, dialect).unwrap()
}

#[test]
fn what_a_token_is_for_is_said_once_or_not_at_all() {
    let of = |form: &str, dialect| audience(&request(form, dialect), dialect).map_err(|fault| fault.code);
    let graph = "grant_type=refresh_token&client_id=x&scope=https://graph.microsoft.com/.default";
    assert_eq!(of(graph, Dialect::V2), Ok(Some("https://graph.microsoft.com".into())));
    assert_eq!(of("grant_type=refresh_token&scope=openid+profile", Dialect::V2), Ok(Some(GRAPH.into())));
    assert_eq!(of("grant_type=refresh_token", Dialect::V2), Ok(None));
    assert_eq!(
        of("grant_type=client_credentials&resource=https://vault.azure.net", Dialect::V1),
        Ok(Some("https://vault.azure.net".into()))
    );
    // What Entra overlooks says nothing of the token that it issues.
    let overlooked = "grant_type=refresh_token&refresh_token=0.R&audience=https://a.example&resource=https://a.example";
    assert_eq!(of(overlooked, Dialect::V2), Ok(None));
    let two = "grant_type=client_credentials&scope=api://a/.default+api://b/.default";
    assert_eq!(of(two, Dialect::V2), Err("token-request-two-audiences"));
}

#[test]
fn a_host_endpoint_is_asked_for_one_identity() {
    let (wanted, observing) = managed(Kind::Imds, "https://vault.azure.net/".into(), &Identity::System);
    assert!(observing.is_said && observing.tenant.is_none());
    let Wanted::Token { tenant, client, grant, scopes, audience } = wanted else { panic!("{wanted:?}") };
    assert_eq!((tenant.as_str(), client.as_str(), grant.as_str()), ("", "", "managed_identity"));
    assert_eq!(
        (scopes, audience.as_str()),
        (vec!["https://vault.azure.net/.default".to_owned()], "https://vault.azure.net/")
    );
}

#[test]
fn each_grant_has_the_name_that_policies_compare() {
    let of = |form: &str| grant(request(form, Dialect::V2).grant);
    let jwt = "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer";
    for (form, name) in [
        ("grant_type=client_credentials", "client_credentials"),
        ("grant_type=refresh_token", "refresh_token"),
        (&format!("{jwt}&requested_token_use=on_behalf_of"), "on_behalf_of"),
        (jwt, "jwt_bearer"),
        ("grant_type=authorization_code", "authorization_code"),
        ("grant_type=device_code", "device_code"),
        ("grant_type=password", "password"),
        ("grant_type=x", "other"),
    ] {
        assert_eq!(of(form), name, "{form}");
    }
}
