//! All targets, found by what they list. Each operation looks for its target more than once, so none is paid for by the
//! number of others.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Host, HostPattern, Target};

/// The targets, with their look-ups. The order of the file decides where two match the same host and port.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    all: Vec<Arc<Target>>,
    /// Where in the order targets stand that list a host, and that list a suffix of names.
    hosts: HashMap<Host, Vec<usize>>,
    suffixes: HashMap<String, Vec<usize>>,
}

impl Targets {
    /// The targets, in the order of the file.
    pub fn new(targets: Vec<Arc<Target>>) -> Self {
        let (mut hosts, mut suffixes): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        for (at, target) in targets.iter().enumerate() {
            for pattern in &target.hosts {
                match pattern {
                    HostPattern::Exact(host) => hosts.entry(host.clone()).or_default().push(at),
                    HostPattern::Wildcard(suffix) => suffixes.entry(suffix.to_string()).or_default().push(at),
                }
            }
        }
        Self { all: targets, hosts, suffixes }
    }

    /// The target for this host and port.
    pub fn find(&self, host: &Host, port: u16) -> Option<&Arc<Target>> {
        self.listing(host).find(|target| target.ports.contains(&port))
    }

    /// The first target that lists this host, on whatever port: what a DNS question is decided for.
    pub fn by_host(&self, host: &Host) -> Option<&Arc<Target>> {
        self.listing(host).next()
    }

    /// Those that list this host, in the order of the file.
    fn listing(&self, host: &Host) -> impl Iterator<Item = &Arc<Target>> {
        let exact = self.hosts.get(host);
        let suffix = match host {
            Host::Name(name) => name.as_str().split_once('.').and_then(|(_, rest)| self.suffixes.get(rest)),
            Host::Address(_) => None,
        };
        let (mut exact, mut suffix) = (lists(exact), lists(suffix));
        std::iter::from_fn(move || {
            let at = match (exact.first(), suffix.first()) {
                (Some(one), Some(other)) => Some(*one.min(other)),
                (one, other) => one.or(other).copied(),
            }?;
            exact = exact.strip_prefix(&[at]).unwrap_or(exact);
            suffix = suffix.strip_prefix(&[at]).unwrap_or(suffix);
            self.all.get(at)
        })
    }

    /// The first target that tokens of this audience are for.
    pub fn by_audience(&self, audience: &str) -> Option<&Arc<Target>> {
        self.all.iter().find(|target| target.takes(audience))
    }

    /// All targets, in the order of the file.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Target>> {
        self.all.iter()
    }

    /// The loopback ports that a target names (`localhost`, 127/8, `::1`): steered, unlike the rest of loopback.
    pub fn loopback_ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.all.iter().filter(|target| target.hosts.iter().any(HostPattern::is_loopback)).flat_map(|t| t.ports.clone())
    }
}

fn lists(found: Option<&Vec<usize>>) -> &[usize] {
    found.map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
