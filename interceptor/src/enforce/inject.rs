//! Putting a target's credential into a request: after the permit and the record, out of sight of both, and only where
//! the request is sent to nobody else.

use http::Request;
use jiff::Timestamp;

use crate::error::{Blame, Fault};
use crate::policy::Permit;
use crate::record::Recorded;
use crate::transport::http::Metered;
use crate::vault::{Credential, Echo, VaultError};

/// Puts `credential` into a request that was permitted and recorded, and gives what finds its echo in the answer.
///
/// # Errors
/// `credential-unavailable`: then the request must not be sent.
pub fn inject(
    _permit: &Permit,
    _recorded: &Recorded,
    credential: Credential,
    request: Request<Metered>,
    at: Timestamp,
) -> Result<(Request<Metered>, Echo), Fault> {
    let (mut parts, body) = request.into_parts();
    let echo = credential.inject(&mut parts, at).map_err(|error| unavailable(&error))?;
    Ok((Request::from_parts(parts, body), echo))
}

/// What is told where a credential can't be had. Why is in the daemon's log: it names files of the operator's.
pub fn unavailable(error: &VaultError) -> Fault {
    tracing::debug!(%error, "a credential can't be used");
    metrics::counter!("interceptor_credentials_unavailable_total").increment(1);
    Fault {
        code: "credential-unavailable",
        blame: Blame::Operator,
        told: "the target's credential can't be had, so nothing was sent".into(),
        next: "ask the operator of this host, whose log says why; retrying will not help until then",
    }
}
