//! The keys that payloads are sealed under: one for each session, wrapped by the key in `payload.key`. Whoever erases a
//! session's wrapped key erases what the session sent and got; whoever has only a copy of the database can read nothing.

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::RecordError;
use super::payload::SessionKey;
use crate::ids::SessionId;
use crate::keyfile;

/// The wrapping key.
pub struct Keys(RandomizedNonceKey);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// The key in this file, which is made where there is none.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let key = keyfile::open(path)?;
        RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map(Self).map_err(|_unspecified| RecordError::Unsealed)
    }

    /// A new key for a session.
    ///
    /// # Errors
    /// When the system has no randomness, which it always has.
    pub fn new_session(&self, session: SessionId) -> Result<SessionKey, RecordError> {
        let key = keyfile::random()?;
        let mut wrapped = [&[0; NONCE_LEN][..], key.as_ref()].concat();
        seal_in_place(&self.0, session.to_string().as_bytes(), &mut wrapped)?;
        SessionKey::new(session, key.as_ref(), &wrapped)
    }

    /// A session's key from its wrapped form; none if it isn't one.
    pub(super) fn unwrap(&self, session: SessionId, wrapped: &[u8]) -> Option<SessionKey> {
        let key = Zeroizing::new(open(&self.0, session.to_string().as_bytes(), wrapped)?);
        SessionKey::new(session, &key, wrapped).ok()
    }
}

/// Makes nonce, ciphertext and tag, bound to `aad`, of the bytes behind the first [`NONCE_LEN`], in their place.
pub(super) fn seal_in_place(key: &RandomizedNonceKey, aad: &[u8], bytes: &mut Vec<u8>) -> Result<(), RecordError> {
    let (nonce, text) = bytes.split_first_chunk_mut::<NONCE_LEN>().ok_or(RecordError::Unsealed)?;
    let (made, tag) =
        key.seal_in_place_separate_tag(Aad::from(aad), text).map_err(|_unspecified| RecordError::Unsealed)?;
    *nonce = *made.as_ref();
    bytes.extend_from_slice(tag.as_ref());
    Ok(())
}

/// What [`seal_in_place`] sealed; none if it is anything else.
pub(super) fn open(key: &RandomizedNonceKey, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut bytes = rest.to_vec();
    let length = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}
