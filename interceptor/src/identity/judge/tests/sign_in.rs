//! ID tokens of people who sign in, each with what is made of it.

use super::*;
use crate::identity::fixture::{CLIENT, encode};

fn id_token(changes: Value) -> Value {
    let mut base = json!({ "aud": CLIENT, "nonce": "n", "idtyp": null, "azp": null, "groups": [OTHER_TENANT] });
    if let (Some(base), Value::Object(changes)) = (base.as_object_mut(), changes) {
        base.extend(changes);
    }
    claims(base)
}

async fn sign_in(bench: &Bench, token: &str, nonce: Option<&str>) -> Result<SignedIn, String> {
    let tenant = &bench.identities.tenants[0];
    let signed = bench.judge.sign_in(tenant, CLIENT.parse().unwrap(), token, nonce).await;
    signed.map_err(|error| error.code().to_owned())
}

#[tokio::test(start_paused = true)]
async fn who_signs_in_is_told_with_groups_and_the_key() {
    let bench = bench();
    let signed = sign_in(&bench, &token(&id_token(json!({}))), Some("n")).await.unwrap();
    assert_eq!(signed.person.as_str(), format!("{TENANT}/{OBJECT}"));
    assert_eq!(signed.groups.into_iter().collect::<Vec<_>>(), [format!("{TENANT}/{OTHER_TENANT}")]);
    let key = jwk(0, "one", json!({}));
    assert_eq!((&signed.jwk["n"], &signed.jwk["kid"]), (&key["n"], &key["kid"]));
    // There may be more groups than are listed: then none counts.
    let many = id_token(json!({ "_claim_names": { "groups": "src1" } }));
    assert!(sign_in(&bench, &token(&many), Some("n")).await.unwrap().groups.is_empty());
    // A device code has no nonce.
    let device = id_token(json!({ "nonce": null }));
    assert!(sign_in(&bench, &token(&device), None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_id_token_of_anything_else_is_refused() {
    let bench = bench();
    for (changes, code) in [
        (json!({ "nonce": "other" }), "token-nonce"),
        (json!({ "nonce": null }), "token-nonce"),
        (json!({ "aud": AUDIENCE }), "token-audience"),
        (json!({ "aud": [CLIENT, AUDIENCE] }), "token-audience"),
        (json!({ "idtyp": "app" }), "token-audience"),
        (json!({ "tid": OTHER_TENANT }), "token-tenant"),
        (json!({ "iss": format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0") }), "token-issuer"),
        (json!({ "exp": NOW - 60 }), "token-expired"),
        (json!({ "exp": null }), "token-claim-missing"),
        (json!({ "nbf": NOW + 120 }), "token-not-yet-valid"),
        (json!({ "oid": null }), "token-claim-missing"),
    ] {
        let refused = sign_in(&bench, &token(&id_token(changes.clone())), Some("n")).await;
        assert_eq!(refused, Err(code.into()), "{changes}");
    }
    let text = id_token(json!({})).to_string();
    let header = |alg: &str, kid: &str| format!(r#"{{"typ":"JWT","alg":"{alg}","kid":"{kid}"}}"#);
    for (forged, code) in [
        (format!("{}.{}.", encode(header("none", "one")), encode(&text)), "token-not-compact"),
        (format!("{}.{}.AA", encode(header("none", "one")), encode(&text)), "token-algorithm"),
        (sign(0, &header("PS256", "one"), &text), "token-algorithm-not-accepted"),
        (sign(1, &header("RS256", "one"), &text), "token-signature"),
        (sign(1, &header("RS256", "two"), &text), "token-key-unknown"),
    ] {
        assert_eq!(sign_in(&bench, &forged, Some("n")).await, Err(code.into()));
    }
    // Who asked for none gets none with one.
    assert_eq!(sign_in(&bench, &token(&id_token(json!({}))), None).await, Err("token-nonce".into()));
}
