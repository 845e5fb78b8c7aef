//! Hooks and steering that somebody takes away from launched workloads are put back.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Change, What};
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::unit::said;
use interceptor_tests::{recorded, require_root};

/// How long it may take.
const MOST: Duration = Duration::from_secs(2);

/// A daemon, and a workload that writes a line and connects, some times a second.
struct Scene {
    _graph: Graph,
    daemon: Daemon,
    running: Child,
    output: PathBuf,
    launch: String,
}

impl Scene {
    fn start() -> Result<Self> {
        let graph = Graph::start(&[])?;
        let order = Order { bring: vec!["probe"], purpose: "watchdog", ..Order::for_graph(&graph, READ_ONLY) };
        let daemon = Daemon::start(&order)?;
        let probe = daemon.binary("probe");
        let probe = probe.to_str().context("a path in UTF-8")?;
        let script = r#"while :; do "$0" tcp plain 198.51.100.7:443; sleep 0.5; done"#;
        let output = daemon.room().join("output");
        let running = daemon
            .run(&["/bin/sh", "-c", script, probe])
            .stdout(fs::File::create(&output)?)
            .stdin(Stdio::null())
            .spawn()?;
        let mut scene = Self { _graph: graph, daemon, running, output, launch: String::new() };
        scene.until("it isn't steered", || Ok(scene.said()?.contains("ECONNRESET")))?;
        let list = scene.daemon.json(&["workloads", "list"])?;
        scene.launch = list[0]["launch"].as_str().context("a launch")?.to_owned();
        Ok(scene)
    }

    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.output)?)
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.daemon.pins().join("v1").join(name)
    }

    fn until(&self, otherwise: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so()? {
            ensure!(Instant::now() < deadline, "{otherwise}:\n{}", self.daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether the workload stands still.
    fn is_frozen(&self) -> Result<bool> {
        let cgroup = self.daemon.cgroup().join("workloads").join(&self.launch);
        Ok(fs::read_to_string(cgroup.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"))
    }

    /// How many changes like this are recorded.
    fn recorded(&self, is_so: impl Fn(&Change) -> bool) -> Result<usize> {
        let events = recorded::events(&self.daemon.database(), 0)?;
        let is_one = |what: &What| matches!(what, What::Adoption(adoption) if is_so(&adoption.change));
        Ok(events.iter().filter(|(_, event)| is_one(&event.what)).count())
    }

    fn repaired(&self) -> Result<usize> {
        self.recorded(|change| matches!(change, Change::Repaired { .. }))
    }

    fn broken(&self) -> Result<usize> {
        self.recorded(|change| matches!(change, Change::Broken { .. }))
    }

    fn goes_on(&self) -> Result<()> {
        let before = self.said()?.len();
        self.until("it stands still", || Ok(self.said()?.len() > before))
    }

    fn finish(mut self) -> Result<()> {
        ensure!(!self.said()?.lines().any(|line| line == "ok"), "it got somewhere");
        self.running.kill()?;
        self.running.wait()?;
        self.daemon.finish()
    }
}

/// Puts a folder in the place of a pin, so that nothing can be pinned there.
fn block(pin: &Path) -> Result<()> {
    loop {
        // The watchdog may be faster.
        match fs::remove_file(pin).and_then(|()| fs::create_dir(pin)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => return Ok(other?),
        }
    }
}

#[test]
fn what_is_detached_is_attached_again_and_recorded() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::start()?;
    let link = format!("{}/link", scene.launch);
    let pins = [&*link, "unix_connect", "unix_sendmsg", "connect4", "connect6", "publish", "create", "egress"];
    for (number, pin) in pins.into_iter().map(|name| scene.pin(name)).enumerate() {
        let start = Instant::now();
        fs::remove_file(&pin)?;
        while !pin.exists() {
            ensure!(start.elapsed() < MOST, "`{}` isn't back:\n{}", pin.display(), scene.daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("`{}` was back after {:?}", pin.display(), start.elapsed());
        scene.until("no repair is recorded", || Ok(scene.repaired()? > number))?;
    }
    // The pin is there all the time, and what it is for is not.
    for (number, name) in [&*link, "unix_connect"].into_iter().enumerate() {
        let pin = scene.pin(name);
        let before = fs::metadata(&pin)?.ino();
        let start = Instant::now();
        let detached = said(Command::new(scene.daemon.binary("probe")).arg("detach").arg(&pin))?;
        ensure!(detached == "ok", "{detached}");
        // A dead link can't be mended: another one takes its place.
        while fs::metadata(&pin)?.ino() == before {
            ensure!(start.elapsed() < MOST, "`{name}` isn't back:\n{}", scene.daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        scene.until("no repair is recorded", || Ok(scene.repaired()? > pins.len() + number))?;
    }
    // It goes on, and is steered.
    let sessions = || -> Result<usize> {
        Ok(scene.daemon.json(&["sessions", "list", "--limit", "10000"])?.as_array().context("a list")?.len())
    };
    let before = sessions()?;
    scene.until("it isn't steered any more", || Ok(sessions()? > before))?;
    ensure!(scene.broken()? == 0, "something couldn't be put right");
    scene.finish()
}

#[test]
fn what_cant_be_put_back_stays_frozen_until_it_can() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::start()?;
    let pin = scene.pin("connect4");
    block(&pin)?;
    scene.until("it isn't frozen", || scene.is_frozen())?;
    scene.until("that isn't recorded", || Ok(scene.broken()? == 1))?;
    let status = scene.daemon.json(&["status"])?;
    ensure!(status["causes"].to_string().contains("hooks-gone"), "{status}");
    // It is tried again and again, and recorded once.
    let before = scene.said()?.len();
    std::thread::sleep(Duration::from_millis(2500));
    ensure!(scene.is_frozen()? && scene.said()?.len() == before, "it goes on");
    ensure!((scene.broken()?, scene.repaired()?) == (1, 0), "{} and {}", scene.broken()?, scene.repaired()?);
    fs::remove_dir(&pin)?;
    scene.until("it is frozen still", || Ok(!scene.is_frozen()?))?;
    ensure!(pin.is_file(), "it goes on without a hook");
    scene.until("that isn't recorded", || Ok(scene.repaired()? == 1))?;
    scene.goes_on()?;
    let status = scene.daemon.json(&["status"])?;
    ensure!(!status["causes"].to_string().contains("hooks-gone"), "{status}");
    scene.finish()
}

/// What is attached last can't be, and what was gone is back by then.
#[test]
fn a_repair_that_fails_in_the_end_leaves_nobody_frozen() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::start()?;
    let map = scene.pin("unix");
    block(&map)?;
    fs::remove_file(scene.pin("connect4"))?;
    scene.until("that it failed isn't recorded", || Ok(scene.broken()? == 1))?;
    scene.until("that it is back isn't recorded", || Ok(scene.repaired()? == 1))?;
    scene.until("it is frozen still", || Ok(!scene.is_frozen()?))?;
    ensure!(scene.pin("connect4").is_file());
    scene.goes_on()?;
    fs::remove_dir(map)?;
    scene.finish()
}

/// While there is no launched workload nobody watches the hooks.
#[test]
fn a_workload_never_begins_without_hooks() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let order = Order { bring: vec!["probe"], purpose: "watchdog", ..Order::for_graph(&graph, READ_ONLY) };
    let daemon = Daemon::start(&order)?;
    let probe = daemon.binary("probe");
    let probe = probe.to_str().context("a path in UTF-8")?;
    for round in 0..5 {
        fs::remove_file(daemon.pins().join("v1/unix_connect"))?;
        // That it is denied, and not that nothing is there, tells that the hook is.
        let said = said(&mut daemon.run(&[probe, "connect-unix", "/nowhere"]))?;
        ensure!(said == "EACCES", "round {round}: {said}\n{}", daemon.log());
    }
    daemon.finish()
}
