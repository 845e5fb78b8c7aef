use super::*;
use crate::identity::fixture::now;

fn claims(json: &str) -> String {
    format!(r#"Bearer error="insufficient_claims", claims="{}""#, STANDARD.encode(json))
}

#[test]
fn our_own_challenge_asks_for_a_newer_token() {
    let value = value(&Cloud::default(), now());
    assert!(
        value.starts_with(r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/"#),
        "{value}"
    );
    let encoded = value.rsplit_once("claims=\"").and_then(|(_, rest)| rest.strip_suffix('"')).unwrap();
    let decoded = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
    assert_eq!(decoded, r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"}}}"#);
    assert_eq!(find([value.as_str()]), Some(Challenge::Renew));
}

#[test]
fn claims_challenges_are_told_from_other_refusals() {
    let nbf = claims(r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#);
    let acrs = claims(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#);
    let both = claims(r#"{"access_token":{"nbf":{"value":"1"},"xms_rp_ipaddr":{"value":"192.0.2.1"}}}"#);
    let cases = [
        (nbf.clone(), Some(Challenge::Renew)),
        (acrs, Some(Challenge::StepUp)),
        (both, Some(Challenge::Renew)),
        (format!("Negotiate, {nbf}"), Some(Challenge::Renew)),
        (nbf.replace("Bearer ", "bearer realm=\"a, error=none\", "), Some(Challenge::Renew)),
        (r#"Bearer error=insufficient_claims"#.into(), Some(Challenge::Renew)),
        (r#"Bearer error="insufficient_claims", claims="!""#.into(), Some(Challenge::Renew)),
        (r#"Bearer ERROR="insufficient_claims""#.into(), Some(Challenge::Renew)),
        (r#"Bearer error="insufficient\_claims""#.into(), Some(Challenge::Renew)),
        (r#"Bearer error="invalid_token""#.into(), None),
        (r#"Bearer realm="error=insufficient_claims""#.into(), None),
        (r#"Bearer error_description="insufficient_claims""#.into(), None),
        ("Bearer".into(), None),
        (String::new(), None),
        (r#"Bearer error="insufficient_claims"#.into(), Some(Challenge::Renew)),
    ];
    for (header, expected) in cases {
        assert_eq!(find([header.as_str()]), expected, "{header}");
    }
    assert_eq!(find(["Basic realm=\"x\"", &nbf]), Some(Challenge::Renew));
    assert_eq!(find([]), None);
}
