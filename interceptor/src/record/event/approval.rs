//! What is recorded of a held operation.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Identity, readable};
use crate::ids::{ApprovalId, Digest, GrantId, LaunchId, PrincipalId, SessionId, TargetName, WorkloadName};
use crate::policy::{Credential, Shape, Terms, Width};
use crate::who::{NOBODY, Process};

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
    /// As whom that person logged in, where the kernel knows it: somebody else's uid after `sudo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loginuid: Option<u32>,
    /// The uids that called the launch at a published port within the last ten minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<u32>,
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
    /// Whether its answer is masked, by the target or by a permit: then notifications don't tell whom it is about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

/// How many callers are named in words.
const CALLERS: usize = 10;

impl ApprovalRequest {
    /// Who is behind it, in words: who launched its workload, and who called that of late.
    pub fn behind(&self) -> String {
        let launched = match self.initiator {
            NOBODY => "which is adopted".into(),
            uid => format!("launched by uid {uid}{}", as_whom(uid, self.loginuid)),
        };
        let callers: Vec<String> = self.callers.iter().take(CALLERS).map(ToString::to_string).collect();
        let more = match self.callers.len().saturating_sub(CALLERS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let called = format!("; called of late by uid {}{more}", callers.join(", "));
        if callers.is_empty() { launched } else { launched + &called }
    }
}

/// `, logged in as uid 1000`, of somebody who acts as another.
pub fn as_whom(uid: u32, loginuid: Option<u32>) -> String {
    let other = loginuid.filter(|login| *login != uid);
    other.map_or_else(String::new, |login| format!(", logged in as uid {login}"))
}

/// Somebody's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnswer {
    /// What was answered.
    pub approval: ApprovalId,
    /// Whether it was a yes.
    pub yes: bool,
    /// Who answered; none if `[people]` doesn't say.
    pub person: Option<PrincipalId>,
    /// By this uid.
    pub uid: u32,
    /// As whom that person logged in, where the kernel knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loginuid: Option<u32>,
    /// The groups that the answer counts for.
    pub groups: Vec<String>,
    /// Whether it is the initiator's own word, and nothing more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirms: bool,
    /// How wide the yes is.
    pub width: Option<Width>,
    /// What they said to it.
    pub note: Option<String>,
    /// What proves who they are; none where they are known by their uid alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Box<Evidence>>,
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
    /// Where one ID token is for the answers to several questions: the SHA-256 of each, in hex, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<String>,
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
