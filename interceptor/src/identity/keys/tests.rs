use serde_json::json;

use super::*;
use crate::identity::fixture::jwk;

fn parse(keys: Value) -> Result<Vec<String>, KeyError> {
    let set = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), "https://keys")?;
    let mut names: Vec<String> = set.0.into_keys().collect();
    names.sort();
    Ok(names)
}

#[test]
fn keys_that_cant_be_used_are_skipped() {
    let short = URL_SAFE_NO_PAD.encode([0xff; 255]);
    let long = URL_SAFE_NO_PAD.encode(vec![0xff; 1025]);
    let padded = URL_SAFE_NO_PAD.encode([&[0; 8][..], &[0xff; 255]].concat());
    let keys = json!([
        jwk(0, "good", json!({})),
        jwk(0, "no-use", json!({"use": null})),
        jwk(0, "rs256", json!({"alg": "RS256", "key_ops": ["verify"], "x5c": ["ignored"]})),
        jwk(0, "ec", json!({"kty": "EC"})),
        jwk(0, "oct", json!({"kty": "oct", "k": "c2VjcmV0"})),
        jwk(0, "enc", json!({"use": "enc"})),
        jwk(0, "odd-use", json!({"use": 1})),
        jwk(0, "encrypts", json!({"key_ops": ["encrypt"]})),
        jwk(0, "rs512", json!({"alg": "RS512"})),
        jwk(0, "hs256", json!({"alg": "HS256"})),
        jwk(0, "short", json!({"n": short})),
        jwk(0, "padded", json!({"n": padded})),
        jwk(0, "long", json!({"n": long})),
        jwk(0, "one", json!({"e": "AQ"})),
        jwk(0, "even", json!({"e": "BA"})),
        jwk(0, "large-e", json!({"e": "AQAAAAE"})),
        jwk(0, "no-n", json!({"n": null})),
        jwk(0, "not-base64", json!({"n": "+/=="})),
        jwk(0, "odd-issuer", json!({"issuer": 1})),
        jwk(0, "", json!({})),
        jwk(0, "twice", json!({})),
        jwk(1, "twice", json!({})),
        1,
    ]);
    assert_eq!(parse(keys).unwrap(), ["good", "no-use", "rs256"]);
}

#[test]
fn a_set_without_a_key_is_an_error() {
    assert_eq!(parse(json!([])), Err(KeyError::NoKeys));
    assert_eq!(parse(json!([jwk(0, "x", json!({"use": "enc"}))])), Err(KeyError::NoKeys));
    let malformed = Err(KeyError::Malformed("https://keys".into()));
    for document in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(KeySet::parse(document.as_bytes(), "https://keys").map(|set| set.len()), malformed, "{document}");
    }
    let huge = vec![b' '; MAX_DOCUMENT + 1];
    assert_eq!(KeySet::parse(&huge, "https://keys").map(|set| set.len()), malformed);
}

#[test]
fn only_the_first_keys_of_an_endless_set_are_read() {
    let keys: Vec<Value> = (0..MAX_KEYS + 50).map(|n| jwk(0, &format!("k{n}"), json!({}))).collect();
    assert_eq!(parse(Value::Array(keys)).unwrap().len(), MAX_KEYS);
}
