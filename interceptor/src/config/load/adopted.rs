//! What a `[[workload]]` says of processes that are there already.

use std::collections::BTreeSet;
use std::path::Path;

use interceptor_common::DNS_PORT;

use super::super::raw::{At, OneOrMany, RawWorkload};
use super::super::{Adopt, Level, Pattern, Publish, Targets, slice_path};
use super::Resolver;

impl Resolver<'_> {
    pub(super) fn containment(&mut self, raw: &RawWorkload) -> Level {
        match raw.containment.as_ref().map(|at| (at.value().as_str(), at.span())) {
            None | Some(("contained", _)) => Level::Contained,
            Some(("steered", _)) => Level::Steered,
            Some((other, span)) => {
                self.wrong(span, format!("`{other}` isn't a level of containment"), "`contained` or `steered`");
                Level::Contained
            }
        }
    }

    /// Where it can be called.
    pub(super) fn published(&mut self, raw: &RawWorkload) -> Vec<Publish> {
        let mut published: Vec<Publish> = Vec::new();
        for at in &raw.publish {
            match at.value().parse::<Publish>() {
                Ok(one) if published.iter().any(|other| other.outside == one.outside) => {
                    self.wrong(
                        at.span(),
                        format!("`{}` is published twice", one.outside),
                        "each address and port once",
                    );
                }
                Ok(one) => published.push(one),
                Err(error) => {
                    let message = format!("`{}` can't be published: {error}", at.value());
                    self.wrong(at.span(), message, "`127.0.0.1:8000:8000`: where callers connect, and the port inside");
                }
            }
        }
        published
    }

    /// Published ports that the workload's own loopback hasn't: calls to them would come back to the daemon, without end.
    pub(super) fn published_beside(&mut self, workloads: &[RawWorkload], targets: &Targets) {
        let steered: BTreeSet<u16> = targets.loopback_ports().chain([DNS_PORT]).collect();
        for at in workloads.iter().flat_map(|workload| &workload.publish) {
            // What can't be read was told already.
            let Ok(one) = at.value().parse::<Publish>() else { continue };
            if steered.contains(&one.inside) {
                let message = format!("port {} of the workload's loopback leads to the daemon", one.inside);
                self.wrong(at.span(), message, "a port that no target names on `localhost`, and not 53");
            }
        }
    }

    /// The cgroups that the workload is adopted from; empty if it is launched. `own` is the daemon's own cgroup, which nothing
    /// may adopt.
    pub(super) fn adopted(&mut self, raw: &RawWorkload, own: &str) -> Vec<Adopt> {
        let Some(at) = &raw.matches else { return Vec::new() };
        let found = at.value();
        let mut selectors = Vec::new();
        for (name, span) in each(found.unit.as_ref()) {
            let kinds = [".service", ".scope"];
            let is_plain = !name.contains(['/', '*', '\0']);
            let slice = slice_path(&name).filter(|_| is_plain).and_then(|path| Pattern::new(&path).ok());
            if slice.as_ref().is_some_and(|path| covers(path, own)) {
                self.wrong(
                    span,
                    format!("`{name}` is where the daemon and what it launches are"),
                    "a unit beside them",
                );
            } else if slice.is_some()
                || is_plain && kinds.iter().any(|kind| name.len() > kind.len() && name.ends_with(kind))
            {
                // Wherever its manager keeps it.
                if Path::new(own).iter().any(|part| part == name.as_str()) {
                    let message = format!("`{name}` is where the daemon and what it launches are");
                    self.wrong(span, message, "a unit beside it");
                }
                selectors.push(Adopt::Unit(name));
            } else {
                self.wrong(span, format!("`{name}` isn't a unit"), "its whole name, as in `crm-mcp.service`");
            }
        }
        for (path, span) in each(found.cgroup.as_ref()) {
            match Pattern::new(&path) {
                Ok(pattern) if covers(&pattern, own) => {
                    let message = format!("`{path}` is where the daemon and what it launches are");
                    self.wrong(span, message, "a cgroup beside them");
                }
                Ok(pattern) => selectors.push(Adopt::Cgroup(pattern)),
                Err(error) => {
                    self.wrong(span, format!("`{path}` can't be adopted: {error}"), "as `/proc/PID/cgroup` shows it")
                }
            }
        }
        for (label, span) in each(found.container_label.as_ref()) {
            if label.split('=').next().is_some_and(|key| !key.is_empty()) && !label.contains('\0') {
                selectors.push(Adopt::ContainerLabel(label));
            } else {
                self.wrong(span, format!("`{label}` isn't a label"), "`key=value`, or `key`");
            }
        }
        if !selectors.is_empty() {
            let launched =
                found.user.is_some() || found.uid.is_some() || found.group.is_some() || found.command.is_some();
            if launched {
                let message = "a workload is launched or adopted, not both";
                self.wrong(at.span(), message, "`user`, `uid`, `group` and `command` in a `[[workload]]` of their own");
            }
            let given = [
                ("user", raw.user.as_ref().map(At::span)),
                ("home", raw.home.as_ref().map(At::span)),
                ("publish", raw.publish.first().map(At::span)),
            ];
            for (key, given) in given {
                if let Some(span) = given {
                    let message = format!("`{key}` is for launched workloads");
                    self.wrong(span, message, "nothing: who started the processes decided it");
                }
            }
        }
        selectors
    }
}

fn each(at: Option<&At<OneOrMany<String>>>) -> Vec<(String, std::ops::Range<usize>)> {
    at.map(At::each).unwrap_or_default().into_iter().map(|(text, span)| (text.clone(), span)).collect()
}

/// Whether the daemon's own cgroups, or what they are in, fit.
fn covers(pattern: &Pattern, own: &str) -> bool {
    ["daemon", "workloads"].iter().any(|name| {
        Path::new(&format!("/{own}/{name}")).ancestors().filter_map(Path::to_str).any(|path| pattern.fits(path))
    })
}
