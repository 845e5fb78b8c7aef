//! Host names and addresses as targets list them and as clients ask for them, in one canonical form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not a DNS name in its ASCII form, nor an address.
    #[error("`{0}` isn't a host name in ASCII form (RFC 1123; `xn--…` for other scripts) or an IP address")]
    Malformed(String),
    /// A `*` anywhere but as the whole first label, or over a single label.
    #[error("`{0}`: a wildcard stands for the first label only, as in `*.example.com`")]
    Wildcard(String),
}

/// A DNS name in canonical form: lower case, without the final dot, 253 characters at most (RFC 1123 section 2.1;
/// underscores are taken as well, since services use them).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(Box<str>);

impl Hostname {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hostname {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        };
        // A name that ends in a number would be read as an address by some and as a name by others (WHATWG URL, host
        // parsing), so it is neither.
        let numeric_end = name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()) || last.starts_with("0x"));
        if name.len() > 253 || numeric_end || !name.split('.').all(label) {
            return Err(HostError::Malformed(text.into()));
        }
        Ok(Self(name.into()))
    }
}

impl TryFrom<String> for Hostname {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> String {
        name.0.into()
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name, or an address literal (IPv4-mapped IPv6 is IPv4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// A DNS name.
    Name(Hostname),
    /// An address.
    Address(IpAddr),
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Host::Address(address.to_canonical())
    }
}

impl FromStr for Host {
    type Err = HostError;

    /// Reads a name, an IPv4 address, or an IPv6 address with or without brackets.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(address) => Ok(address.into()),
            Err(_) => text.parse().map(Host::Name),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> String {
        host.to_string()
    }
}

impl fmt::Display for Host {
    /// Writes an IPv6 address without brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => name.fmt(f),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// A host as a target lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(Host),
    /// `*.suffix`: every name with exactly one label more than the suffix, as in certificates (RFC 6125).
    Wildcard(Hostname),
}

impl HostPattern {
    /// Whether the pattern covers this host.
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (HostPattern::Exact(listed), host) => listed == host,
            (HostPattern::Wildcard(suffix), Host::Name(name)) => {
                name.as_str().split_once('.').is_some_and(|(_, rest)| rest == suffix.as_str())
            }
            (HostPattern::Wildcard(_), Host::Address(_)) => false,
        }
    }

    /// Whether it names the workload's own loopback: `localhost`, 127/8 or `::1`.
    pub fn is_loopback(&self) -> bool {
        match self {
            HostPattern::Exact(Host::Address(address)) => address.is_loopback(),
            HostPattern::Exact(Host::Name(name)) => name.as_str() == "localhost",
            HostPattern::Wildcard(_) => false,
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix("*.") {
            Some(suffix) if suffix.contains('.') && !suffix.contains('*') => Ok(HostPattern::Wildcard(suffix.parse()?)),
            None if !text.contains('*') => Ok(HostPattern::Exact(text.parse()?)),
            _ => Err(HostError::Wildcard(text.into())),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => host.fmt(f),
            HostPattern::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests;
