//! [`TokenBuilder`] makes any token, right or wrong.

use std::sync::Arc;

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PSS_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::key::Key;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256: what Entra does.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// HMAC with the public key as the secret: fools a verifier that lets the token choose.
    Hs256,
    /// Not at all: the third part is empty.
    None,
}

impl Algorithm {
    /// Its name (RFC 7518 section 3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Ps256 => "PS256",
            Self::Hs256 => "HS256",
            Self::None => "none",
        }
    }
}

/// A token in the making. Nothing of it is checked.
#[derive(Debug, Clone)]
pub struct TokenBuilder {
    /// The members of the header.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
    /// Claims that are written a second time, after the others.
    pub duplicates: Vec<(String, Value)>,
    /// Members of the header that are written a second time.
    pub header_duplicates: Vec<(String, Value)>,
    key: Arc<Key>,
    algorithm: Algorithm,
    hashes_nonce: bool,
    spoilt: bool,
}

impl TokenBuilder {
    /// A token with these claims, RS256 by `key`.
    pub fn new(key: Arc<Key>, claims: Map<String, Value>) -> Self {
        let header = [("typ", json!("JWT")), ("alg", json!("RS256")), ("kid", json!(key.kid()))];
        Self {
            header: header.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            claims,
            duplicates: Vec::new(),
            header_duplicates: Vec::new(),
            key,
            algorithm: Algorithm::Rs256,
            hashes_nonce: false,
            spoilt: false,
        }
    }

    /// With this claim instead.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Without this claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// With this claim written once more, after the others.
    #[must_use]
    pub fn duplicate(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.duplicates.push((name.to_owned(), value.into()));
        self
    }

    /// With this member of the header instead: `alg`, `kid`, `jku`, `x5u`, `crit`, …
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Without this member of the header.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signed so, and the header says so.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self.header("alg", algorithm.name())
    }

    /// Signed by `key`; the header goes on naming the former one.
    #[must_use]
    pub fn signed_by(mut self, key: Arc<Key>) -> Self {
        self.key = key;
        self
    }

    /// Signed by `key`, and the header says so.
    #[must_use]
    pub fn key(self, key: Arc<Key>) -> Self {
        let kid = key.kid().to_owned();
        self.signed_by(key).header("kid", kid)
    }

    /// With `nonce` in the header, and signed over its digest: only who knows this can verify it.
    #[must_use]
    pub fn nonce(mut self, nonce: &str) -> Self {
        self.hashes_nonce = true;
        self.header("nonce", nonce)
    }

    /// Ended `seconds` ago.
    #[must_use]
    pub fn expired(self, now: i64, seconds: i64) -> Self {
        self.claim("iat", now - seconds - 3_600).claim("nbf", now - seconds - 3_600).claim("exp", now - seconds)
    }

    /// Begins only in `seconds`.
    #[must_use]
    pub fn not_yet(self, now: i64, seconds: i64) -> Self {
        self.claim("nbf", now + seconds).claim("exp", now + seconds + 3_600)
    }

    /// At least `bytes` long, by a claim that nobody reads.
    #[must_use]
    pub fn at_least(self, bytes: usize) -> Self {
        self.claim("padding", "x".repeat(bytes))
    }

    /// With a signature of which one bit is wrong.
    #[must_use]
    pub fn spoilt(mut self) -> Self {
        self.spoilt = true;
        self
    }

    /// The token.
    ///
    /// # Errors
    /// The library refused to sign.
    pub fn build(&self) -> Result<String> {
        let claims = object(&self.claims, &self.duplicates);
        let head = encode(&object(&self.header, &self.header_duplicates));
        let body = encode(&claims);
        let signed = match self.header.get("nonce").and_then(Value::as_str).filter(|_| self.hashes_nonce) {
            Some(nonce) => {
                let mut header = self.header.clone();
                header.insert("nonce".to_owned(), json!(hashed(nonce)));
                format!("{}.{body}", encode(&object(&header, &self.header_duplicates)))
            }
            None => format!("{head}.{body}"),
        };
        let mut signature = self.signature(signed.as_bytes())?;
        if let Some(byte) = signature.last_mut().filter(|_| self.spoilt) {
            *byte ^= 1;
        }
        Ok(format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>> {
        match self.algorithm {
            Algorithm::Rs256 => self.key.sign(&RSA_PKCS1_SHA256, message),
            Algorithm::Rs384 => self.key.sign(&RSA_PKCS1_SHA384, message),
            Algorithm::Ps256 => self.key.sign(&RSA_PSS_SHA256, message),
            Algorithm::Hs256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.public());
                Ok(hmac::sign(&key, message).as_ref().to_vec())
            }
            Algorithm::None => Ok(Vec::new()),
        }
    }
}

/// What stands for a nonce in what is signed.
pub(super) fn hashed(nonce: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, nonce.as_bytes()))
}

/// A part of a token.
pub(super) fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// The members and then the duplicates, which a map can't hold.
fn object(members: &Map<String, Value>, duplicates: &[(String, Value)]) -> String {
    let both = members.iter().chain(duplicates.iter().map(|(name, value)| (name, value)));
    let members: Vec<String> = both.map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}
