//! Authentication: whom a request's token names, and whether it may carry what it authenticates with.

use crate::policy::Principal;
use crate::record::event::Identity;

/// Whom a request's token names, and what the record says of the token.
#[derive(Debug, Clone)]
pub(super) struct Identified {
    pub(super) principal: Principal,
    /// The token's keyed digest.
    pub(super) token: String,
    /// The token's `uti`.
    pub(super) uti: Option<String>,
}

impl Identified {
    /// What an operation's record says of it.
    pub(super) fn recorded(&self) -> Identity {
        let Principal { id, kind, client, authentic, bound, .. } = &self.principal;
        Identity {
            principal: id.clone(),
            kind: *kind,
            client: *client,
            authentic: *authentic,
            bound: *bound,
            token: self.token.clone(),
            uti: self.uti.clone(),
        }
    }
}
