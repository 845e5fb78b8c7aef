//! The credential of a target, as it is configured: what it is, where its secret comes from, and what of a request it
//! takes the place of. The secret itself is `vault`'s.

use std::path::PathBuf;
use std::time::Duration;

/// A target's `credential`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialSettings {
    /// How it authenticates.
    pub kind: CredentialKind,
    /// How long a secret that was read is used before it is read again.
    pub ttl: Duration,
}

/// How a credential authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// A header field: `prefix` and the secret behind it.
    Header {
        /// The field's name, in lower case.
        name: String,
        /// What stands before the secret, as in `Bearer `.
        prefix: String,
        /// Where the secret comes from.
        source: SecretSource,
    },
    /// HTTP Basic (RFC 7617).
    Basic {
        /// The user's name.
        user: String,
        /// Where the password comes from.
        source: SecretSource,
    },
    /// A query parameter.
    Query {
        /// Its key.
        key: String,
        /// Where its value comes from.
        source: SecretSource,
    },
    /// A client certificate: PEM files with the chain and the key.
    ClientCertificate {
        /// The certificate, with its chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// Azure storage's Shared Key.
    SharedKey {
        /// The storage account.
        account: String,
        /// Where its key (base64) comes from.
        source: SecretSource,
    },
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that root alone can read.
    File(PathBuf),
    /// What a command prints: the program and its arguments, run without a shell.
    Command(Vec<String>),
}

impl CredentialSettings {
    /// Whether a header field that a process sends is taken out in favour of the credential. `_` counts as `-`, because there
    /// are servers that read both as one (CGI, RFC 3875 section 4.1.18).
    pub fn replaces_header(&self, field: &str) -> bool {
        let is = |name: &str| {
            let same = |(a, b): (u8, u8)| a.eq_ignore_ascii_case(&b) || matches!((a, b), (b'_', b'-') | (b'-', b'_'));
            field.len() == name.len() && field.bytes().zip(name.bytes()).all(same)
        };
        match &self.kind {
            CredentialKind::ClientCertificate { .. } => false,
            CredentialKind::Header { name, .. } if is(name) => true,
            CredentialKind::SharedKey { .. } if is("x-ms-date") => true,
            _ => is("authorization"),
        }
    }

    /// Whether a query key (decoded) that a process sends is taken out in favour of the credential.
    pub fn replaces_parameter(&self, name: &str) -> bool {
        matches!(&self.kind, CredentialKind::Query { key, .. } if name.eq_ignore_ascii_case(key))
    }
}
