//! What a daemon is started with: its policy, its upstreams, and the configuration file that is made of them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::UID;
use crate::graph::Graph;

/// The target that [`Order::for_graph`] configures.
pub const GRAPH_TARGET: &str = r#"
[[target]]
name = "graph"
hosts = ["graph.microsoft.com"]
"#;

/// A policy: reading Graph is permitted.
pub const READ_ONLY: &str = r#"
@id("graph-read")
permit (principal, action in [Action::"reach", Action::"http:read"], resource == Target::"graph");
"#;

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct Order {
    /// What it is for, in a word: part of the names of its folder, cgroup and pins.
    pub purpose: &'static str,
    /// The policy.
    pub policy: String,
    /// `[upstream.resolve]`.
    pub resolve: Vec<(String, SocketAddr)>,
    /// The upstreams' CAs, PEM.
    pub extra_ca: String,
    /// The `[[target]]` tables.
    pub targets: String,
    /// More tables of the configuration; `{name}` stands for the name of the daemon's cgroup.
    pub more: String,
    /// Keys of the workload `crm`, besides its name and match.
    pub workload: String,
    /// Binaries of the `tests` package that workloads run.
    pub bring: Vec<&'static str>,
}

impl Order {
    /// For `graph` as graph.microsoft.com, with the policy `policy`.
    pub fn for_graph(graph: &Graph, policy: &str) -> Self {
        Self {
            purpose: "test",
            policy: policy.to_owned(),
            resolve: vec![("graph.microsoft.com".to_owned(), graph.address())],
            extra_ca: graph.ca_pem(),
            targets: GRAPH_TARGET.to_owned(),
            more: String::new(),
            workload: String::new(),
            bring: vec!["crm-mcp"],
        }
    }

    /// The configuration file.
    pub(super) fn config(&self, room: &Path, pins: &Path, name: &str) -> String {
        let (room, pins) = (room.display(), pins.display());
        let mut text = format!(
            r#"state_dir = "{room}/state"
runtime_dir = "{room}/run"
policy_dir = "{room}/etc/policy.d"
pin_dir = "{pins}"
docker_dir = "{room}/docker"
podman_dir = "{room}/podman"
cgroup = "{name}"

[upstream]
extra_ca = ["{room}/etc/extra-ca.pem"]

[upstream.resolve]
"#
        );
        for (host, address) in &self.resolve {
            // Writing to a string can't fail.
            let _ = writeln!(text, "\"{host}\" = \"{address}\"");
        }
        let _ = write!(
            text,
            "\n[[workload]]\nname = \"crm\"\nmatch = {{ uid = {UID} }}\n{}\n{}\n{}",
            self.workload, self.targets, self.more
        );
        text.replace("{name}", name)
    }
}
