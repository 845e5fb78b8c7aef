//! Which masks an operation's answer goes through, and which operations they forbid: those that would tell what is masked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Settings;
use crate::error::{Blame, Fault};
use crate::ids::MaskName;
use crate::mask::{BadRule, Masks, Plan};
use crate::policy::HttpRequest;

/// The masks of one generation.
#[derive(Debug, Default)]
pub struct Masking {
    masks: Masks,
    /// What goes together; at most as many as policies and targets name.
    plans: Mutex<HashMap<Vec<MaskName>, Arc<Plan>>>,
}

impl Masking {
    /// Compiles the masks of a configuration.
    ///
    /// # Errors
    /// A detector that is too large, or too many of them.
    pub fn new(settings: &Settings) -> Result<Self, BadRule> {
        let masks = Masks::new(&settings.masks)?.bounded(settings.limits.expansion);
        Ok(Self { masks, plans: Mutex::default() })
    }

    /// What the masks of these names do to the answer of a request; none where there are no names.
    ///
    /// # Errors
    /// The request can't be answered under these masks.
    pub(super) fn of(&self, names: &[MaskName], request: &HttpRequest<'_>) -> Result<Option<Arc<Plan>>, Fault> {
        if names.is_empty() {
            return Ok(None);
        }
        if request.websocket {
            return Err(opaque());
        }
        let plan = self.plan(names).ok_or_else(unknown)?;
        match request.query.and_then(|query| plan.denies_query(query)) {
            Some(name) => Err(oracle(name)),
            None => Ok(Some(plan)),
        }
    }

    /// What the masks of these names do, whatever is asked; none where there are no names, or no such masks.
    pub(super) fn named(&self, names: &[MaskName]) -> Option<Arc<Plan>> {
        (!names.is_empty()).then(|| self.plan(names)).flatten()
    }

    fn plan(&self, names: &[MaskName]) -> Option<Arc<Plan>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(names) {
            return Some(Arc::clone(plan));
        }
        let plan = Arc::new(self.masks.plan(names)?);
        plans.insert(names.to_vec(), Arc::clone(&plan));
        Some(plan)
    }
}

fn opaque() -> Fault {
    Fault {
        code: "masked-websocket",
        blame: Blame::Policy,
        told: "what this target answers is masked, and a WebSocket can't be".into(),
        next: "use plain requests; retrying will not help",
    }
}

fn oracle(name: &str) -> Fault {
    Fault {
        code: "masked-query",
        blame: Blame::Policy,
        told: format!(
            "the query mentions `{name}`, and what is masked would be told by filtering, sorting or searching by it"
        ),
        next: "leave it out of the query",
    }
}

/// Policies are loaded against the masks that there are, so this is a fault of ours.
fn unknown() -> Fault {
    Fault {
        code: "internal",
        blame: Blame::Interceptor,
        told: "a mask that policy names isn't known".into(),
        next: "ask the operator of this host",
    }
}

#[cfg(test)]
mod tests;
