//! The keys that an issuer signs with (JWKS, RFC 7517): reading a set, and keeping it fresh ([`KeySource`]).

use std::collections::HashMap;

use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::jwt::Algorithm;
use super::{FetchError, MAX_DOCUMENT, json};

mod source;

pub use source::{Freshness, KeyAuthority, KeySource};

/// The most keys that a set is read to; Entra's have about ten.
const MAX_KEYS: usize = 100;
/// The sizes of a modulus that are accepted, in bytes: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why an issuer's keys aren't there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A document couldn't be fetched.
    #[error("couldn't fetch `{url}`")]
    Fetch {
        /// Its address.
        url: String,
        /// Why not.
        source: FetchError,
    },
    /// A document isn't what it must be.
    #[error("`{0}` isn't a document that can be used; compare it with what the issuer publishes")]
    Malformed(String),
    /// The discovery document is another issuer's.
    #[error("the discovery document isn't that of issuer `{0}`")]
    OtherIssuer(String),
    /// The keys are said to be where they mustn't be fetched from.
    #[error(
        "`{0}` isn't https on the issuer's host; name the host in the configuration if keys are to come from there"
    )]
    KeysElsewhere(String),
    /// The set has no key that can be used.
    #[error("the issuer's key set has no RSA key of 2048 bits or more for signing")]
    NoKeys,
    /// The last keys are older than [`source::REFUSED_AFTER`], and none could be fetched since.
    #[error("the issuer's keys couldn't be refreshed for 72 hours")]
    TooOld,
    /// There are no keys, and the last attempt to fetch them was a moment ago.
    #[error("the issuer's keys couldn't be fetched; they are tried again in a few seconds")]
    Waiting,
}

impl KeyError {
    /// The stable code (docs/identity.md).
    pub fn code(&self) -> &'static str {
        match self {
            KeyError::TooOld => "issuer-keys-too-old",
            _ => "issuer-keys-unavailable",
        }
    }
}

/// One RSA key.
#[derive(Clone)]
pub struct Key {
    modulus: Box<[u8]>,
    exponent: Box<[u8]>,
    algorithm: Option<Algorithm>,
    issuer: Option<String>,
}

impl Key {
    /// Whether the key may sign this way: what its `alg` says, or both where it says nothing.
    pub(super) fn signs_with(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whose tokens it signs, if it says so: an issuer, perhaps with `{tenantid}` in it.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    pub(super) fn components(&self) -> RsaPublicKeyComponents<&[u8]> {
        RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent }
    }

    /// As a member of a JSON Web Key Set: what it takes to verify with it, and nothing else.
    pub fn jwk(&self, kid: &str) -> Value {
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        serde_json::json!({ "kty": "RSA", "kid": kid, "n": number(&self.modulus), "e": number(&self.exponent) })
    }

    fn read(key: &Map<String, Value>) -> Option<(String, Key)> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        // What is there must fit; what isn't there leaves it open.
        let is = |name: &str, value: &str| key.get(name).is_none_or(|is| is.as_str() == Some(value));
        if text("kty") != Some("RSA") || !is("use", "sig") {
            return None;
        }
        if let Some(operations) = key.get("key_ops")
            && !operations.as_array()?.iter().any(|operation| operation == "verify")
        {
            return None;
        }
        let algorithm = match key.get("alg").map(Value::as_str) {
            None => None,
            Some(Some("RS256")) => Some(Algorithm::Rs256),
            Some(Some("PS256")) => Some(Algorithm::Ps256),
            Some(_) => return None,
        };
        let issuer = match key.get("issuer") {
            None => None,
            Some(issuer) => Some(issuer.as_str()?.to_owned()),
        };
        let number = |name: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text(name)?).ok()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            Some(Box::from(&bytes[zeros..]))
        };
        let (modulus, exponent): (Box<[u8]>, Box<[u8]>) = (number("n")?, number("e")?);
        // An exponent of 1 signs nothing; one of more than 4 bytes costs more than it is worth.
        let odd = exponent.last().is_some_and(|last| last & 1 == 1);
        if !MODULUS.contains(&modulus.len()) || !odd || exponent.len() > 4 || *exponent == [1] {
            return None;
        }
        let kid = text("kid").filter(|kid| !kid.is_empty())?.to_owned();
        Some((kid, Key { modulus, exponent, algorithm, issuer }))
    }
}

/// The keys of one issuer, by name.
#[derive(Clone)]
pub struct KeySet(HashMap<String, Key>);

impl KeySet {
    /// Reads a JWKS document. Keys that can't be used (other types, too short, without a name, for encryption) are
    /// skipped, and so is every key whose name another one has too.
    ///
    /// # Errors
    /// [`KeyError::NoKeys`] if nothing is left; [`KeyError::Malformed`], with `url`, if it isn't a set.
    pub fn parse(document: &[u8], url: &str) -> Result<KeySet, KeyError> {
        let malformed = || KeyError::Malformed(url.to_owned());
        if document.len() > MAX_DOCUMENT {
            return Err(malformed());
        }
        let document = json::object(document).map_err(|_| malformed())?;
        let entries = document.get("keys").and_then(Value::as_array).ok_or_else(malformed)?;
        let mut keys: HashMap<String, Option<Key>> = HashMap::new();
        for (kid, key) in entries.iter().take(MAX_KEYS).filter_map(Value::as_object).filter_map(Key::read) {
            keys.entry(kid).and_modify(|twice| *twice = None).or_insert(Some(key));
        }
        let keys: HashMap<String, Key> = keys.into_iter().filter_map(|(kid, key)| Some((kid, key?))).collect();
        if keys.is_empty() { Err(KeyError::NoKeys) } else { Ok(KeySet(keys)) }
    }

    /// The key of this name.
    pub fn find(&self, kid: &str) -> Option<&Key> {
        self.0.get(kid)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none; a set that was read has one at least.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
