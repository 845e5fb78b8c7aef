//! How people sign in, as it is written.

use schemars::JsonSchema;

use super::At;

/// How people who answer held operations sign in to Entra.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawLogin {
    /// The tenant that they sign in to: an id of a `[[tenant]]`.
    pub(in crate::config) tenant: At<String>,
    /// The id of the application that they sign in to: a public client with the redirect URI `http://localhost`.
    pub(in crate::config) client: At<String>,
    /// What the answer of an approver needs: `none` (default), `login` (to be signed in) or `bound` (a sign-in for this very
    /// answer).
    pub(in crate::config) required: Option<At<String>>,
    /// How long a sign-in is good for. Default `8h`.
    #[serde(rename = "for")]
    pub(in crate::config) lasts: Option<At<String>>,
}
