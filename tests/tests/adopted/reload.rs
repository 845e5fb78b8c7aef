//! Workloads that can't be adopted, and those that aren't where they are looked for.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use interceptor::ids::LaunchId;
use interceptor::record::event::What;
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::remains::cgroup2;
use interceptor_tests::unit::{ADOPTED, Unit};
use interceptor_tests::{recorded, require_root};
use nix::sched::{CloneFlags, unshare};

use super::daemon::{listed, start, start_with, until};

/// The adoptions of a workload of which it is recorded that they began.
fn begun(daemon: &Daemon, name: &str) -> Result<Vec<LaunchId>> {
    let events = recorded::events(&daemon.database(), 0)?.into_iter();
    let started = events.filter_map(|(_, event)| match event.what {
        What::WorkloadStarted { launch, workload, .. } if workload.as_str() == name => Some(launch),
        _ => None,
    });
    Ok(started.collect())
}

/// Adds a workload `late` to the configuration, as `svc` is there.
fn configure_late(daemon: &Daemon) -> Result<()> {
    let name = daemon.cgroup().file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
    let table = ADOPTED.replace("\"svc\"", "\"late\"").replace("units/svc", "units/late").replace("{name}", &name);
    Ok(fs::write(daemon.config(), fs::read_to_string(daemon.config())? + &table)?)
}

/// What `status` gives as the causes with this code.
fn causes(daemon: &Daemon, code: &str) -> Result<Vec<String>> {
    let status = daemon.json(&["status"])?;
    let causes = status["causes"].as_array().context("causes")?;
    Ok(causes.iter().filter(|cause| cause["code"] == code).map(|cause| cause["message"].to_string()).collect())
}

/// The same, once there are as many.
fn until_causes(daemon: &Daemon, code: &str, count: usize) -> Result<Vec<String>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = causes(daemon, code)?;
        if found.len() == count {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "it isn't so: {found:?}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_cant_be_adopted_is_told_refused_and_tried_again_and_the_others_are_adopted() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let order = Order { bring: vec!["probe"], purpose: "adopt", ..Order::for_graph(&graph, READ_ONLY) };
    let daemon = Daemon::start(&order)?;
    let unit = Unit::new(&daemon)?;
    let bad = Unit::at(&daemon, daemon.cgroup().join("units/bad"), None);
    bad.make()?;
    // Where it keeps what it knows of a workload is something else.
    let folder = daemon.room().join("run/adopted");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("bad"), "")?;
    let name = daemon.cgroup().file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
    let first = ADOPTED.replace("\"svc\"", "\"bad\"").replace("units/svc", "units/bad");
    let mut text = fs::read_to_string(daemon.config())?;
    text.push_str(&format!("{first}{ADOPTED}").replace("{name}", &name));
    fs::write(daemon.config(), text)?;
    let reload = daemon.interceptor(&["policy", "reload"]).output()?;
    let said = String::from_utf8_lossy(&reload.stderr);
    ensure!(!reload.status.success() && said.contains("`bad` can't be adopted"), "{reload:?}");
    let connect = ["tcp", "plain", "198.51.100.7:443"];
    ensure!(unit.attempt(&connect)? == "ECONNRESET", "the other one isn't governed:\n{}", daemon.log());
    ensure!(bad.attempt(&connect)? == "ECONNREFUSED", "it was there before");
    bad.remove()?;
    bad.make()?;
    ensure!(bad.attempt(&connect)? == "ECONNREFUSED", "it was made since");
    let told = until_causes(&daemon, "not-adopted", 1)?;
    ensure!(told[0].contains("`bad` can't be adopted"), "{told:?}");
    fs::remove_file(folder.join("bad"))?;
    until_causes(&daemon, "not-adopted", 0)?;
    ensure!(bad.attempt(&connect)? == "ECONNRESET", "it isn't adopted:\n{}", daemon.log());
    bad.remove()?;
    unit.remove()?;
    daemon.finish()
}

#[test]
fn what_couldnt_be_adopted_at_first_begins_when_it_can() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    // Its names can't be opened.
    let names = daemon.room().join("run/adopted/late/names");
    fs::create_dir_all(&names)?;
    configure_late(&daemon)?;
    let reload = daemon.interceptor(&["policy", "reload"]).output()?;
    let said = String::from_utf8_lossy(&reload.stderr);
    ensure!(!reload.status.success() && said.contains("`late` can't be adopted"), "{reload:?}");
    ensure!(begun(&daemon, "late")?.is_empty(), "it can't be adopted");
    fs::remove_dir(&names)?;
    daemon.ask(&["policy", "reload"])?;
    ensure!(begun(&daemon, "late")?.len() == 1, "that it began isn't recorded");
    unit.remove()?;
    daemon.finish()
}

/// A daemon that was killed between the two, or as it noted down that it had recorded it.
#[test]
fn an_adoption_that_was_noted_down_and_not_recorded_begins_once() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let folder = daemon.room().join("run/adopted/late");
    let id = LaunchId::new();
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("id"), format!("{id}\nbeg"))?;
    configure_late(&daemon)?;
    daemon.ask(&["policy", "reload"])?;
    ensure!(begun(&daemon, "late")? == [id], "{:?}", begun(&daemon, "late")?);
    daemon.kill9()?;
    daemon.restart()?;
    ensure!(begun(&daemon, "late")? == [id], "{:?}", begun(&daemon, "late")?);
    unit.remove()?;
    daemon.finish()
}

/// A slice at the root of cgroup2, with all in it gone in the end.
struct Slice(PathBuf);

impl Slice {
    fn new(name: &str) -> Result<Self> {
        let path = cgroup2()?.join(format!("{name}.slice"));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn below(&self, path: &str) -> Result<PathBuf> {
        let path = self.0.join(path);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let mut open = vec![self.0.clone()];
        let mut found = Vec::new();
        while let Some(path) = open.pop() {
            let below = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            open.extend(below.filter(|path| path.is_dir()));
            found.push(path);
        }
        for path in found.iter().rev() {
            for _ in 0..100 {
                if fs::remove_dir(path).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn a_unit_that_isnt_where_it_is_looked_for_is_absent_and_told() -> Result<()> {
    require_root!(Ok(()));
    let id = std::process::id();
    let name = format!("crm{id}.service");
    let workload = format!("[[workload]]\nname = \"svc\"\nmatch = {{ unit = \"{name}\" }}\n");
    let (_graph, daemon) = start_with("adopt", &workload)?;
    let found = listed(&daemon)?;
    ensure!(found["containment"] == "absent", "{found}");
    ensure!(causes(&daemon, "workload-misplaced")?.is_empty(), "one that doesn't run is no cause");
    let slice = Slice::new(&format!("interceptortest{id}"))?;
    slice.below(&name)?;
    let told = until_causes(&daemon, "workload-misplaced", 1)?;
    ensure!(told[0].contains(&format!("/interceptortest{id}.slice/{name}")), "{told:?}");
    ensure!(listed(&daemon)?["containment"] == "absent");
    drop(slice);
    until_causes(&daemon, "workload-misplaced", 0)?;
    daemon.finish()
}

#[test]
fn a_slice_is_adopted_with_all_that_is_in_it() -> Result<()> {
    require_root!(Ok(()));
    let name = format!("interceptortest{}", std::process::id());
    let workload = format!("[[workload]]\nname = \"svc\"\nmatch = {{ unit = \"{name}-a.slice\" }}\n");
    let (_graph, daemon) = start_with("adopt", &workload)?;
    let slice = Slice::new(&name)?;
    let unit = Unit::at(&daemon, slice.below(&format!("{name}-a.slice/crm.service"))?, None);
    ensure!(unit.attempt(&["tcp", "plain", "198.51.100.7:443"])? == "ECONNRESET", "{}", daemon.log());
    let found = until(&daemon, |one| one["containment"] == "contained")?;
    ensure!(found["adopted"][0]["cgroup"] == format!("/{name}.slice/{name}-a.slice").as_str(), "{found}");
    drop(slice);
    daemon.finish()
}

/// Each network namespace takes sockets and threads of the daemon's, and anybody can make them in a namespace of users.
#[test]
fn networks_without_number_are_a_hole_and_take_no_sockets() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("adopt", "")?;
    let unit = Unit::new(&daemon)?;
    let mut inside: Vec<(Unit, Child)> = Vec::new();
    for _ in 0..80 {
        let network = std::thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            interceptor::transport::namespace::configure()?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let network = network.join().map_err(|_| anyhow!("the thread panicked"))??;
        let one = Unit::at(&daemon, unit.cgroup.clone(), Some(network));
        let child = one.command("sleep").arg("600").spawn()?;
        inside.push((one, child));
    }
    let found = until(&daemon, |one| one["containment"] == "refused");
    for (_, child) in inside.iter_mut().skip(40) {
        child.kill()?;
        child.wait()?;
    }
    let fewer = until(&daemon, |one| one["containment"] == "contained");
    for (_, child) in inside.iter_mut().take(40) {
        child.kill()?;
        child.wait()?;
    }
    ensure!(found?["holes"].to_string().contains("network namespaces"));
    fewer?;
    unit.remove()?;
    daemon.finish()
}
