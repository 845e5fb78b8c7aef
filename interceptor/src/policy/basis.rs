//! What determined a verdict, and what an allow obliges to.

use serde::{Deserialize, Serialize};

use super::Terms;
use crate::config::PayloadLevel;
use crate::ids::{BreakGlassId, GrantId, MaskName};

/// What determined a verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The snapshot's generation.
    pub generation: u64,
    /// The ids of the determining policies, sorted.
    pub policies: Vec<String>,
    /// Their `@reason`s, and what Cedar's diagnostics said, in the order of the ids.
    pub reasons: Vec<String>,
    /// What an allow obliges to.
    pub obligations: Obligations,
    /// The grant that it is allowed by, of which this is a use; none where policy alone allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// The broken glass that it is allowed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlassId>,
}

/// What an allow obliges to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligations {
    /// `@max_session`: the longest that the connection may live, in seconds; the least of all.
    pub max_session: Option<u64>,
    /// `@record`: what is kept of the request and its answer; the most of all. None: what the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<PayloadLevel>,
    /// `@mask`: what the answer is masked for, with the target's own masks; all of them together, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<MaskName>,
    /// `@approval`: who has to say yes first; of all that are named, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Box<Terms>>,
}

impl Basis {
    /// Whether something besides policy lets it through: a grant, or the broken glass.
    pub fn is_let_through(&self) -> bool {
        self.grant.is_some() || self.break_glass.is_some()
    }
}
