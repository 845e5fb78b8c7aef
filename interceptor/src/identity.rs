//! Who an operation acts as: tokens and their claims, the issuers' keys, what a workload asks of a login host, and which
//! token was issued to which workload. [`jwt`] reads a token, [`verify`] judges one against the keys of [`keys`],
//! [`endpoint`] reads token requests and answers, [`tenants`] names tenants, [`provenance`] remembers what was issued,
//! [`challenge`] asks a client to sign in anew, [`overage`] resolves groups that didn't fit into a token, [`login`] is how
//! a person signs in to the daemon itself.
//!
//! Not here: the network (behind [`Fetch`] and [`overage::Directory`]), and what follows from an identity (policy).

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub mod challenge;
pub mod claims;
pub mod endpoint;
#[cfg(test)]
pub(crate) mod fixture;
mod json;
pub mod judge;
pub mod jwt;
pub mod keys;
pub mod login;
pub mod overage;
pub mod provenance;
mod secret;
pub mod tenants;
pub mod verify;

pub use claims::{Claims, Groups};
pub use judge::{Judge, JudgeError, Judged, LookedUp, Presented, SignedIn};
pub use jwt::{Token, TokenError};
pub use secret::Secret;
pub use verify::{Cloud, Expected, Issuer, verify};

/// The most bytes that a document from an issuer may have.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// How documents of issuers are fetched. What implements it verifies TLS, follows no redirect, and stops reading after
/// [`MAX_DOCUMENT`] bytes.
pub trait Fetch: Send + Sync {
    /// The body of a 200 answer to a GET of `url`.
    fn get<'a>(&'a self, url: &'a str) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>>;
}

/// Why a document of an issuer isn't there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No connection that can be trusted, or none in time.
    #[error("couldn't reach the server: {0}")]
    Unreachable(String),
    /// An answer other than 200.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// An answer of more than [`MAX_DOCUMENT`] bytes.
    #[error("the answer has more than 1 MiB")]
    TooLarge,
}
