//! The keys that payloads are sealed under: one for each session, wrapped by the key in `payload.key`. Whoever erases a
//! session's wrapped key erases what the session sent and got; whoever has only a copy of the database can read nothing.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::RecordError;
use super::payload::SessionKey;
use crate::ids::SessionId;

/// Bytes of a key.
pub(super) const KEY: usize = 32;

/// The wrapping key.
pub struct Keys(RandomizedNonceKey);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Reads the key file, or makes it where there is none (0600).
    ///
    /// # Errors
    /// When it can't be read or made, or isn't a key that its owner alone can read.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError::File { doing: "read", path: path.into(), source };
        let invalid = || RecordError::Key { path: path.into() };
        let bytes = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
            Err(error) => return Err(failed(error)),
            Ok(found) => {
                let owned = [0, geteuid().as_raw()].contains(&found.uid());
                if !found.is_file() || !owned || found.mode() & 0o077 != 0 {
                    return Err(invalid());
                }
                Zeroizing::new(fs::read(path).map_err(failed)?)
            }
        };
        if bytes.len() != KEY {
            return Err(invalid());
        }
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map(Self).map_err(|_unspecified| invalid())
    }

    /// A new key for a session.
    ///
    /// # Errors
    /// When the system has no randomness, which it always has.
    pub fn new_session(&self, session: SessionId) -> Result<SessionKey, RecordError> {
        let key = random()?;
        let wrapped = seal(&self.0, session.to_string().as_bytes(), key.to_vec())?;
        SessionKey::new(session, &key, wrapped)
    }

    /// A session's key from its wrapped form; none if it isn't one.
    pub(super) fn unwrap(&self, session: SessionId, wrapped: &[u8]) -> Option<SessionKey> {
        let key = Zeroizing::new(open(&self.0, session.to_string().as_bytes(), wrapped)?);
        SessionKey::new(session, &key, wrapped.to_vec()).ok()
    }
}

/// Makes the key file. A half-written one is never found under its name.
fn make(path: &Path) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let failed = |source| RecordError::File { doing: "make", path: path.into(), source };
    let key = random()?;
    let draft = path.with_extension("new");
    let written =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft).and_then(|mut file| {
            file.write_all(&key)?;
            file.sync_all()?;
            fs::rename(&draft, path)
        });
    written.map_err(failed)?;
    Ok(key)
}

fn random() -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let mut key = Zeroizing::new(vec![0; KEY]);
    aws_lc_rs::rand::fill(&mut key).map_err(|_unspecified| RecordError::Unsealed)?;
    Ok(key)
}

/// Nonce, ciphertext and tag of `bytes`, bound to `aad`.
pub(super) fn seal(key: &RandomizedNonceKey, aad: &[u8], mut bytes: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    let nonce =
        key.seal_in_place_append_tag(Aad::from(aad), &mut bytes).map_err(|_unspecified| RecordError::Unsealed)?;
    let mut sealed = Vec::with_capacity(NONCE_LEN + bytes.len());
    sealed.extend_from_slice(nonce.as_ref());
    sealed.extend_from_slice(&bytes);
    Ok(sealed)
}

/// What [`seal`] sealed; none if it is anything else.
pub(super) fn open(key: &RandomizedNonceKey, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut bytes = rest.to_vec();
    let length = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}
