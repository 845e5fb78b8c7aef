use proptest::prelude::*;

use super::*;
use crate::identity::fixture::{CLIENT, OBJECT, TENANT};

fn ask(kind: Kind, method: &str, path: &str, query: &str) -> Result<Ask, &'static str> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    recognise(kind, method, &segments, query).map_err(|error| error.code())
}

fn token(tenant: &str, dialect: Dialect) -> Ask {
    Ask::Token { tenant: Some(tenant.into()), dialect }
}

#[test]
fn requests_to_a_login_host_are_told_apart() {
    let metadata = |tenant: &str| Ask::Metadata { tenant: Some(tenant.into()) };
    let other = |tenant: Option<&str>| Ask::Other { tenant: tenant.map(str::to_owned) };
    let device = |tenant: &str, dialect| Ask::DeviceCode { tenant: Some(tenant.into()), dialect };
    let cases = [
        ("POST", format!("/{TENANT}/oauth2/v2.0/token"), token(TENANT, Dialect::V2)),
        ("POST", format!("/{TENANT}/oauth2/token"), token(TENANT, Dialect::V1)),
        ("POST", "/contoso.onmicrosoft.com/oauth2/v2.0/token".into(), token("contoso.onmicrosoft.com", Dialect::V2)),
        ("POST", "/common/oauth2/v2.0/token".into(), token("common", Dialect::V2)),
        ("POST", "/oauth2/token".into(), token("common", Dialect::V1)),
        ("POST", "/oauth2/v2.0/token".into(), token("common", Dialect::V2)),
        // What servers overlook.
        ("POST", format!("/{}/OAuth2/V2.0/Token", TENANT.to_uppercase()), token(TENANT, Dialect::V2)),
        ("POST", format!("/{TENANT}/oauth2/v2.0/token/"), token(TENANT, Dialect::V2)),
        ("POST", format!("//{TENANT}//oauth2/v2.0/token"), token(TENANT, Dialect::V2)),
        ("PUT", format!("/{TENANT}/oauth2/token"), token(TENANT, Dialect::V1)),
        (
            "POST",
            "/contoso.onmicrosoft.com/b2c_1_x/oauth2/v2.0/token".into(),
            token("contoso.onmicrosoft.com", Dialect::V2),
        ),
        ("POST", format!("/{TENANT}/oauth2/v2.0/devicecode"), device(TENANT, Dialect::V2)),
        ("GET", format!("/{TENANT}/oauth2/devicecode"), device(TENANT, Dialect::V1)),
        ("GET", format!("/{TENANT}/v2.0/.well-known/openid-configuration"), metadata(TENANT)),
        ("GET", "/common/.well-known/openid-configuration".into(), metadata("common")),
        ("GET", "/common/discovery/instance".into(), metadata("common")),
        ("GET", format!("/{TENANT}/discovery/v2.0/keys"), metadata(TENANT)),
        ("GET", "/common/discovery/keys".into(), metadata("common")),
        ("GET", format!("/{TENANT}/oauth2/v2.0/authorize"), other(Some(TENANT))),
        ("GET", format!("/{TENANT}/oauth2/v2.0/token"), other(Some(TENANT))),
        ("POST", "/common/GetCredentialType".into(), other(Some("common"))),
        ("GET", "/favicon.ico".into(), other(Some("favicon.ico"))),
        ("GET", "/".into(), other(None)),
        ("POST", "/kmsi".into(), other(None)),
    ];
    for (method, path, expected) in cases {
        assert_eq!(ask(Kind::Entra, method, &path, ""), Ok(expected), "{method} {path}");
    }
}

#[test]
fn requests_to_host_endpoints_say_whose_token_for_what() {
    let of = |resource: Option<&str>, identity| {
        Ok(Ask::ManagedIdentity(ManagedIdentity { resource: resource.map(str::to_owned), identity }))
    };
    let vault = Some("https://vault.azure.net");
    let client = Identity::Client(CLIENT.parse().unwrap());
    let object = Identity::Object(OBJECT.parse().unwrap());
    let resource = Identity::Resource("/subscriptions/s/id".into());
    let imds = "/metadata/identity/oauth2/token";
    let q = "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
    let cases = [
        (Kind::Imds, "GET", imds, q.to_owned(), of(vault, Identity::System)),
        (Kind::Arc, "GET", "/Metadata/Identity/OAuth2/Token", q.to_owned(), of(vault, Identity::System)),
        (Kind::Imds, "GET", imds, String::new(), of(None, Identity::System)),
        (Kind::Imds, "GET", imds, format!("{q}&client_id={CLIENT}"), of(vault, client.clone())),
        (Kind::Imds, "GET", imds, format!("{q}&object_id={OBJECT}"), of(vault, object.clone())),
        (Kind::Imds, "GET", imds, format!("{q}&msi_res_id=%2Fsubscriptions%2Fs%2Fid"), of(vault, resource.clone())),
        (Kind::AppService, "GET", "/msi/token", format!("{q}&mi_res_id=/subscriptions/s/id"), of(vault, resource)),
        (Kind::AppService, "GET", "/msi/token", format!("{q}&principal_id={OBJECT}"), of(vault, object)),
        (Kind::AppService, "GET", "/msi/token/", format!("{q}&clientid={CLIENT}"), of(vault, client)),
        (
            Kind::Imds,
            "GET",
            imds,
            format!("{q}&resource=https://graph.microsoft.com"),
            Err("identity-request-ambiguous"),
        ),
        (Kind::Imds, "GET", imds, format!("{q}&RESOURCE=x"), Err("identity-request-ambiguous")),
        (Kind::Imds, "GET", imds, format!("client_id={CLIENT}&object_id={OBJECT}"), Err("identity-request-ambiguous")),
        (Kind::Imds, "GET", imds, "client_id=me".into(), Err("identity-request-malformed")),
        (Kind::Imds, "POST", imds, q.to_owned(), Ok(Ask::Other { tenant: None })),
        (Kind::Imds, "GET", "/metadata/instance", String::new(), Ok(Ask::Other { tenant: None })),
        (Kind::Imds, "GET", "/metadata/identity/info", String::new(), Ok(Ask::Metadata { tenant: None })),
        (Kind::AppService, "GET", "/msi", String::new(), Ok(Ask::Other { tenant: None })),
    ];
    for (kind, method, path, query, expected) in cases {
        assert_eq!(ask(kind, method, path, &query), expected, "{path}?{query}");
    }
}

#[test]
fn requests_to_another_provider_are_told_by_the_usual_paths() {
    let token = || Ok(Ask::Token { tenant: None, dialect: Dialect::Oidc });
    for path in ["/token", "/oauth/token", "/realms/x/protocol/openid-connect/token", "/oauth2/default/v1/token"] {
        assert_eq!(ask(Kind::Oidc, "POST", path, ""), token(), "{path}");
    }
    let device = Ok(Ask::DeviceCode { tenant: None, dialect: Dialect::Oidc });
    assert_eq!(ask(Kind::Oidc, "POST", "/oauth/device/code", ""), device);
    let metadata = Ok(Ask::Metadata { tenant: None });
    assert_eq!(ask(Kind::Oidc, "GET", "/.well-known/openid-configuration", ""), metadata);
    assert_eq!(ask(Kind::Oidc, "GET", "/userinfo", ""), Ok(Ask::Other { tenant: None }));
}

const SECRET: &str = "Wq8Q~the-secret";

/// An unsigned assertion for this subject.
fn assertion(subject: &str) -> String {
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode("{}"), encode(&format!(r#"{{"sub":"{subject}"}}"#)), encode("s"))
}

#[test]
fn token_requests_tell_grant_client_and_audience() {
    let client = format!("client_id={CLIENT}&client_secret={SECRET}");
    let jwt = "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=e30.e30.x";
    let cases: [(Dialect, String, Grant, Credential, &[&str]); 19] = [
        (
            Dialect::V2,
            format!("{client}&grant_type=client_credentials&scope=https://graph.microsoft.com/.default"),
            Grant::ClientCredentials,
            Credential::Secret,
            &["https://graph.microsoft.com"],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=client_credentials&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default"),
            Grant::ClientCredentials,
            Credential::Secret,
            &["https://graph.microsoft.com"],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=client_credentials&scope=https://database.windows.net//.default"),
            Grant::ClientCredentials,
            Credential::Secret,
            &["https://database.windows.net/"],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=client_credentials&scope=api://{CLIENT}/.default"),
            Grant::ClientCredentials,
            Credential::Secret,
            &["api://11112222-bbbb-3333-cccc-4444dddd5555"],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=client_credentials&scope={CLIENT}/.default"),
            Grant::ClientCredentials,
            Credential::Secret,
            &[CLIENT],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=client_credentials&scope={CLIENT}"),
            Grant::ClientCredentials,
            Credential::Secret,
            &[CLIENT],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=client_credentials&scope=api://x"),
            Grant::ClientCredentials,
            Credential::Secret,
            &["api://x"],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=refresh_token&refresh_token=0.R&scope=User.Read+offline_access"),
            Grant::RefreshToken,
            Credential::Secret,
            &[GRAPH],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=refresh_token&refresh_token=0.R&scope=openid+profile+offline_access"),
            Grant::RefreshToken,
            Credential::Secret,
            &[],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=refresh_token&refresh_token=0.R"),
            Grant::RefreshToken,
            Credential::Secret,
            &[],
        ),
        (
            Dialect::V2,
            format!("{client}&grant_type=refresh_token&scope=User.Read+https://vault.azure.net/user_impersonation"),
            Grant::RefreshToken,
            Credential::Secret,
            &[GRAPH, "https://vault.azure.net"],
        ),
        (
            Dialect::V2,
            format!("{client}&{jwt}&requested_token_use=on_behalf_of&scope=https://graph.microsoft.com/User.Read"),
            Grant::OnBehalfOf,
            Credential::Secret,
            &[GRAPH],
        ),
        (Dialect::V2, format!("{client}&{jwt}&scope=User.Read"), Grant::JwtBearer, Credential::Secret, &[GRAPH]),
        (
            Dialect::V2,
            format!("client_id={CLIENT}&grant_type=authorization_code&code=0.A&code_verifier=v&scope=Mail.Send"),
            Grant::AuthorizationCode,
            Credential::None,
            &[GRAPH],
        ),
        (
            Dialect::V2,
            format!("client_id={CLIENT}&grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=d"),
            Grant::DeviceCode,
            Credential::None,
            &[],
        ),
        (
            Dialect::V2,
            format!("client_id={CLIENT}&grant_type=password&username=a&password=b&scope=User.Read"),
            Grant::Password,
            Credential::None,
            &[GRAPH],
        ),
        (
            Dialect::V1,
            format!("{client}&grant_type=client_credentials&resource=https://vault.azure.net&scope=openid"),
            Grant::ClientCredentials,
            Credential::Secret,
            &["https://vault.azure.net"],
        ),
        (
            Dialect::V2,
            format!("{}&client_id={CLIENT}&grant_type=client_credentials&scope=x/.default", federated()),
            Grant::ClientCredentials,
            Credential::Assertion,
            &["x"],
        ),
        (
            Dialect::Oidc,
            format!("{client}&grant_type=urn:x:new&resource=https://a&resource=https://b&scope=read"),
            Grant::Other,
            Credential::Secret,
            &["https://a", "https://b"],
        ),
    ];
    for (dialect, form, grant, credential, audiences) in cases {
        let request = TokenRequest::parse(form.as_bytes(), None, dialect).unwrap();
        assert_eq!((request.grant, request.credential), (grant, credential), "{form}");
        assert_eq!(request.audiences, audiences, "{form}");
        assert_eq!(request.client_id(), Some(CLIENT.parse().unwrap()), "{form}");
        let kept = format!("{request:?}{}", serde_json::to_string(&request).unwrap());
        assert!(!kept.contains(SECRET) && !kept.contains("0.R") && !kept.contains("e30"), "{kept}");
    }
}

/// Whose field it is that says what a token is for.
#[test]
fn each_dialect_has_its_own_audience() {
    let of = |form: &str, dialect| TokenRequest::parse(form.as_bytes(), None, dialect).unwrap().audiences;
    let all = "grant_type=refresh_token&audience=https://a&resource=https://b&scope=https://c/.default";
    assert_eq!(of(all, Dialect::V1), ["https://b"]);
    assert_eq!(of(all, Dialect::V2), ["https://c"]);
    assert_eq!(of(all, Dialect::Oidc), ["https://b", "https://a"]);
    let sole = "grant_type=refresh_token&audience=https://a";
    assert_eq!(of(sole, Dialect::V1).len() + of(sole, Dialect::V2).len(), 0);
    assert_eq!(of(sole, Dialect::Oidc), ["https://a"]);
}

#[test]
fn a_form_is_one_by_a_single_type_in_utf8() {
    let form = "application/x-www-form-urlencoded";
    let code = |fields: &[&str]| check_type(fields.iter().map(|field| field.as_bytes())).map_err(|error| error.code());
    for good in [
        "",
        ";charset=utf-8",
        "; charset=UTF-8",
        "; Charset=\"utf-8\"",
        "; charset=utf8",
        "; charset=ISO-8859-1",
        ";",
        "; odata=x",
    ] {
        assert_eq!(code(&[&format!("{form}{good}")]), Ok(()), "{good}");
    }
    for bad in ["; charset=utf-16", ";charset=IBM037", "; charset=utf-8; charset=utf-7", "; charset=", ", text/plain"] {
        assert_eq!(code(&[&format!("{form}{bad}")]), Err("token-request-ambiguous"), "{bad}");
    }
    assert_eq!(code(&[form, form]), Err("token-request-ambiguous"));
    assert_eq!(code(&[form, "application/json"]), Err("token-request-ambiguous"));
    let others: [&[&str]; 4] = [&[], &["application/json"], &["multipart/form-data; boundary=x"], &[""]];
    for none in others {
        assert_eq!(code(none), Err("token-request-malformed"), "{none:?}");
    }
}

#[test]
fn what_decides_is_in_the_body_only() {
    let sdks = "client-request-id=5d1f&haschrome=1&api-version=1.0&p=b2c_1_x&dc=ESTS-PUB&brk_client_id=x";
    for good in ["", sdks, "client=x", "tenant=x"] {
        assert_eq!(check_query(good), Ok(()), "{good}");
    }
    for bad in ["scope=x", "a=b&client_id=x", "RESOURCE=x", "client%5Fid=x", "code", "audience=", "+grant_type=x"] {
        let error = check_query(bad).map_err(|error| error.code());
        assert_eq!(error, Err("token-request-ambiguous"), "{bad}");
    }
}

fn federated() -> String {
    format!(
        "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion={}",
        assertion("system:serviceaccount:a:b")
    )
}

#[test]
fn the_client_may_be_said_elsewhere_but_not_differently() {
    use base64::Engine;
    let basic =
        |name: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{SECRET}")));
    let grant = "grant_type=client_credentials";
    let client = |form: &str, header: Option<&str>| {
        TokenRequest::parse(form.as_bytes(), header, Dialect::V2).map(|request| request.client).map_err(|e| e.code())
    };
    let same = format!("{grant}&client_id={CLIENT}");
    assert_eq!(client(grant, Some(&basic(CLIENT))), Ok(Some(CLIENT.into())));
    assert_eq!(client(grant, Some(&basic("app%3A1"))), Ok(Some("app:1".into())));
    assert_eq!(client(&same, Some(&basic(CLIENT))), Ok(Some(CLIENT.into())));
    assert_eq!(client(&same, Some(&basic(OBJECT))), Err("token-request-two-clients"));
    assert_eq!(client(grant, Some("Bearer x")), Err("token-request-malformed"));
    assert_eq!(client(grant, Some("Basic !")), Err("token-request-malformed"));
    assert_eq!(client(&format!("{grant}&client_assertion={}", assertion(CLIENT)), None), Ok(Some(CLIENT.into())));
    assert_eq!(client(&format!("{same}&{}", federated()), None), Ok(Some(CLIENT.into())));
    assert_eq!(client(&format!("{grant}&client_assertion=x"), None), Err("token-request-malformed"));
    assert_eq!(client(&format!("{grant}&client_assertion=e30.e30.x"), None), Err("token-request-incomplete"));
    assert_eq!(client(grant, None), Ok(None));
}

#[test]
fn a_form_that_reads_in_two_ways_is_refused() {
    let cases = [
        ("grant_type=password&grant_type=client_credentials".to_owned(), "token-request-duplicate-field"),
        ("grant_type=password&GRANT_TYPE=client_credentials".into(), "token-request-duplicate-field"),
        ("grant_type=password&grant%5ftype=client_credentials".into(), "token-request-duplicate-field"),
        ("grant_type=refresh_token&resource=a&resource=b".into(), "token-request-duplicate-field"),
        ("grant_type=password&x=%ff".into(), "token-request-malformed"),
        ("grant_type=password&client_id=a%0ab".into(), "token-request-malformed"),
        (format!("grant_type=password&client_id={}", "a".repeat(2049)), "token-request-malformed"),
        ("scope=User.Read".into(), "token-request-incomplete"),
        ("grant_type=".into(), "token-request-incomplete"),
        (String::new(), "token-request-incomplete"),
        (format!("grant_type=password&x={}", "a".repeat(MAX_FORM)), "token-request-too-large"),
        ((0..65).map(|n| format!("f{n}=1&")).collect(), "token-request-too-large"),
        (format!("grant_type=password&scope={}", "a+".repeat(257)), "token-request-too-large"),
        (r#"{"grant_type":"client_credentials"}"#.into(), "token-request-incomplete"),
    ];
    for (form, code) in cases {
        let parsed = TokenRequest::parse(form.as_bytes(), None, Dialect::V2);
        assert_eq!(parsed.map_err(|error| error.code()), Err(code), "{}", &form[..form.len().min(60)]);
    }
}

#[test]
fn answers_are_read_and_never_shown() {
    use jiff::Timestamp;
    let now = Timestamp::from_second(1_000).unwrap();
    type Row<'a> = (&'a str, Result<(bool, Option<i64>, Option<&'a str>), &'a str>);
    let cases: [Row<'_>; 18] = [
        (r#"{"token_type":"Bearer","expires_in":3599,"access_token":"tok"}"#, Ok((true, Some(4_599), None))),
        (
            r#"{"token_type":"Bearer","expires_in":"3599","expires_on":"7000","access_token":"tok"}"#,
            Ok((true, Some(7_000), None)),
        ),
        (r#"{"access_token":"tok","expires_on":7000,"resource":"x","client_id":"y"}"#, Ok((true, Some(7_000), None))),
        (r#"{"access_token":"tok","expires_on":"1/2/2030 3:04:05 PM +00:00"}"#, Ok((true, None, None))),
        (r#"{"access_token":"tok"}"#, Ok((true, None, None))),
        (
            r#"{"error":"invalid_client","error_description":"AADSTS7000215"}"#,
            Ok((false, None, Some("invalid_client"))),
        ),
        (r#"{"error":{"code":"x"}}"#, Ok((false, None, Some("other")))),
        (r#"{"error":"a b\u001b"}"#, Ok((false, None, Some("other")))),
        (r#"{"error":"authorization_pending"}"#, Ok((false, None, Some("authorization_pending")))),
        (r#"{"access_token":null}"#, Ok((false, None, None))),
        (r#"{"access_token":""}"#, Ok((false, None, None))),
        (r#"{"access_token":["tok"]}"#, Err("token-answer-malformed")),
        (r#"{"access_token":"tok","expires_in":"soon"}"#, Err("token-answer-malformed")),
        (r#"{"access_token":"tok","expires_in":-1}"#, Err("token-answer-malformed")),
        (r#"{"access_token":"tok","expires_in":99999999999}"#, Err("token-answer-malformed")),
        (r#"{"access_token":"a","access_token":"b"}"#, Err("token-answer-not-json")),
        ("<html>", Err("token-answer-not-json")),
        ("", Err("token-answer-not-json")),
    ];
    for (body, expected) in cases {
        let answer = Answer::parse(body.as_bytes());
        assert!(!format!("{answer:?}").contains("tok\""), "{answer:?}");
        let seen = answer.as_ref().map_err(AnswerError::code).map(|answer| {
            (answer.access_token.is_some(), answer.expiry(now).map(Timestamp::as_second), answer.error.as_deref())
        });
        assert_eq!(seen, expected, "{body}");
    }
    let huge = format!(r#"{{"x":"{}"}}"#, "a".repeat(crate::identity::MAX_DOCUMENT));
    assert_eq!(Answer::parse(huge.as_bytes()).unwrap_err().code(), "token-answer-too-large");
    let answer =
        Answer::parse(br#"{"access_token":"a\u0062c","refresh_token":"r","id_token":"i","token_type":"PoP"}"#).unwrap();
    assert_eq!(answer.access_token.unwrap().expose(), "abc");
    assert!(answer.has_refresh_token && answer.has_id_token);
    assert_eq!(answer.token_type.as_deref(), Some("pop"));
}

proptest! {
    #[test]
    fn whatever_is_sent_is_answered(body in proptest::collection::vec(any::<u8>(), 0..400), text in ".{0,200}") {
        let _ = TokenRequest::parse(&body, Some(&text), Dialect::V2);
        let _ = TokenRequest::parse(text.as_bytes(), None, Dialect::Oidc);
        let _ = Answer::parse(&body);
        let _ = Answer::parse(text.as_bytes());
        let _ = crate::identity::Token::parse(&text);
        let _ = ask(Kind::Imds, "GET", "/metadata/identity/oauth2/token", &text);
        let _ = ask(Kind::Entra, "POST", &text, "");
    }

    #[test]
    fn a_form_with_known_fields_is_read_or_refused(
        fields in proptest::collection::vec(
            (prop_oneof![Just("grant_type"), Just("scope"), Just("client_id"), Just("client_assertion"), Just("resource")], "[a-z:/. %]{0,30}"),
            0..8,
        ),
    ) {
        let form: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let Ok(request) = TokenRequest::parse(form.join("&").as_bytes(), None, Dialect::V2) {
            let mut audiences = request.audiences.clone();
            audiences.dedup();
            prop_assert_eq!(audiences.len(), request.audiences.len());
            prop_assert!(fields.iter().any(|(name, _)| *name == "grant_type"));
        }
    }

    #[test]
    fn whatever_claims_say_is_read_or_refused(
        fields in proptest::collection::vec(
            (prop_oneof![Just("tid"), Just("oid"), Just("exp"), Just("aud"), Just("groups"), Just("xms_sub_fct"), Just("scp")],
             prop_oneof![Just("1"), Just("\"11\""), Just("[]"), Just("null"), Just("{}"), Just("[\"a\",{}]"), Just("1e400"), Just("-0.5"), Just("\"\"")]),
            0..8,
        ),
    ) {
        use crate::identity::fixture::encode;
        let members: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        let text = format!("{}.{}.AAAA", encode(r#"{"alg":"RS256"}"#), encode(format!("{{{}}}", members.join(","))));
        if let Ok(token) = crate::identity::Token::parse(&text) {
            prop_assert!(token.claims().object().is_err(), "no GUID among the values");
        }
    }
}
