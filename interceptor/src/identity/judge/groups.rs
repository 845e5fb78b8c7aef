//! The groups of principals whose tokens don't tell them: looked up in the directory of their tenant.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use super::{Judge, cloud};
use crate::config::Identities;
use crate::identity::overage::Overage;
use crate::policy::Principal;

/// Groups that were looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookedUp {
    /// The groups, `<tenant>/<id>`.
    pub groups: Vec<String>,
    /// Until when they are believed.
    pub until: Timestamp,
    /// How many tokens had been issued, to all workloads, when they were asked for.
    pub seen: u64,
}

impl Judge {
    /// The groups of a principal whose token doesn't tell them, asked for when at least `wanted` tokens had been issued
    /// ([`Newest`](crate::identity::provenance::Newest)); 0 where any answer will do that is believed still. None if they
    /// can't be had.
    pub async fn groups(&self, identities: &Identities, principal: &Principal, wanted: u64) -> Option<LookedUp> {
        let (tenant, object) = principal.id.as_str().split_once('/')?;
        let tenant = identities.tenant(tenant.parse().ok()?).filter(|tenant| tenant.directory.is_some())?;
        let graph = cloud(tenant).graph;
        let overage = {
            let mut all = self.overages.lock().unwrap_or_else(PoisonError::into_inner);
            let make = || Arc::new(Overage::new(&graph, Arc::clone(&self.directory), Arc::clone(&self.clock)));
            Arc::clone(all.entry(graph.clone()).or_insert_with(make))
        };
        let seen = self.provenance.issued();
        match overage.groups((tenant.id, object.parse().ok()?), (wanted, seen)).await {
            Ok(answered) => Some(LookedUp {
                groups: answered.groups.iter().map(|group| format!("{}/{group}", tenant.id)).collect(),
                until: answered.until(),
                seen: answered.seen,
            }),
            Err(error) => {
                tracing::warn!(%error, principal = %principal.id, "the groups of a principal are unknown");
                None
            }
        }
    }
}
