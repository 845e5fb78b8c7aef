//! What is recorded of tokens and whom they name.

use serde::{Deserialize, Serialize};

use crate::identity::provenance::{Digest, Issued};
use crate::ids::{ClientId, LaunchId, OperationId, PrincipalId};
use crate::policy::{Authentic, Bound, PrincipalKind};

/// Whom a token names, as an operation's record says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub principal: PrincipalId,
    /// What it is.
    pub kind: PrincipalKind,
    /// The application that the token was issued to.
    pub client: Option<ClientId>,
    /// What makes it authentic.
    pub authentic: Authentic,
    /// What binds it to the workload.
    pub bound: Bound,
    /// The token's keyed digest: `token.issued` says more of it.
    pub token: Digest,
    /// The token's `uti`, by which Entra's sign-in logs know it.
    pub uti: Option<String>,
}

/// A token that was issued to a workload: its provenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenIssued {
    /// Its keyed digest.
    pub token: Digest,
    /// The request that it answers; none for a token from a file.
    pub operation: Option<OperationId>,
    /// The launch that got it.
    pub launch: LaunchId,
    /// What is known of it.
    #[serde(flatten)]
    pub issued: Issued,
}
