//! A target's own credential, as it is written.

use schemars::JsonSchema;

use super::At;

/// A credential: one kind, and where its secret comes from.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawCredential {
    /// The header field that holds it, such as `Authorization`.
    pub(in crate::config) header: Option<At<String>>,
    /// What stands before the secret in the header, such as `Bearer `.
    pub(in crate::config) prefix: Option<At<String>>,
    /// HTTP Basic.
    pub(in crate::config) basic: Option<At<RawBasic>>,
    /// The key of the query parameter that holds it.
    pub(in crate::config) query: Option<At<String>>,
    /// The file with the secret of `header` or `query`; root alone can read it.
    pub(in crate::config) value_file: Option<At<String>>,
    /// A PEM file with a client certificate and its chain.
    pub(in crate::config) client_cert: Option<At<String>>,
    /// The PEM file with the client certificate's key; root alone can read it.
    pub(in crate::config) client_key: Option<At<String>>,
    /// Azure storage's Shared Key.
    pub(in crate::config) shared_key: Option<At<RawSharedKey>>,
    /// The program, with its arguments, that prints the secret; instead of a file.
    pub(in crate::config) command: Option<At<Vec<At<String>>>>,
    /// How long the command's answer is used. Default `5m`.
    pub(in crate::config) ttl: Option<At<String>>,
}

/// HTTP Basic.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawBasic {
    /// The user's name.
    pub(in crate::config) user: At<String>,
    /// The file with the password; root alone can read it.
    pub(in crate::config) password_file: Option<At<String>>,
}

/// Azure storage's Shared Key.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawSharedKey {
    /// The storage account.
    pub(in crate::config) account: At<String>,
    /// The file with its key, base64; root alone can read it.
    pub(in crate::config) key_file: Option<At<String>>,
}
