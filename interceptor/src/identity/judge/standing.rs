//! What becomes of a token while something goes on that it was sent with: it ends, or a newer one says something else of
//! the same principal.

use jiff::Timestamp;
use tokio::sync::watch;

use super::Judge;
use crate::identity::provenance::{Death, Digest, Known, Newest};
use crate::identity::verify::LEEWAY;
use crate::ids::WorkloadName;

impl Judge {
    /// Counts the tokens that were issued and ended, to be watched.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.provenance.watch()
    }

    /// What the issuer said last of the principal of a token of `workload`; none if the token was forgotten meanwhile.
    ///
    /// # Errors
    /// The code of why the token isn't good any more.
    pub fn standing(&self, token: &Digest, workload: &WorkloadName) -> Result<Option<Newest>, &'static str> {
        match self.provenance.find(token, workload, self.clock.now()) {
            // A service that asked for a newer one goes on or not as it likes with what it is answering already; what the
            // newer one says counts all the same.
            Known::Live(issued) | Known::Dead(issued, Death::Challenged) => Ok(Some(self.provenance.newest(&issued))),
            Known::Dead(_, Death::Revoked) => Err("token-ended"),
            Known::Expired(_) => Err("token-expired"),
            Known::OfAnother(_) | Known::Unknown => Ok(None),
        }
    }

    /// Until when a token that ends at `expiry` is accepted.
    pub fn accepted_until(&self, expiry: Timestamp) -> Timestamp {
        expiry.saturating_add(LEEWAY).unwrap_or(expiry)
    }
}
