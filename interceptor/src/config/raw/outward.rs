//! The tables of what leaves the host: sinks of the record, and channels that people are told by.

use schemars::JsonSchema;

use super::At;

/// A sink outside the host that the record is sent to.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawExport {
    /// Its name.
    pub(in crate::config) name: At<String>,
    /// What it speaks: `syslog` (over TLS), `http` (JSON) or `otlp` (OTLP/HTTP with JSON).
    pub(in crate::config) kind: At<String>,
    /// The receiver of `syslog`: `HOST:PORT`, or the host alone for port 6514.
    pub(in crate::config) address: Option<At<String>>,
    /// Where `http` and `otlp` post to: an https URL.
    pub(in crate::config) url: Option<At<String>>,
    /// How `http` writes a batch: `ndjson` (default) or `json`, an array.
    pub(in crate::config) format: Option<At<String>>,
    /// The file with the bearer token of `http` and `otlp`, readable by root only.
    pub(in crate::config) bearer_file: Option<At<String>>,
    /// A PEM file with the roots that it is verified against. Default: those of upstreams.
    pub(in crate::config) ca: Option<At<String>>,
}

/// A channel that people are told by.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawNotify {
    /// Its name.
    pub(in crate::config) name: At<String>,
    /// What it is: `webhook` (signed JSON), `slack`, `teams` (a workflow's webhook) or `command`.
    pub(in crate::config) kind: At<String>,
    /// What it is told of. Default: everything.
    pub(in crate::config) on: Option<At<Vec<At<String>>>>,
    /// Only what concerns one of these groups of `approvers`. Default: whatever is asked of whom.
    pub(in crate::config) groups: Option<At<Vec<At<String>>>>,
    /// Where `webhook`, `slack` and `teams` post to: an https URL.
    pub(in crate::config) url: Option<At<String>>,
    /// The file with that URL, readable by root only, where the URL itself is a secret.
    pub(in crate::config) url_file: Option<At<String>>,
    /// The file with the secret that a `webhook` is signed with, readable by root only.
    pub(in crate::config) secret_file: Option<At<String>>,
    /// A PEM file with the roots that the receiver is verified against. Default: those of upstreams.
    pub(in crate::config) ca: Option<At<String>>,
    /// The program of `command` by its absolute path, and its arguments; the notification is its standard input.
    pub(in crate::config) command: Option<At<Vec<At<String>>>>,
    /// The user that it runs as, by name or uid; never root.
    pub(in crate::config) user: Option<At<String>>,
}
