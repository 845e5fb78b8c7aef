//! What the tests of identity share: an issuer's key, tokens of Entra's forms, a scripted network.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{LazyLock, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Fetch, FetchError};

/// The tenant of the tests, and another.
pub(crate) const TENANT: &str = "aaaabbbb-0000-cccc-1111-dddd2222eeee";
pub(crate) const OTHER_TENANT: &str = "0f0f0f0f-1111-2222-3333-444444444444";
pub(crate) const OBJECT: &str = "bbbbbbbb-1111-2222-3333-444444444444";
pub(crate) const CLIENT: &str = "11112222-bbbb-3333-cccc-4444dddd5555";
pub(crate) const AUDIENCE: &str = "api://interceptor";
/// The time of the tests.
pub(crate) const NOW: i64 = 1_800_000_000;

static KEYS: LazyLock<[KeyPair; 2]> = LazyLock::new(|| {
    let key = || KeyPair::generate(KeySize::Rsa2048).expect("a key is made");
    [key(), key()]
});

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("the time is in range")
}

/// The public half of a key of the tests, with these members besides.
pub(crate) fn jwk(key: usize, kid: &str, more: Value) -> Value {
    // RSAPublicKey of RFC 8017 with 2048 bits: 9 bytes of headers, the modulus, and the exponent 65537 at the end.
    let public = KEYS[key].public_key().as_ref();
    let mut jwk = json!({ "kty": "RSA", "use": "sig", "kid": kid, "n": encode(&public[9..265]), "e": "AQAB" });
    merge(&mut jwk, more);
    jwk
}

/// Claims of an application's token in version 2, with changes; `null` takes a claim out.
pub(crate) fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "aud": AUDIENCE, "tid": TENANT, "oid": OBJECT, "sub": OBJECT, "azp": CLIENT, "ver": "2.0",
        "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600, "idtyp": "app", "uti": "m5RaaRnoFUyp2TbSCAAAAA",
    });
    merge(&mut claims, changes);
    claims
}

fn merge(into: &mut Value, changes: Value) {
    let (Some(into), Value::Object(changes)) = (into.as_object_mut(), changes) else { return };
    for (name, value) in changes {
        if value.is_null() {
            into.remove(&name)
        } else {
            into.insert(name, value)
        };
    }
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with this header and these claims, as written, signed as the header's `alg` says by a key of the tests.
pub(crate) fn sign(key: usize, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let padding = if header.contains("PS256") { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
    let mut signature = vec![0; KEYS[key].public_modulus_len()];
    KEYS[key].sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("it is signed");
    format!("{signed}.{}", encode(signature))
}

/// A token with these claims, signed by the issuer's first key.
pub(crate) fn token(claims: &Value) -> String {
    sign(0, r#"{"typ":"JWT","alg":"RS256","kid":"one"}"#, &claims.to_string())
}

type Answer = Result<Bytes, FetchError>;

/// A network that answers as it is told, after a second, and counts.
#[derive(Default)]
pub(crate) struct Script {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    pub(crate) fn answer(&self, url: &str, document: Value) {
        self.answers.lock().unwrap().insert(url.into(), Ok(document.to_string().into()));
    }

    pub(crate) fn fail(&self, url: &str, error: FetchError) {
        self.answers.lock().unwrap().insert(url.into(), Err(error));
    }

    /// How often an address was asked for.
    pub(crate) fn asked(&self, url: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == url).count()
    }
}

impl Fetch for Script {
    fn get<'a>(&'a self, url: &'a str) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        self.asked.lock().unwrap().push(url.to_owned());
        let answer = self.answers.lock().unwrap().get(url).cloned().unwrap_or(Err(FetchError::Status(404)));
        Box::pin(async move {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            answer
        })
    }
}
