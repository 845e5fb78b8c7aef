//! What answers are masked for, as the configuration says it. `mask` compiles and applies it.

use std::sync::Arc;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::{JsonPath, Rule};
use crate::ids::MaskName;

/// A `[[mask]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Its name.
    pub name: MaskName,
    /// The places in JSON documents whose values are masked.
    pub json: Vec<JsonPath>,
    /// The detectors of what is masked wherever it stands.
    pub detect: Vec<Arc<Rule>>,
    /// What becomes of a masked value.
    pub strategy: Strategy,
    /// Response headers and trailers whose values are masked.
    pub headers: Vec<HeaderName>,
    /// Names that a query may not mention: filtering or sorting by a masked value tells it.
    pub deny_query: Vec<Box<str>>,
}

/// What becomes of a masked value, the mildest first; where masks disagree on a value, the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// A part of it stays: an e-mail's domain, a number's last four digits.
    Partial,
    /// A keyed token of the same type takes its place, the same for the same value.
    Pseudonym,
    /// A fixed text takes its place; null for numbers and truth values.
    Redact,
    /// It is left out: the member, the element, the part of the text.
    Drop,
}
