//! Ways to a destination that is no target, out of a launched workload with everything that it really has around it
//! (namespaces, seccomp, hooks, the daemon): a test each, with what the process sees. What gets as far as the proxy is
//! refused there, and its original destination is in the record.

use std::os::unix::net::UnixListener;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, GRAPH_TARGET, Order, READ_ONLY, UID};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;

struct Scene {
    daemon: Daemon,
    graph: Graph,
}

impl Scene {
    fn new() -> Result<Self> {
        let graph = Graph::start(&[])?;
        // Bytes of no protocol aren't waited upon for long.
        let more = "[limits]\ndetect_timeout = \"300ms\"\n".to_owned();
        let database =
            "[[target]]\nname = \"crm\"\nhosts = [\"198.51.100.9\"]\nports = [5432]\nprotocol = \"postgres\"\n";
        let targets = format!("{GRAPH_TARGET}{database}");
        let order =
            Order { bring: vec!["probe"], purpose: "escape", more, targets, ..Order::for_graph(&graph, READ_ONLY) };
        Ok(Self { daemon: Daemon::start(&order)?, graph })
    }

    /// What the probe says of an attempt inside.
    fn attempt(&self, attempt: &[&str]) -> Result<String> {
        let probe = self.daemon.binary("probe");
        let probe = probe.to_str().context("a path in UTF-8")?;
        let Output { status, stdout, stderr } = self.daemon.run(&[&[probe], attempt].concat()).output()?;
        ensure!(status.success(), "{attempt:?}: {status}: {}", String::from_utf8_lossy(&stderr));
        Ok(String::from_utf8(stdout)?.trim_end().to_owned())
    }

    /// The original destinations that are recorded as refused, for this reason.
    fn refused(&self, reason: &str) -> Result<Vec<String>> {
        let sessions = self.daemon.json(&["sessions", "list"])?;
        let sessions = sessions.as_array().context("a list")?;
        ensure!(sessions.iter().all(|one| one["reason"] == reason), "{sessions:?}");
        sessions.iter().map(|one| Ok(one["original"].as_str().context("an original")?.to_owned())).collect()
    }

    fn finish(self) -> Result<()> {
        ensure!(self.graph.connections() == 0, "the upstream was reached");
        self.daemon.finish()
    }
}

/// A test for each line: the attempt, what the process sees, and the destinations that the proxy refused for it.
macro_rules! escapes {
    ($($name:ident: $attempt:expr => $seen:literal, $refused:expr;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            require_root!(Ok(()));
            let scene = Scene::new()?;
            let seen = scene.attempt(&$attempt)?;
            let refused: Vec<String> = scene.refused("not-a-target")?;
            let expected: &[&str] = &$refused;
            ensure!(seen == $seen && refused == expected, "it saw {seen}; refused was {refused:?}");
            scene.finish()
        }
    )*};
}

escapes! {
    a_plain_connect: ["tcp", "plain", "198.51.100.7:443"] => "ECONNRESET", ["198.51.100.7:443"];
    a_plain_connect_v6: ["tcp", "plain", "[2001:db8::7]:443"] => "ECONNRESET", ["[2001:db8::7]:443"];
    udp: ["udp", "198.51.100.7:443"] => "ECONNREFUSED", [];
    udp_v6: ["udp", "[2001:db8::7]:443"] => "ECONNREFUSED", [];
    udp_v4_mapped: ["udp", "[::ffff:198.51.100.7]:443"] => "ECONNREFUSED", [];
    udp_to_the_metadata_address: ["udp", "169.254.169.254:80"] => "ECONNREFUSED", [];
    fast_open: ["tcp", "fast-open", "198.51.100.7:443"] => "ECONNRESET", ["198.51.100.7:443"];
    fast_open_v6: ["tcp", "fast-open", "[2001:db8::7]:443"] => "ECONNRESET", ["[2001:db8::7]:443"];
    fast_open_by_connect: ["tcp", "fast-open-connect", "198.51.100.7:443"] => "ECONNRESET", ["198.51.100.7:443"];
    bind_before_connect: ["tcp", "bound", "198.51.100.7:443"] => "ECONNRESET", ["198.51.100.7:443"];
    bind_before_connect_v6: ["tcp", "bound", "[2001:db8::7]:443"] => "ECONNRESET", ["[2001:db8::7]:443"];
    bind_to_the_destination: ["tcp", "bound-to-it", "198.51.100.7:443"] => "ECONNRESET", ["198.51.100.7:443"];
    bind_to_lo: ["tcp", "device", "198.51.100.7:443"] => "ECONNRESET", ["198.51.100.7:443"];
    unspec_reconnect: ["tcp", "again", "198.51.100.7:443"] => "ECONNRESET", ["198.51.100.7:443"];
    unspec_reconnect_v6: ["tcp", "again", "[2001:db8::7]:443"] => "ECONNRESET", ["[2001:db8::7]:443"];
    v4_mapped: ["tcp", "plain", "[::ffff:198.51.100.7]:443"] => "ECONNRESET", ["198.51.100.7:443"];
    v4_mapped_fast_open: ["tcp", "fast-open", "[::ffff:198.51.100.7]:443"] => "ECONNRESET", ["198.51.100.7:443"];
    link_local: ["tcp", "plain", "169.254.169.254:80"] => "ECONNRESET", ["169.254.169.254:80"];
    link_local_v6: ["tcp", "plain", "[fe80::1%1]:80"] => "ECONNRESET", ["[fe80::1]:80"];
    private_address: ["tcp", "plain", "10.0.0.1:5432"] => "ECONNRESET", ["10.0.0.1:5432"];
    no_address: ["tcp", "plain", "0.0.0.0:443"] => "ECONNREFUSED", [];
    no_address_v6: ["tcp", "plain", "[::]:443"] => "ECONNREFUSED", [];
    loopback_is_its_own: ["tcp", "plain", "127.0.0.1:443"] => "ECONNREFUSED", [];
    a_squatter_on_the_destination: ["tcp", "squatted", "198.51.100.7:8443"] => "ECONNRESET", ["198.51.100.7:8443"];
    a_squatter_on_the_destination_v6: ["tcp", "squatted", "[2001:db8::7]:8443"] => "ECONNRESET", ["[2001:db8::7]:8443"];
    broadcast: ["tcp", "plain", "255.255.255.255:443"] => "ENETUNREACH", [];
    multicast: ["tcp", "plain", "224.0.0.251:443"] => "ENETUNREACH", [];
    // unix, IPv4, IPv6, netlink.
    all_other_families: ["families"] => "1 2 10 16", [];
}

#[test]
fn a_service_beside_the_project() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new()?;
    // In the home, which the workload sees: no filesystem view hides it, only the hooks refuse it.
    let path = scene.daemon.home().join("docker.sock");
    let _service = UnixListener::bind(&path)?;
    std::os::unix::fs::chown(&path, Some(UID), Some(UID))?;
    let seen = scene.attempt(&["connect-unix", path.to_str().context("a path in UTF-8")?])?;
    ensure!(seen == "EACCES", "{seen}");
    scene.finish()
}

#[test]
fn what_has_its_own_reason_to_be_refused() -> Result<()> {
    require_root!(Ok(()));
    for (destination, reason) in [
        // One of our synthetic addresses, never given out.
        ("55.160.0.99:443", "unallocated-address"),
        ("198.51.100.9:5432", "protocol-not-built"),
    ] {
        let scene = Scene::new()?;
        let seen = scene.attempt(&["tcp", "plain", destination])?;
        ensure!(seen == "ECONNRESET" && scene.refused(reason)? == [destination], "{destination}: {seen}");
        scene.finish()?;
    }
    Ok(())
}
