//! The ledger of launched workloads: what is counted outlives the daemon, and goes with the workload.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::bpf::Kernel;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;

struct Scene {
    _graph: Graph,
    _allowed: UnixListener,
    daemon: Daemon,
    running: Child,
    output: PathBuf,
    launch: String,
}

impl Scene {
    /// A daemon with a workload that runs this; `$0` is the probe, and `$1` a unix socket that it may connect to.
    fn start(script: &str) -> Result<Self> {
        let graph = Graph::start(&[])?;
        let workload = "unix = [\"/var/lib/{name}/nobody.sock\"]\n".to_owned();
        let order = Order { bring: vec!["probe"], purpose: "ledger", workload, ..Order::for_graph(&graph, READ_ONLY) };
        let daemon = Daemon::start(&order)?;
        let socket = daemon.room().join("nobody.sock");
        let allowed = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
        let socket = socket.to_str().context("a path in UTF-8")?;
        let probe = daemon.binary("probe");
        let probe = probe.to_str().context("a path in UTF-8")?;
        let output = daemon.room().join("output");
        let running = daemon
            .run(&["/bin/sh", "-c", script, probe, socket])
            .stdout(fs::File::create(&output)?)
            .stdin(Stdio::null())
            .spawn()?;
        let mut scene = Self { _graph: graph, _allowed: allowed, daemon, running, output, launch: String::new() };
        let launch = || -> Result<Option<String>> {
            Ok(scene.daemon.json(&["workloads", "list"])?[0]["launch"].as_str().map(str::to_owned))
        };
        scene.until("it isn't launched", || Ok(launch()?.is_some()))?;
        scene.launch = launch()?.context("a launch")?;
        Ok(scene)
    }

    fn until(&self, otherwise: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so()? {
            ensure!(Instant::now() < deadline, "{otherwise}:\n{}", self.daemon.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn has_said(&self, what: &str) -> Result<bool> {
        Ok(fs::read_to_string(&self.output)?.lines().any(|line| line == what))
    }

    /// Its counts of a kind, as the daemon has them now.
    fn counts(&self, kind: &str) -> Result<serde_json::Value> {
        // It fails when something is unexplained, and prints all the same.
        let output = self.daemon.interceptor(&["ledger", "--json"]).output()?;
        let ledger: serde_json::Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        let found = ledger.as_array().context("a list")?.iter().find(|one| one["launch"] == self.launch.as_str());
        Ok(found.with_context(|| format!("no counts: {ledger}"))?["kinds"][kind].clone())
    }

    /// Those of its connects, as they are recorded.
    fn recorded(&self) -> Result<Option<serde_json::Value>> {
        let database = self.daemon.database().display().to_string();
        let output = self.daemon.interceptor(&["ledger", "--json", "--db", &database]).output()?;
        let ledger: serde_json::Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        let found = ledger.as_array().context("a list")?.iter().find(|one| one["launch"] == self.launch.as_str());
        Ok(found.map(|found| found["kinds"]["tcp"].clone()))
    }

    /// Ends the workload, and waits until whoever launched it knows.
    fn end(&mut self) -> Result<()> {
        fs::write(self.daemon.cgroup().join("workloads").join(&self.launch).join("cgroup.kill"), "1")?;
        // It ends with its workload, or now.
        let _ = self.running.kill();
        self.running.wait()?;
        Ok(())
    }
}

/// Takes the steering away as an administrator could, so that the workload's own listener answers.
#[test]
fn what_is_unexplained_stays_so_after_a_restart() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::start(r#""$0" slip 198.51.100.7:8443; sleep 300"#)?;
    let link = scene.daemon.pins().join("v1").join(&scene.launch).join("link");
    scene.until("no hole was opened", || {
        // It may be gone already.
        let _ = fs::remove_file(&link);
        scene.has_said("ok")
    })?;
    scene.until("it isn't steered again", || Ok(link.exists()))?;
    let before = scene.counts("tcp")?;
    ensure!(before["unexplained"].as_u64().is_some_and(|count| count > 0), "{before}");
    scene.daemon.kill9()?;
    scene.daemon.restart_despite("ledger-unexplained")?;
    let after = scene.counts("tcp")?;
    ensure!(after == before, "{before}, and then {after}");
    scene.end()?;
    scene.until("its end isn't recorded", || Ok(scene.recorded()?.as_ref() == Some(&before)))?;
    scene.daemon.finish()
}

#[test]
fn unix_sockets_are_counted_whether_a_rule_allows_them_or_not() -> Result<()> {
    require_root!(Ok(()));
    let script = r#""$0" connect-unix "$1"; "$0" connect-unix "$1"; "$0" connect-unix /nowhere; echo done; sleep 300"#;
    let mut scene = Scene::start(script)?;
    scene.until("it doesn't get that far", || scene.has_said("done"))?;
    ensure!(scene.has_said("ok")? && scene.has_said("EACCES")?, "{}", fs::read_to_string(&scene.output)?);
    let unix = scene.counts("unix")?;
    ensure!(unix["attempted"] == 3 && unix["allowed"] == 2 && unix["refused"] == 1, "{unix}");
    scene.end()?;
    scene.daemon.finish()
}

#[test]
fn what_ends_while_no_daemon_runs_is_counted_and_leaves_nothing() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::start(r#""$0" tcp plain 198.51.100.7:443; sleep 300"#)?;
    scene.until("it isn't steered", || scene.has_said("ECONNRESET"))?;
    ensure!(scene.recorded()?.is_none(), "it is recorded before it ends");
    scene.daemon.kill9()?;
    scene.end()?;
    scene.daemon.restart()?;
    scene.until("its counts aren't recorded", || Ok(scene.recorded()?.is_some()))?;
    let tcp = scene.recorded()?.context("counts")?;
    ensure!(tcp["attempted"] == 1 && tcp["mediated"] == 1 && tcp["unexplained"] == 0, "{tcp}");
    ensure!(scene.daemon.stop()?.success());
    let kernel = Kernel::load(scene.daemon.pins(), &scene.daemon.cgroup().join("workloads"))?;
    ensure!(kernel.spaces()?.is_empty(), "the kernel keeps something of {:?}", kernel.spaces()?);
    scene.daemon.finish()
}
