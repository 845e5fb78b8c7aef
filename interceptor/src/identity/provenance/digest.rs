//! The keyed digest of a token, and its key: 32 random bytes in a file that is the daemon's alone. Without the key a
//! digest can't be compared with a token, so a stolen record doesn't tell whose a stolen token is.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keyfile::{self, Key, KeyFileError};

/// The name of the key's file in the state folder.
const FILE: &str = "provenance.key";

/// BLAKE3 of a token, under the daemon's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that isn't 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token's digest is 64 hexadecimal digits")]
pub struct DigestError;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        blake3::Hash::from_hex(text).map(|hash| Digest(*hash.as_bytes())).map_err(|_| DigestError)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// The key under which tokens are digested.
pub struct DigestKey(Key);

impl DigestKey {
    /// The key of the state folder.
    ///
    /// # Errors
    /// What is wrong with its file.
    pub fn open(state: &Path) -> Result<DigestKey, KeyFileError> {
        keyfile::open(&state.join(FILE)).map(DigestKey)
    }

    /// The digest of a token.
    pub fn digest(&self, token: &str) -> Digest {
        Digest(*blake3::keyed_hash(&self.0, token.as_bytes()).as_bytes())
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(…)")
    }
}
