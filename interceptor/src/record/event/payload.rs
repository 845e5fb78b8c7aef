//! What is told of a body.

use serde::{Deserialize, Serialize};

/// A body, by size and digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Its bytes, decoded from the transfer coding.
    pub bytes: u64,
    /// BLAKE3 of them in hex; none if there were none.
    pub digest: Option<String>,
}
