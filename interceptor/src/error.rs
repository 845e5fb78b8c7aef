//! [`Fault`]: what stopped an operation, on three axes: what failed, whose fault it was, and what the client may be
//! told. Each module has its own error enum; a `Fault` is what the pipeline makes of it at the edge, so that the reply,
//! the metric and the event come from one value.

/// Whose fault it was. It decides the status class of the reply and whether `status` reports trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The governed process sent something that can't be accepted.
    Client,
    /// Policy says no.
    Policy,
    /// The target's server failed.
    Upstream,
    /// The configuration stands in the way.
    Operator,
    /// Interceptor failed.
    Interceptor,
}

/// What stopped an operation.
///
/// `code` is stable and documented (`docs/errors.md`); `told` is what the client is told and never holds a secret;
/// `next` is one sentence on what to do next, which a model can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {told}")]
pub struct Fault {
    /// The stable code, in kebab case.
    pub code: &'static str,
    /// Whose fault it was.
    pub blame: Blame,
    /// What happened, for the client.
    pub told: String,
    /// What to do next, for the client.
    pub next: &'static str,
}
