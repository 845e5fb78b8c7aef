//! What is recorded of a held operation.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Identity, readable};
use crate::ids::{ApprovalId, Digest, GrantId, LaunchId, SessionId, TargetName, WorkloadName};
use crate::policy::{Credential, Shape, Terms};
use crate::who::Process;

/// A held operation, as people are asked about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// Its id.
    pub approval: ApprovalId,
    /// Until when it can be answered.
    pub until: Timestamp,
    /// The session that asked first.
    pub session: SessionId,
    /// The launch.
    pub launch: LaunchId,
    /// The workload.
    pub workload: WorkloadName,
    /// The process, if known.
    #[serde(serialize_with = "readable")]
    pub process: Option<Process>,
    /// The uid of the person who launched the workload.
    pub initiator: u32,
    /// Whom its token names.
    pub identity: Option<Box<Identity>>,
    /// What it authenticates with.
    pub credential: Option<Credential>,
    /// The target.
    pub target: TargetName,
    /// The action.
    pub action: String,
    /// What is asked for, in one line, without its query.
    pub summary: String,
    /// The keyed digest of all of it.
    pub digest: Digest,
    /// Its shape.
    pub shape: Shape,
    /// The policies that permit it once people have said yes.
    pub policies: Vec<String>,
    /// Their reasons.
    pub reasons: Vec<String>,
    /// Who has to answer, and what their yes is good for.
    pub terms: Terms,
    /// Why its sender says it is wanted: the header `Interceptor-Justification`.
    pub justification: Option<String>,
}

/// What an operation took of a grant that is limited in bytes or rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The grant.
    pub grant: GrantId,
    /// Bytes of the answer's body, as the process got it.
    pub bytes: u64,
    /// Its rows, where they are limited.
    pub rows: u64,
}

/// How somebody signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// By a code that a browser brought.
    Browser,
    /// By a device code.
    Device,
}

/// What proves who answered. With `salt` the ID token's `nonce` is the digest of the question and the answer
/// (`docs/approvals.md`): then the token is the signature of this very answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Whether the ID token was issued for this very answer.
    pub bound: bool,
    /// How he signed in.
    pub way: Way,
    /// What the digest is salted with; none where nothing is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// The ID token in compact form (RFC 7515 section 7.1).
    pub id_token: String,
    /// The key that signed it (RFC 7517), so that it can be verified when the issuer has others.
    pub jwk: Value,
}

impl std::fmt::Debug for Evidence {
    /// Without the token: what is debugged may be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evidence").field("bound", &self.bound).field("way", &self.way).finish_non_exhaustive()
    }
}
