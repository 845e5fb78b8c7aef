use serde_json::{Value, json};

use super::*;
use crate::identity::fixture::{AUDIENCE, NOW, OBJECT, OTHER_TENANT, TENANT, claims, jwk, now, sign, token};

fn keys(keys: Value) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), "https://keys").unwrap()
}

fn entra() -> Issuer {
    Issuer::Entra { cloud: Cloud::default(), tenant: TENANT.parse().unwrap() }
}

/// The code of the verdict on a token; empty if it is believed.
fn verdict(text: &str, keys: &KeySet, issuer: &Issuer, ps256: bool) -> &'static str {
    let audiences = [AUDIENCE.to_owned(), "11110000-0000-0000-0000-000000000001".to_owned()];
    let expected = Expected { issuer, audiences: &audiences, ps256 };
    let token = match Token::parse(text) {
        Ok(token) => token,
        Err(error) => return error.code(),
    };
    verify(&token, keys, &expected, now()).map_or_else(|error| error.code(), |()| "")
}

#[test]
fn only_what_the_issuer_says_to_us_now_is_believed() {
    let set = keys(json!([jwk(0, "one", json!({"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}))]));
    let v1 = |tenant: &str| json!({"iss": format!("https://sts.windows.net/{tenant}/"), "ver": "1.0"});
    let v2 = |rest: &str| json!({"iss": format!("https://login.microsoftonline.com/{TENANT}{rest}")});
    let cases = [
        ("version 2", json!({}), ""),
        ("version 1", v1(TENANT), ""),
        ("a list of audiences", json!({"aud": ["x", AUDIENCE]}), ""),
        ("the audience as a GUID", json!({"aud": "11110000-0000-0000-0000-000000000001"}), ""),
        ("another audience", json!({"aud": "api://other"}), "token-audience"),
        ("an audience in another case", json!({"aud": "API://interceptor"}), "token-audience"),
        ("an audience with a slash", json!({"aud": "api://interceptor/"}), "token-audience"),
        ("no audience", json!({"aud": null}), "token-claim-missing"),
        ("no audience in the list", json!({"aud": []}), "token-claim-missing"),
        ("no issuer", json!({"iss": null}), "token-claim-missing"),
        ("another tenant's issuer", v1(OTHER_TENANT), "token-issuer"),
        ("version 1 without its slash", json!({"iss": format!("https://sts.windows.net/{TENANT}")}), "token-issuer"),
        ("version 2 without its end", v2(""), "token-issuer"),
        ("version 2 with a slash", v2("/v2.0/"), "token-issuer"),
        ("a version that isn't", v2("/v3.0"), "token-issuer"),
        ("http", json!({"iss": format!("http://login.microsoftonline.com/{TENANT}/v2.0")}), "token-issuer"),
        (
            "a host that looks like it",
            json!({"iss": format!("https://login.microsoftonline.com.evil/{TENANT}/v2.0")}),
            "token-issuer",
        ),
        ("the template itself", json!({"iss": "https://login.microsoftonline.com/{tenantid}/v2.0"}), "token-issuer"),
        (
            "the tenant in upper case",
            json!({"iss": format!("https://login.microsoftonline.com/{}/v2.0", TENANT.to_uppercase())}),
            "token-issuer",
        ),
        ("tid of another tenant", json!({"tid": OTHER_TENANT}), "token-tenant"),
        ("no tid", json!({"tid": null}), "token-claim-missing"),
        ("no oid", json!({"oid": null}), "token-claim-missing"),
        ("version 1 in a token of version 2", json!({"ver": "1.0"}), "token-version"),
        (
            "version 2 in a token of version 1",
            json!({"iss": format!("https://sts.windows.net/{TENANT}/")}),
            "token-version",
        ),
        ("a version of its own", json!({"ver": "3.0"}), "token-version"),
        ("a version that is a number", json!({"ver": 2}), "token-version"),
        ("no version", json!({"ver": null}), "token-claim-missing"),
        ("no end", json!({"exp": null}), "token-claim-missing"),
        ("ended a moment ago", json!({"exp": NOW - 59}), ""),
        ("ended", json!({"exp": NOW - 60}), "token-expired"),
        ("ended in 1970", json!({"exp": 0}), "token-expired"),
        ("begins in a moment", json!({"nbf": NOW + 60}), ""),
        ("hasn't begun", json!({"nbf": NOW + 61}), "token-not-yet-valid"),
        ("no beginning", json!({"nbf": null}), ""),
    ];
    for (what, changes, code) in cases {
        assert_eq!(verdict(&token(&claims(changes)), &set, &entra(), false), code, "{what}");
    }
}

#[test]
fn only_the_issuers_keys_count_and_only_for_what_they_are() {
    let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
    let at = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
    let set = keys(json!([
        jwk(0, "one", json!({"issuer": template})),
        jwk(0, "old", json!({"issuer": "https://sts.windows.net/{tenantid}/"})),
        jwk(0, "own", json!({"issuer": at(TENANT)})),
        jwk(0, "silent", json!({})),
        jwk(0, "foreign", json!({"issuer": at(OTHER_TENANT)})),
        jwk(0, "cloud", json!({"issuer": "https://login.microsoftonline.us/{tenantid}/v2.0"})),
        jwk(0, "rs", json!({"alg": "RS256"})),
        jwk(0, "ps", json!({"alg": "PS256"})),
        jwk(1, "two", json!({})),
        jwk(0, "enc", json!({"use": "enc"})),
    ]));
    let good = claims(json!({})).to_string();
    let rs = |kid: &str| sign(0, &format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#), &good);
    let ps = |kid: &str| sign(0, &format!(r#"{{"alg":"PS256","kid":"{kid}"}}"#), &good);
    let (header, rest) = rs("one").split_once('.').map(|(h, r)| (h.to_owned(), r.to_owned())).unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let other = crate::identity::fixture::encode(claims(json!({"roles": ["admin"]})).to_string());
    let cases = [
        ("a template", rs("one"), false, ""),
        ("version 1's template", rs("old"), false, ""),
        ("the tenant's own", rs("own"), false, ""),
        ("no issuer on the key", rs("silent"), false, ""),
        ("another tenant's key", rs("foreign"), false, "token-key-issuer"),
        ("another cloud's key", rs("cloud"), false, "token-key-issuer"),
        ("a key for RS256", rs("rs"), false, ""),
        ("a key for PS256", rs("ps"), true, "token-key-issuer"),
        ("a key for encryption", rs("enc"), false, "token-key-unknown"),
        ("a key of nobody", rs("nine"), false, "token-key-unknown"),
        ("signed by another key", rs("two"), false, "token-signature"),
        ("no key", sign(0, r#"{"alg":"RS256"}"#, &good), false, "token-key-missing"),
        ("PS256 where it is accepted", ps("silent"), true, ""),
        ("PS256 by its key", ps("ps"), true, ""),
        ("PS256 by a key for RS256", ps("rs"), true, "token-key-issuer"),
        ("PS256 where it isn't accepted", ps("silent"), false, "token-algorithm-not-accepted"),
        ("Graph's", sign(0, r#"{"alg":"RS256","kid":"one","nonce":"n"}"#, &good), false, "token-not-verifiable"),
        ("other claims under the signature", format!("{header}.{other}.{signature}"), false, "token-signature"),
        ("a signature cut short", format!("{header}.{payload}.{}", &signature[..340]), false, "token-signature"),
        (
            "the other padding",
            rs("one").replacen(&header, &crate::identity::fixture::encode(r#"{"alg":"PS256","kid":"one"}"#), 1),
            true,
            "token-signature",
        ),
    ];
    for (what, text, ps256, code) in cases {
        assert_eq!(verdict(&text, &set, &entra(), ps256), code, "{what}");
    }
}

#[test]
fn another_provider_is_taken_by_its_exact_name() {
    let set = keys(json!([jwk(0, "one", json!({}))]));
    let provider = Issuer::Oidc("https://idp.example".into());
    let token_of = |iss: &str| token(&json!({"iss": iss, "sub": "x", "aud": AUDIENCE, "exp": NOW + 60}));
    assert_eq!(verdict(&token_of("https://idp.example"), &set, &provider, false), "");
    assert_eq!(verdict(&token_of("https://idp.example/"), &set, &provider, false), "token-issuer");
    assert_eq!(verdict(&token(&claims(json!({}))), &set, &provider, false), "token-issuer");
    assert_eq!(verdict(&token_of("https://idp.example"), &set, &entra(), false), "token-issuer");
}

#[test]
fn another_clouds_tokens_are_its_own() {
    let cloud = Cloud {
        login: "https://login.partner.microsoftonline.cn".into(),
        sts: "https://sts.chinacloudapi.cn".into(),
        graph: "https://microsoftgraph.chinacloudapi.cn".into(),
    };
    let issuer = Issuer::Entra { cloud, tenant: TENANT.parse().unwrap() };
    let set = keys(json!([jwk(0, "one", json!({}))]));
    let own = json!({"iss": format!("https://sts.chinacloudapi.cn/{TENANT}/"), "ver": "1.0", "oid": OBJECT});
    assert_eq!(verdict(&token(&claims(own)), &set, &issuer, false), "");
    assert_eq!(verdict(&token(&claims(json!({}))), &set, &issuer, false), "token-issuer");
}

#[test]
fn every_reason_has_a_code_of_its_own_and_a_text_to_tell() {
    use crate::identity::jwt::Part;
    let all = [
        TokenError::TooLong,
        TokenError::Encrypted,
        TokenError::NotCompact,
        TokenError::NotAnObject(Part::Header),
        TokenError::DuplicateKey(Part::Claims),
        TokenError::TooDeep(Part::Claims),
        TokenError::Algorithm,
        TokenError::Critical,
        TokenError::ClaimMalformed("tid"),
        TokenError::ClaimMissing("tid"),
        TokenError::AlgorithmNotAccepted,
        TokenError::OnlyItsService,
        TokenError::Issuer,
        TokenError::Tenant,
        TokenError::Version,
        TokenError::Audience,
        TokenError::Expired,
        TokenError::NotYetValid,
        TokenError::KeyMissing,
        TokenError::KeyUnknown,
        TokenError::KeyNotForIssuer,
        TokenError::Signature,
    ];
    let codes: std::collections::BTreeSet<_> = all.iter().map(TokenError::code).collect();
    assert_eq!(codes.len(), all.len());
    let documented = include_str!("../../../../docs/identity.md");
    for error in &all {
        assert!(error.to_string().starts_with("the token"), "{error}");
        assert!(documented.contains(&format!("`{}`", error.code())), "{} isn't documented", error.code());
    }
}
