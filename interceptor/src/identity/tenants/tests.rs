use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::identity::fixture::{Script, TENANT, now};

fn bench() -> (Arc<Script>, Arc<ManualClock>, Tenants) {
    let (script, clock) = (Arc::new(Script::default()), Arc::new(ManualClock::at(now())));
    let tenants = Tenants::new(Cloud::default(), script.clone(), clock.clone());
    (script, clock, tenants)
}

fn discovery(name: &str) -> String {
    format!("https://login.microsoftonline.com/{name}/v2.0/.well-known/openid-configuration")
}

#[test]
fn a_paths_tenant_is_an_id_an_alias_or_a_domain_name() {
    let id = TenantName::Id(TENANT.parse().unwrap());
    let domain = |name: &str| Ok(TenantName::Domain(name.into()));
    let malformed = |name: &str| Err(TenantError::Malformed(name.into()));
    let cases = [
        (TENANT, Ok(id.clone())),
        ("AAAABBBB-0000-CCCC-1111-DDDD2222EEEE", Ok(id)),
        ("common", Ok(TenantName::Common)),
        ("Common", Ok(TenantName::Common)),
        ("organizations", Ok(TenantName::Organizations)),
        ("consumers", Ok(TenantName::Id(CONSUMERS))),
        ("Contoso.onmicrosoft.com", domain("contoso.onmicrosoft.com")),
        ("xn--bcher-kva.example", domain("xn--bcher-kva.example")),
        ("contoso", malformed("contoso")),
        ("", malformed("")),
        (".", malformed(".")),
        ("a..b", malformed("a..b")),
        ("a.b/c", malformed("a.b/c")),
        ("a.b?c", malformed("a.b?c")),
        ("-a.b", malformed("-a.b")),
        ("bücher.example", malformed("bücher.example")),
        ("{aaaabbbb-0000-cccc-1111-dddd2222eeee}", malformed("{aaaabbbb-0000-cccc-1111-dddd2222eeee}")),
    ];
    for (segment, expected) in cases {
        assert_eq!(TenantName::parse(segment), expected, "{segment}");
    }
    assert_eq!(CONSUMERS.to_string(), "9188040d-6c67-4c5b-b112-36a304b66dad");
}

#[tokio::test(start_paused = true)]
async fn a_domain_name_is_resolved_once() {
    let (script, _, tenants) = bench();
    let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    script.answer(&discovery("contoso.example"), json!({ "issuer": issuer }));
    for name in ["contoso.example", "CONTOSO.example", "contoso.example"] {
        assert_eq!(tenants.resolve(name).await, Ok(Tenant::One(TENANT.parse().unwrap())));
    }
    assert_eq!(script.asked(&discovery("contoso.example")), 1);
    assert_eq!(tenants.resolve("common").await, Ok(Tenant::Any));
    assert_eq!(tenants.resolve("consumers").await, Ok(Tenant::One(CONSUMERS)));
}

#[tokio::test(start_paused = true)]
async fn a_name_without_a_tenant_is_refused_and_remembered() {
    let (script, _, tenants) = bench();
    script.fail(&discovery("no.example"), FetchError::Status(400));
    script.answer(&discovery("odd.example"), json!({"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}));
    script.answer(&discovery("evil.example"), json!({"issuer": format!("https://evil.example/{TENANT}/v2.0")}));
    for name in ["no.example", "odd.example", "evil.example"] {
        for _ in 0..3 {
            assert_eq!(tenants.resolve(name).await, Err(TenantError::Unknown(name.into())));
        }
        assert_eq!(script.asked(&discovery(name)), 1, "{name}");
    }
    script.fail(&discovery("down.example"), FetchError::Status(503));
    for _ in 0..2 {
        assert_eq!(tenants.resolve("down.example").await.unwrap_err().code(), "tenant-unresolved");
    }
    assert_eq!(script.asked(&discovery("down.example")), 2, "a fault isn't remembered");
}

#[tokio::test(start_paused = true)]
async fn made_up_names_cause_few_lookups() {
    let (_, clock, tenants) = bench();
    let mut codes = Vec::new();
    for n in 0..100 {
        codes.push(tenants.resolve(&format!("n{n}.example")).await.unwrap_err().code());
    }
    assert_eq!(codes.iter().filter(|code| **code == "tenant-unknown").count(), LOOKUPS_PER_MINUTE);
    assert_eq!(codes.last(), Some(&"tenant-lookups"));
    clock.set(now() + SignedDuration::from_secs(60));
    assert_eq!(tenants.resolve("later.example").await.unwrap_err().code(), "tenant-unknown");
}
