//! Why an upstream wasn't reached, and what the client is told of it.

use std::io;
use std::net::IpAddr;

use rustls::CertificateError;

use super::lookup::LookupError;
use crate::config::{Host, Hostname};
use crate::error::{Blame, Fault};
use crate::vault::VaultError;

/// Why an upstream wasn't reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name doesn't exist, or has no address.
    #[error("the name `{host}` has no address")]
    Unresolved {
        /// The name.
        host: String,
    },
    /// The look-up failed; the name may exist.
    #[error("the name `{host}` couldn't be looked up: {problem}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        problem: String,
    },
    /// The name leads to an address that no upstream can have.
    #[error("`{host}` leads to {address}, which no upstream can have")]
    Forbidden {
        /// The name or address.
        host: String,
        /// Where it leads.
        address: IpAddr,
    },
    /// Nothing listens there.
    #[error("`{host}` refused the connection on port {port}")]
    Refused {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// No address could be reached.
    #[error("`{host}` port {port} can't be reached: {source}")]
    Unreachable {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// What the system said of the last address.
        source: io::Error,
    },
    /// It took too long.
    #[error("`{host}` port {port} didn't answer in time")]
    Timeout {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The certificate isn't one that proves the name.
    #[error("the certificate of `{host}` can't be trusted: {problem}")]
    Untrusted {
        /// The name or address.
        host: String,
        /// What is wrong with it, in words.
        problem: String,
    },
    /// The client certificate can't be had. What the vault says stays in the log: it names files of the operator's.
    #[error("the target's client certificate can't be had, so no connection was made")]
    Credential(#[from] VaultError),
    /// The TLS handshake failed for another reason.
    #[error("the TLS handshake with `{host}` failed: {source}")]
    Tls {
        /// The name or address.
        host: String,
        /// What rustls or the system said.
        source: io::Error,
    },
}

impl DialError {
    pub(super) fn of_lookup(name: &Hostname, error: LookupError) -> DialError {
        let host = name.to_string();
        match error {
            LookupError::NoSuchName | LookupError::NoAddress => DialError::Unresolved { host },
            error @ (LookupError::Failed(_) | LookupError::Busy) => {
                DialError::Lookup { host, problem: error.to_string() }
            }
        }
    }

    pub(super) fn of_connect(host: &Host, port: u16, source: io::Error) -> DialError {
        let host = host.to_string();
        match source.kind() {
            io::ErrorKind::ConnectionRefused => DialError::Refused { host, port },
            io::ErrorKind::TimedOut => DialError::Timeout { host, port },
            _ => DialError::Unreachable { host, port, source },
        }
    }

    pub(super) fn of_tls(host: &Host, source: io::Error) -> DialError {
        let host = host.to_string();
        match source.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(error)) => DialError::Untrusted { host, problem: in_words(error) },
            Some(rustls::Error::NoCertificatesPresented) => {
                DialError::Untrusted { host, problem: "it presented none".to_owned() }
            }
            _ => DialError::Tls { host, source },
        }
    }
}

impl From<&DialError> for Fault {
    /// All of it is the upstream's fault but [`DialError::Forbidden`] and [`DialError::Credential`], which the operator
    /// has to mend.
    fn from(error: &DialError) -> Fault {
        let (code, blame, next) = match error {
            DialError::Unresolved { .. } => {
                ("upstream-unresolved", Blame::Upstream, "check the host name; retrying won't help")
            }
            DialError::Lookup { .. } => {
                ("upstream-lookup-failed", Blame::Upstream, "retry later; if it stays, the host's DNS needs mending")
            }
            DialError::Forbidden { .. } => (
                "upstream-forbidden-address",
                Blame::Operator,
                "ask the operator to correct the name's address; retrying won't help",
            ),
            DialError::Refused { .. } => {
                ("upstream-refused", Blame::Upstream, "check the port, or retry when the service is up")
            }
            DialError::Unreachable { .. } => {
                ("upstream-unreachable", Blame::Upstream, "retry later; if it stays, the host's network needs mending")
            }
            DialError::Timeout { .. } => ("upstream-timeout", Blame::Upstream, "retry later"),
            DialError::Untrusted { .. } => (
                "upstream-untrusted",
                Blame::Upstream,
                "ask the operator to mend the certificate, or to add its root to `extra_ca`; retrying won't help",
            ),
            DialError::Credential(_) => (
                "credential-unavailable",
                Blame::Operator,
                "ask the operator of this host, whose log says why; retrying won't help until then",
            ),
            DialError::Tls { .. } => {
                ("upstream-tls", Blame::Upstream, "check that the port speaks TLS 1.2 or 1.3; retrying won't help")
            }
        };
        Fault { code, blame, told: error.to_string(), next }
    }
}

fn in_words(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it isn't valid yet".to_owned(),
        CertificateError::UnknownIssuer => "no root that this host trusts issued it".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::Revoked => "it was revoked".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        other => other.to_string(),
    }
}
