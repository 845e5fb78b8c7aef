//! A verdict on its way into the record, borrowed of what it was made of: there is one for each operation, and nothing of
//! it is needed once it is written.

use jiff::Timestamp;
use serde::Serialize;

use super::Verdict;
use crate::identity::provenance::Digest;
use crate::ids::{ApprovalId, ClientId, LaunchId, OperationId, PrincipalId, SessionId, TargetName, WorkloadName};
use crate::policy::{Authentic, Basis, Bound, Credential, PrincipalKind};

/// An `operation.decided` to be recorded. Its JSON is that of an [`Event`](super::Event) with
/// [`What::OperationDecided`](super::What::OperationDecided), field by field in the same order.
#[derive(Debug, Serialize)]
pub struct Intent<'a> {
    /// When.
    pub at: Timestamp,
    /// Which event it is.
    pub event: Decided,
    /// The operation.
    pub operation: OperationId,
    /// Its session; none for a DNS look-up over UDP.
    pub session: Option<SessionId>,
    /// The launch.
    pub launch: LaunchId,
    /// The workload's name.
    pub workload: &'a WorkloadName,
    /// The target, if there is one.
    pub target: Option<&'a TargetName>,
    /// The action.
    pub action: &'a str,
    /// What was asked for, in one line, without secrets.
    pub summary: &'a str,
    /// Whether it goes on.
    pub verdict: Verdict,
    /// The stable code of a denial.
    pub code: Option<&'static str>,
    /// What determined it.
    pub basis: &'a Basis,
    /// The uid of who launched the workload, or of who calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiator: Option<u32>,
    /// What it authenticates with; none for what carries no credential by its nature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// Whom its token names; none without a token that is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Named<'a>>,
    /// What people are asked about it, or were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
}

/// The only event that an [`Intent`] is.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Decided {
    /// `operation.decided`.
    #[serde(rename = "operation.decided")]
    Operation,
}

/// Whom a token names, as [`Identity`](super::Identity) says it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Named<'a> {
    /// Who.
    pub principal: &'a PrincipalId,
    /// What it is.
    pub kind: PrincipalKind,
    /// The application that the token was issued to.
    pub client: Option<ClientId>,
    /// What makes it authentic.
    pub authentic: Authentic,
    /// What binds it to the workload.
    pub bound: Bound,
    /// The token's keyed digest.
    pub token: Digest,
    /// The token's `uti`.
    pub uti: Option<&'a str>,
}

#[cfg(test)]
mod tests;
