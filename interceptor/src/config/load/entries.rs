//! The tables that can repeat: `[[workload]]` and `[[target]]`, and what has to hold between them.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use nix::unistd::User;

use super::super::account::shared_suffix;
use super::super::raw::{At, RawMatch, RawTarget, RawWorkload};
use super::super::{Home, Host, HostPattern, Identities, Mask, Match, Protocol, Target, WorkloadSettings};
use super::Resolver;

impl Resolver<'_> {
    /// The workloads; `own` is the daemon's own cgroup.
    pub(super) fn workloads(&mut self, raw: &[RawWorkload], own: &str) -> Vec<Arc<WorkloadSettings>> {
        let mut names = HashSet::new();
        raw.iter().filter_map(|raw| self.workload(raw, own, &mut names)).map(Arc::new).collect()
    }

    pub(super) fn targets(
        &mut self,
        raw: &[RawTarget],
        identities: &Identities,
        masks: &[Arc<Mask>],
    ) -> Vec<Arc<Target>> {
        let mut names = HashSet::new();
        let mut listed = HashSet::new();
        raw.iter()
            .filter_map(|raw| self.target(raw, identities, masks, &mut names, &mut listed))
            .map(Arc::new)
            .collect()
    }

    fn workload(&mut self, raw: &RawWorkload, own: &str, names: &mut HashSet<String>) -> Option<WorkloadSettings> {
        let name = self.name(&raw.name, "workload", names);
        let matches = raw.matches.as_ref().map(|at| self.matches(at)).unwrap_or_default();
        let user = raw.user.as_ref().and_then(|at| self.run_as(at));
        let home = match raw.home.as_ref().map(|at| (at.value().as_str(), at.span())) {
            None | Some(("guarded", _)) => Home::Guarded,
            Some(("private", _)) => Home::Private,
            Some(("full", _)) => Home::Full,
            Some((other, span)) => {
                let message = format!("`{other}` isn't a way to see the home");
                self.wrong(span, message, "`guarded`, `private` or `full`");
                Home::Guarded
            }
        };
        let unix = raw.unix.iter().map(|at| self.socket(Some(at), PathBuf::new())).collect();
        let mut classes = Vec::new();
        for (class, span) in raw.class.as_ref().map(At::each).unwrap_or_default() {
            if let Err(error) = class.parse::<crate::ids::WorkloadName>() {
                self.wrong(span, error.to_string(), "a class such as `internal`");
            } else if classes.contains(class) {
                self.wrong(span, format!("`{class}` is listed twice"), "each class once");
            } else {
                classes.push(class.clone());
            }
        }
        let identity = raw.identity.as_ref().map(|at| self.source(at)).unwrap_or_default();
        let publish = self.published(raw);
        let adopt = self.adopted(raw, own);
        let containment = self.containment(raw);
        Some(WorkloadSettings {
            name: name?,
            matches,
            user,
            home,
            unix,
            publish,
            classes,
            identity,
            adopt,
            containment,
        })
    }

    fn matches(&mut self, at: &At<RawMatch>) -> Match {
        let raw = at.value();
        let mut matches = Match::default();
        let launches = raw.user.is_some() || raw.uid.is_some() || raw.group.is_some() || raw.command.is_some();
        let adopts = raw.unit.is_some() || raw.cgroup.is_some() || raw.container_label.is_some();
        if !launches && !adopts {
            let next =
                "at least one of `user`, `uid`, `group` and `command`, or of `unit`, `cgroup` and `container_label`";
            self.wrong(at.span(), "`match` is empty", next);
        }
        let lists = [raw.user.as_ref().map(At::each), raw.group.as_ref().map(At::each)];
        for (list, span) in [(&lists[0], &raw.user), (&lists[1], &raw.group)] {
            if let (Some([]), Some(at)) = (list.as_deref(), span) {
                self.wrong(at.span(), "the list is empty", "at least one name");
            }
        }
        let [users, groups] = lists;
        for (name, span) in users.unwrap_or_default() {
            matches.uids.extend(self.uid(name, span));
        }
        for (name, span) in groups.unwrap_or_default() {
            matches.gids.extend(self.gid(name, span));
        }
        if let Some(at) = &raw.uid {
            let uids = at.each();
            if uids.is_empty() {
                self.wrong(at.span(), "the list is empty", "at least one uid");
            }
            for (&uid, span) in uids {
                // The last value stands for "no user" in the kernel's calls.
                match u32::try_from(uid).ok().filter(|uid| *uid != u32::MAX) {
                    Some(uid) => matches.uids.push(uid),
                    None => self.wrong(span, format!("`{uid}` isn't a uid"), "0 to 4294967294"),
                }
            }
        }
        if let Some(at) = &raw.command {
            if at.value().is_empty() || at.value().contains(['/', '\0']) {
                let message = format!("`{}` isn't a file name", at.value());
                self.wrong(at.span(), message, "the last component of the command's path, as in `crm-mcp`");
            }
            matches.command = Some(at.value().clone());
        }
        matches
    }

    fn run_as(&mut self, at: &At<String>) -> Option<String> {
        let name = at.value();
        let uid = match name.parse::<u32>() {
            Ok(uid) => Some(uid).filter(|uid| *uid != u32::MAX),
            Err(_) => User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()),
        };
        match uid {
            Some(0) => {
                self.wrong(at.span(), format!("`{name}` is root"), "an unprivileged user: root can't be contained")
            }
            Some(_) => return Some(name.clone()),
            None => {
                let message = format!("there is no user `{name}` on this host");
                self.wrong(at.span(), message, "a name that `getent passwd` knows, or a uid");
            }
        }
        None
    }

    fn target(
        &mut self,
        raw: &RawTarget,
        identities: &Identities,
        masks: &[Arc<Mask>],
        names: &mut HashSet<String>,
        listed: &mut HashSet<(String, u16)>,
    ) -> Option<Target> {
        let name = self.name(&raw.name, "target", names);
        let protocol = match raw.protocol.as_ref().map(|at| (at.value().as_str(), at.span())) {
            None | Some(("http", _)) => Protocol::Http,
            Some(("postgres", _)) => Protocol::Postgres,
            Some(("mysql", _)) => Protocol::Mysql,
            Some(("tds", _)) => Protocol::Tds,
            Some(("mcp", _)) => Protocol::Mcp,
            Some(("opaque", _)) => Protocol::Opaque,
            Some((other, span)) => {
                let message = format!("`{other}` isn't a protocol");
                self.wrong(span, message, "`http`, `postgres`, `mysql`, `tds`, `mcp` or `opaque`");
                Protocol::Http
            }
        };
        let ports = self.ports(raw, protocol);
        if raw.hosts.value().is_empty() {
            self.wrong(raw.hosts.span(), "the target has no hosts", "at least one host");
        }
        let mut hosts: Vec<HostPattern> = Vec::new();
        for at in raw.hosts.value() {
            let Some(pattern) = self.host(at, raw.any_account) else { continue };
            let taken = ports.iter().find(|port| !listed.insert((pattern.to_string(), **port)));
            match taken {
                Some(port) => {
                    let message = format!("`{pattern}` is listed twice at port {port}");
                    self.wrong(at.span(), message, "each host once at each port");
                }
                None => hosts.push(pattern),
            }
        }
        let credential = raw.credential.as_ref().map(|at| self.credential(at, protocol, raw.any_account));
        if let Some(None) = credential {
            // The mistake is noted; a target without its credential must not come into being.
            return None;
        }
        let credential = credential.flatten();
        let issues = self.issues(raw, &hosts, identities);
        let audiences = self.target_audiences(raw, &hosts);
        let accept_foreign = self.accept_foreign(raw);
        let pin = self.pin(raw.pin.as_ref());
        let masks = self.masks_of(raw, masks);
        let cleartext = raw.cleartext;
        let name = name?;
        Some(Target {
            name,
            hosts,
            ports,
            protocol,
            cleartext,
            credential,
            issues,
            audiences,
            accept_foreign,
            pin,
            masks,
        })
    }

    fn ports(&mut self, raw: &RawTarget, protocol: Protocol) -> Vec<u16> {
        let Some(list) = &raw.ports else {
            return match protocol {
                Protocol::Http | Protocol::Mcp if raw.cleartext => vec![80, 443],
                Protocol::Http | Protocol::Mcp => vec![443],
                Protocol::Postgres => vec![5432],
                Protocol::Mysql => vec![3306],
                Protocol::Tds => vec![1433],
                Protocol::Opaque => {
                    self.wrong(raw.name.span(), "an opaque target has no usual port", "`ports = […]`");
                    Vec::new()
                }
            };
        };
        if list.value().is_empty() {
            self.wrong(list.span(), "the target has no ports", "at least one port, or no `ports` for the usual ones");
        }
        let mut ports = Vec::new();
        for at in list.value() {
            match u16::try_from(*at.value()) {
                Ok(53) => self.wrong(at.span(), "port 53 belongs to the resolver", "another port"),
                Ok(port) if port != 0 && ports.contains(&port) => {
                    self.wrong(at.span(), format!("port {port} is listed twice"), "each port once");
                }
                Ok(port) if port != 0 => ports.push(port),
                _ => self.wrong(at.span(), format!("`{}` isn't a port", at.value()), "1 to 65535"),
            }
        }
        ports
    }

    fn host(&mut self, at: &At<String>, any_account: bool) -> Option<HostPattern> {
        let pattern = self.parsed::<HostPattern>(at, "a host name, an address, or `*.suffix`")?;
        match &pattern {
            HostPattern::Wildcard(suffix) if !any_account => {
                if let Some(shared) = shared_suffix(suffix) {
                    let message = format!("`{pattern}` covers everybody's accounts under `{shared}`");
                    self.wrong(at.span(), message, "list your own hosts, or say `any_account = true`");
                    return None;
                }
            }
            HostPattern::Exact(Host::Address(address)) if no_destination(*address) => {
                self.wrong(at.span(), format!("`{pattern}` isn't an address to connect to"), "a unicast address");
                return None;
            }
            _ => {}
        }
        Some(pattern)
    }

    pub(super) fn name<T>(&mut self, at: &At<String>, kind: &str, taken: &mut HashSet<String>) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let name = self.parsed::<T>(at, "a name such as `crm`")?;
        if !taken.insert(at.value().clone()) {
            self.wrong(at.span(), format!("there are two {kind}s `{}`", at.value()), "another name");
            return None;
        }
        Some(name)
    }

    pub(super) fn parsed<T>(&mut self, at: &At<String>, expected: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let span: Range<usize> = at.span();
        at.value().parse().map_err(|error: T::Err| self.wrong(span, error.to_string(), expected)).ok()
    }
}

fn no_destination(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    address.is_unspecified() || address.is_multicast() || broadcast
}
