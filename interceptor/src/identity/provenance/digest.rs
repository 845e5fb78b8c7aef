//! The keyed digest of a token, and its key: 32 random bytes in a file that is the daemon's alone. Without the key a
//! digest can't be compared with a token, so a stolen record doesn't tell whose a stolen token is.

use std::fmt;
use std::path::Path;

use crate::ids::Digest;
use crate::keyfile::{self, Key, KeyFileError};

/// The name of the key's file in the state folder.
const FILE: &str = "provenance.key";

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
        Digest::from(*blake3::keyed_hash(&self.0, token.as_bytes()).as_bytes())
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(…)")
    }
}
