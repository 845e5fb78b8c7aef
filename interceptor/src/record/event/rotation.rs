//! What a database says of the one before it.

use serde::{Deserialize, Serialize};

/// The first event of a database that follows another one. What it says of that is known at once, however large it is: the
/// last hash of its chain is one of all that was recorded in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The file of the one before.
    pub previous: String,
    /// The last event of that, as far as is known: it has as many.
    pub seq: Option<u64>,
    /// The hash of it, in hex.
    pub hash: Option<String>,
    /// BLAKE3 of the last line of its checkpoints, without its end, in hex; none where there was none, and in records of
    /// versions that told the digest here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// BLAKE3 of the file, in hex, in records of earlier versions. Now [`Hashed`] tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether it ends with `record.rotated`; not where it is damaged.
    pub sealed: bool,
    /// How many events behind this one are told again; none where it is damaged, and in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<u64>,
    /// The uid of who asked for it.
    pub uid: u32,
    /// His pid.
    pub pid: u32,
}

/// The file of the database before was read as a whole, which takes as long as it is large: the record went on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashed {
    /// The file.
    pub previous: String,
    /// BLAKE3 of it, in hex; none where it couldn't be read. Then it is tried again at the next start.
    pub digest: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}
