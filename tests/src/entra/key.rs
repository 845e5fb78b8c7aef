//! RSA keys, and the set of them that a tenant publishes. Making one takes a while: a process makes each once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaEncoding, RsaKeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key that signs tokens.
#[derive(Debug)]
pub struct Key {
    kid: String,
    pair: RsaKeyPair,
}

static MADE: Mutex<BTreeMap<usize, Arc<Key>>> = Mutex::new(BTreeMap::new());

impl Key {
    /// The process's key number `index`; equal numbers are equal keys. A number that nobody else uses is a key that is
    /// published nowhere.
    ///
    /// # Errors
    /// No key could be made.
    pub fn number(index: usize) -> Result<Arc<Self>> {
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = made.get(&index) {
            return Ok(Arc::clone(key));
        }
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).context("can't make an RSA key")?;
        let kid = URL_SAFE_NO_PAD.encode(&digest(&SHA256, pair.public_key().as_ref()).as_ref()[..20]);
        let key = Arc::new(Self { kid, pair });
        made.insert(index, Arc::clone(&key));
        Ok(key)
    }

    /// Its name in the set.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key, DER (RFC 8017, RSAPublicKey).
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// A signature of `message`.
    ///
    /// # Errors
    /// The library refused.
    pub fn sign(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), message, &mut signature).context("can't sign")?;
        Ok(signature)
    }

    /// Whether `signature` is this key's, RS256.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.public()).verify(message, signature).is_ok()
    }

    /// As a member of a JSON Web Key Set (RFC 7517), with the members that Entra adds.
    pub fn jwk(&self, issuer: &str) -> Value {
        // A 2,048-bit key's DER has one shape: head, modulus with its sign byte, head, exponent.
        let (modulus, exponent) = (&self.public()[9..265], &self.public()[267..]);
        json!({
            "kty": "RSA",
            "use": "sig",
            "kid": self.kid,
            "x5t": self.kid,
            "n": URL_SAFE_NO_PAD.encode(modulus),
            "e": URL_SAFE_NO_PAD.encode(exponent),
            "cloud_instance_name": "microsoftonline.com",
            "issuer": issuer,
        })
    }
}

/// The keys of Entra: what is published, and what signs.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) published: Vec<Arc<Key>>,
    pub(super) signing: Arc<Key>,
    next: usize,
}

/// The key of the cluster's OpenID provider.
pub(super) const CLUSTER_KEY: usize = 2;
const FIRST_NEW_KEY: usize = 3;

impl Keys {
    /// Two published keys, of which the first signs.
    pub(super) fn new() -> Result<Self> {
        let published = vec![Key::number(0)?, Key::number(1)?];
        let signing = Arc::clone(&published[0]);
        Ok(Self { published, signing, next: FIRST_NEW_KEY })
    }

    /// Signs by a new key from now on, that isn't published yet.
    pub(super) fn renew(&mut self) -> Result<()> {
        self.signing = Key::number(self.next)?;
        self.next += 1;
        Ok(())
    }

    /// Publishes the key that signs, and no other but the last one that did if `keep`.
    pub(super) fn publish(&mut self, keep: bool) {
        if !keep {
            self.published.clear();
        }
        if !self.published.iter().any(|key| key.kid == self.signing.kid) {
            self.published.push(Arc::clone(&self.signing));
        }
    }
}
