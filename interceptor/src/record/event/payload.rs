//! What is told of a body.

use serde::{Deserialize, Serialize};

/// What was kept of an operation, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// BLAKE3 of the sealed bytes, in hex.
    pub digest: String,
    /// How many they are.
    pub bytes: u64,
}

/// A body, by size and digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Its bytes, decoded from the transfer coding.
    pub bytes: u64,
    /// BLAKE3 of them in hex; none if there were none.
    pub digest: Option<String>,
}
