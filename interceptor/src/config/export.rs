//! Sinks outside the host that the record is sent to (`[[export]]`), as they are configured. How it is sent is
//! `export`'s.

use std::fmt;
use std::path::PathBuf;

use super::Host;
use crate::ids::ExportName;

/// An `[[export]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSettings {
    /// Its name.
    pub name: ExportName,
    /// What it speaks, and where it is.
    pub sink: SinkSettings,
    /// A PEM file with the roots that it is verified against; none: those of upstreams.
    pub ca: Option<PathBuf>,
}

/// What a sink speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkSettings {
    /// Syslog over TLS (RFC 5425).
    Syslog {
        /// The receiver.
        host: Host,
        /// Its port.
        port: u16,
    },
    /// JSON, posted.
    Http {
        /// Where to: an https URL.
        url: String,
        /// How a batch is written.
        format: BatchFormat,
        /// The file with the bearer token.
        bearer: Option<PathBuf>,
    },
    /// OTLP logs as JSON, posted.
    Otlp {
        /// Where to: an https URL, with its path.
        url: String,
        /// The file with the bearer token.
        bearer: Option<PathBuf>,
    },
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFormat {
    /// A JSON object a line.
    Lines,
    /// One JSON array.
    Array,
}

/// Whether something can be posted to this URL: https, with a host, without a user or a fragment.
pub fn is_post_url(url: &str) -> bool {
    let parsed = url.parse::<http::Uri>().ok().filter(|uri| {
        let plain = uri.authority().is_some_and(|part| !part.as_str().contains('@'));
        uri.scheme_str() == Some("https") && plain && !url.contains('#')
    });
    parsed.and_then(|uri| uri.host().and_then(|host| host.parse::<Host>().ok())).is_some()
}

impl SinkSettings {
    /// `syslog`, `http` or `otlp`.
    pub fn kind(&self) -> &'static str {
        match self {
            SinkSettings::Syslog { .. } => "syslog",
            SinkSettings::Http { .. } => "http",
            SinkSettings::Otlp { .. } => "otlp",
        }
    }
}

/// Name and kind: what its cursor is kept under.
impl fmt::Display for ExportSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.sink.kind())
    }
}
