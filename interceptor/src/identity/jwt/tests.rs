use serde_json::json;

use super::*;
use crate::identity::Groups;
use crate::identity::fixture::{CLIENT, OBJECT, TENANT, claims, encode, sign, token};
use crate::policy::PrincipalKind;

const HEADER: &str = r#"{"alg":"RS256","kid":"one"}"#;

/// A token whose signature nobody checks here.
fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}.{}", encode(header), encode(claims), encode("signature"))
}

#[test]
fn a_token_that_isnt_of_the_form_is_refused_with_its_code() {
    let good = claims(json!({})).to_string();
    let with = |changes| unsigned(HEADER, &claims(changes).to_string());
    let nested = |depth: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let cases = [
        ("nothing", String::new(), "token-not-compact"),
        ("one part", "abc".into(), "token-not-compact"),
        ("two parts", format!("{}.{}", encode(HEADER), encode(&good)), "token-not-compact"),
        ("four parts", format!("{}.x", unsigned(HEADER, &good)), "token-not-compact"),
        ("a JWE", "a.b.c.d.e".into(), "token-encrypted"),
        ("six parts", "a.b.c.d.e.f".into(), "token-not-compact"),
        ("no signature", format!("{}.{}.", encode(HEADER), encode(&good)), "token-not-compact"),
        ("padding", format!("{}=.{}.AAAA", encode(HEADER), encode(&good)), "token-not-compact"),
        ("standard base64", format!("{}.{}.a+/a", encode(HEADER), encode(&good)), "token-not-compact"),
        ("stray last bits", format!("{}.{}.AB", encode(HEADER), encode(&good)), "token-not-compact"),
        ("a line break", format!("{}\n", unsigned(HEADER, &good)), "token-not-compact"),
        ("a space before", format!(" {}", unsigned(HEADER, &good)), "token-not-compact"),
        ("too long", "a".repeat(MAX_TOKEN + 1), "token-too-long"),
        ("header isn't JSON", unsigned("alg", &good), "token-not-json"),
        ("header isn't an object", unsigned(r#"["RS256"]"#, &good), "token-not-json"),
        ("claims aren't JSON", unsigned(HEADER, "x"), "token-not-json"),
        ("claims aren't an object", unsigned(HEADER, "1"), "token-not-json"),
        ("more after the claims", unsigned(HEADER, &format!("{good}{good}")), "token-not-json"),
        ("header with two alg", unsigned(r#"{"alg":"RS256","alg":"none"}"#, &good), "token-duplicate-key"),
        ("two oid", unsigned(HEADER, r#"{"oid":"a","oid":"b"}"#), "token-duplicate-key"),
        ("two oid, one escaped", unsigned(HEADER, r#"{"oid":"a","\u006fid":"b"}"#), "token-duplicate-key"),
        (
            "two groups elsewhere",
            unsigned(HEADER, r#"{"_claim_names":{"groups":"a","groups":"b"}}"#),
            "token-duplicate-key",
        ),
        ("deep claims", unsigned(HEADER, &nested(9)), "token-too-deep"),
        ("very deep claims", unsigned(HEADER, &nested(5000)), "token-too-deep"),
        ("deep header", unsigned(&nested(9), &good), "token-too-deep"),
        ("alg none", unsigned(r#"{"alg":"none"}"#, &good), "token-algorithm"),
        ("alg in another case", unsigned(r#"{"alg":"rs256"}"#, &good), "token-algorithm"),
        ("HS256", unsigned(r#"{"alg":"HS256","kid":"one"}"#, &good), "token-algorithm"),
        ("ES256", unsigned(r#"{"alg":"ES256","kid":"one"}"#, &good), "token-algorithm"),
        ("alg isn't text", unsigned(r#"{"alg":["RS256"]}"#, &good), "token-algorithm"),
        ("no alg", unsigned(r#"{"kid":"one"}"#, &good), "token-algorithm"),
        ("crit", unsigned(r#"{"alg":"RS256","kid":"one","crit":["b64"]}"#, &good), "token-critical-header"),
        ("empty crit", unsigned(r#"{"alg":"RS256","kid":"one","crit":[]}"#, &good), "token-critical-header"),
        ("kid isn't text", unsigned(r#"{"alg":"RS256","kid":1}"#, &good), "token-key-unknown"),
        (
            "a long kid",
            unsigned(&format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(257)), &good),
            "token-key-unknown",
        ),
        ("tid isn't a GUID", with(json!({"tid": "contoso.com"})), "token-claim-malformed"),
        ("oid isn't a GUID", with(json!({"oid": "x"})), "token-claim-malformed"),
        ("oid is a number", with(json!({"oid": 1})), "token-claim-malformed"),
        ("iss isn't text", with(json!({"iss": ["a"]})), "token-claim-malformed"),
        ("a control character in iss", with(json!({"iss": "a\u{1b}[2J"})), "token-claim-malformed"),
        ("aud is a number", with(json!({"aud": 1})), "token-claim-malformed"),
        ("aud has a number", with(json!({"aud": ["a", 1]})), "token-claim-malformed"),
        ("exp is text", with(json!({"exp": "1800000000"})), "token-claim-malformed"),
        ("exp is negative", with(json!({"exp": -1})), "token-claim-malformed"),
        ("exp is beyond all time", with(json!({"exp": 1e300})), "token-claim-malformed"),
        ("nbf isn't a time", with(json!({"nbf": true})), "token-claim-malformed"),
        ("two clients", with(json!({"appid": OBJECT})), "token-claim-malformed"),
        ("an idtyp that isn't known", with(json!({"idtyp": "device"})), "token-claim-malformed"),
        ("wids aren't GUIDs", with(json!({"wids": ["admin"]})), "token-claim-malformed"),
        ("groups aren't text", with(json!({"groups": [1]})), "token-claim-malformed"),
        ("hasgroups is a number", with(json!({"hasgroups": 1})), "token-claim-malformed"),
        ("_claim_names is text", with(json!({"_claim_names": "groups"})), "token-claim-malformed"),
        ("a facet isn't a number", with(json!({"xms_sub_fct": "11 x"})), "token-claim-malformed"),
        ("too many roles", with(json!({"roles": vec!["r"; 1025]})), "token-claim-malformed"),
        ("an endless role", with(json!({"roles": ["r".repeat(2049)]})), "token-claim-malformed"),
    ];
    for (what, text, code) in cases {
        assert_eq!(Token::parse(&text).map(|_| ()).map_err(|error| error.code()), Err(code), "{what}");
    }
}

#[test]
fn keys_and_addresses_of_keys_in_the_header_are_not_looked_at() {
    let header =
        r#"{"alg":"RS256","kid":"one","jku":"https://evil.example/k","x5u":1,"jwk":{"kty":"oct"},"x5c":["x"]}"#;
    let token = Token::parse(&sign(0, header, &claims(json!({})).to_string())).unwrap();
    assert_eq!(token.kid(), Some("one"));
}

#[test]
fn a_tokens_claims_are_read() {
    let text = token(&claims(json!({
        "aud": ["a", "b"], "roles": ["Tasks.Read"], "groups": [OBJECT], "exp": 1_800_000_000.9,
        "xms_par_app_azp": CLIENT,
    })));
    let token = Token::parse(&text).unwrap();
    let claims = token.claims();
    assert_eq!(claims.aud, ["a", "b"]);
    assert_eq!(claims.roles, ["Tasks.Read"]);
    assert_eq!(claims.groups, Groups::Listed(vec![OBJECT.parse().unwrap()]));
    assert_eq!(claims.exp.unwrap().as_second(), 1_800_000_000);
    assert_eq!(claims.client, Some(CLIENT.parse().unwrap()));
    assert_eq!(claims.blueprint, Some(CLIENT.parse().unwrap()));
    assert_eq!(claims.object(), Ok((TENANT.parse().unwrap(), OBJECT.parse().unwrap())));
    assert_eq!(claims.kind(), PrincipalKind::ServicePrincipal);
}

#[test]
fn groups_that_dont_fit_are_unknown_never_none() {
    let groups =
        |changes| Token::parse(&unsigned(HEADER, &claims(changes).to_string())).unwrap().claims().groups.clone();
    assert_eq!(groups(json!({})), Groups::Absent);
    assert_eq!(groups(json!({"groups": []})), Groups::Listed(vec![]));
    assert_eq!(groups(json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {}}})), Groups::Overage);
    assert_eq!(groups(json!({"_claim_names": {"groups": "src1"}, "groups": [OBJECT]})), Groups::Overage);
    assert_eq!(groups(json!({"_claim_names": {"other": "src1"}})), Groups::Absent);
    assert_eq!(groups(json!({"hasgroups": true})), Groups::Overage);
    assert_eq!(groups(json!({"hasgroups": "true"})), Groups::Overage);
    assert_eq!(groups(json!({"hasgroups": "false"})), Groups::Absent);
    assert_eq!(groups(json!({"groups": [OBJECT, "Sales"]})), Groups::Overage);
}

#[test]
fn the_kind_of_principal_is_told_by_what_entra_states() {
    let kind = |changes| Token::parse(&unsigned(HEADER, &claims(changes).to_string())).unwrap().claims().kind();
    let user = json!({"idtyp": null, "scp": "User.Read Mail.Read"});
    assert_eq!(kind(user), PrincipalKind::User);
    assert_eq!(kind(json!({"idtyp": "user"})), PrincipalKind::User);
    assert_eq!(kind(json!({"idtyp": null})), PrincipalKind::ServicePrincipal);
    assert_eq!(kind(json!({"xms_mirid": "/subscriptions/s/vm"})), PrincipalKind::ManagedIdentity);
    assert_eq!(kind(json!({"xms_sub_fct": "9 3 11", "xms_act_fct": "3 9 11"})), PrincipalKind::AgentIdentity);
    assert_eq!(kind(json!({"idtyp": "user", "xms_act_fct": "11", "xms_sub_fct": "1"})), PrincipalKind::User);
    assert_eq!(kind(json!({"idtyp": "user", "xms_act_fct": "11", "xms_sub_fct": "1 13"})), PrincipalKind::AgentUser);
}

#[test]
fn a_token_of_another_provider_is_read_too() {
    let text =
        unsigned(HEADER, r#"{"iss":"https://idp.example","sub":"x","azp":"app.example","ver":1,"scp":["a","b"]}"#);
    let token = Token::parse(&text).unwrap();
    assert_eq!(token.claims().client, None);
    assert_eq!(token.claims().authorized_party.as_deref(), Some("app.example"));
    assert_eq!(token.claims().scp, ["a", "b"]);
    assert_eq!(token.claims().object().unwrap_err().code(), "token-claim-missing");
}

#[test]
fn a_token_is_never_shown() {
    let text = token(&claims(json!({})));
    let shown = format!("{:?}", Token::parse(&text).unwrap());
    for part in text.split('.') {
        assert!(!shown.contains(part), "{shown}");
    }
    assert!(!shown.contains(OBJECT));
}
