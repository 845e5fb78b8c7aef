use super::*;

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
