//! Cgroups for which there is no room among those that are governed.

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use interceptor::bpf::BpfError;
use interceptor::bpf::adopt::{Adopter, State, Watched};
use interceptor::record::event::{Adoption, Change, What};
use interceptor_tests::adopted::{NUMBER, Scene, said};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::netns::{Cgroup, Pins};
use interceptor_tests::unit::{ADOPTED, Unit};
use interceptor_tests::{recorded, require_root};
use nix::sys::socket::{Backlog, listen};

use super::daemon::{start, until};
use super::told::changes;

const PROBE: &str = env!("CARGO_BIN_EXE_probe");

/// The first of the ids that nothing has; ids of cgroups are small numbers.
const NOBODYS: u64 = 1 << 56;

/// Somebody who would hear of a connection that isn't steered.
pub(crate) struct Outside(TcpListener);

impl Outside {
    pub(crate) fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        // Room for who isn't accepted at once: a SYN that found none comes again seconds later, from whom nobody lets out any more.
        listen(&listener, Backlog::new(4_096)?)?;
        Ok(Self(listener))
    }

    pub(crate) fn address(&self) -> Result<String> {
        Ok(self.0.local_addr()?.to_string())
    }

    /// How many came since it was last asked.
    pub(crate) fn heard(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

pub(crate) fn wait_until(otherwise: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Governs cgroups that nobody has, by the name of one, until there is no room; how many those are.
pub(crate) fn fill(adopter: &Adopter, path: &str) -> Result<u64> {
    let mut count = 0;
    loop {
        match adopter.govern(path, NOBODYS + count, NUMBER + 1, State::Steered) {
            Ok(()) => count += 1,
            Err(BpfError::Full { .. }) => return Ok(count),
            Err(error) => return Err(error.into()),
        }
    }
}

#[test]
fn a_cgroup_that_there_is_no_room_for_is_refused_until_it_is_governed() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new();
    let outside = Outside::new()?;
    let to = outside.address()?;
    let connect =
        |cgroup: &Path| -> Result<String> { Ok(said(&scene.enter(cgroup, PROBE).args(["connect", &to]).output()?)) };
    let id = fs::metadata(&scene.governed)?.ino();
    fs::remove_dir(&scene.governed)?;
    wait_until("its id is there still", || Ok(!scene.adopter.governed()?.contains_key(&id)))?;
    let path = scene.watched(State::Steered).path;
    let count = fill(&scene.adopter, &path)?;
    ensure!(count > 16_000, "there is room for {count}");
    ensure!(!scene.adopter.missed()?.is_open(), "nothing was made yet");

    fs::create_dir(&scene.governed)?;
    let beside = scene.cgroup.below("beside")?;
    for cgroup in [&scene.governed, &beside] {
        let connected = connect(cgroup)?;
        ensure!(connected == "ECONNREFUSED", "{}: {connected}", cgroup.display());
    }
    for (attempt, refused) in [(["udp", "127.0.0.1:9"], "ECONNREFUSED"), (["connect-abstract", "nobody"], "EACCES")] {
        let said = scene.attempt(PROBE, &attempt);
        ensure!(said == refused, "{attempt:?}: {said}");
    }
    ensure!(outside.heard() == 0, "it got past us");
    // What was there before, and what is made elsewhere, is nobody's.
    let elsewhere = Cgroup::new()?;
    for cgroup in [scene.cgroup.path.join("outside"), elsewhere.below("other")?] {
        let connected = connect(&cgroup)?;
        ensure!(connected == "ok", "{}: {connected}", cgroup.display());
    }
    ensure!(outside.heard() == 2);

    // There is room, and the daemon sees to it.
    let missed = scene.adopter.missed()?;
    let id = fs::metadata(&scene.governed)?.ino();
    let parent = fs::metadata(&scene.cgroup.path)?.ino();
    let refuses = |parent| missed.refuses(&path, id, |_| Some(parent));
    ensure!(refuses(parent) && !refuses(parent + 1), "{missed:?}");
    scene.adopter.forget(NOBODYS)?;
    ensure!(connect(&scene.governed)? == "ECONNREFUSED", "it isn't governed yet");
    scene.adopter.govern(&path, id, NUMBER, State::Steered)?;
    scene.adopter.catch_up(&missed)?;
    let told = scene.attempt(PROBE, &["told", "198.51.100.7:443"]);
    ensure!(told.starts_with("198.51.100.7:443 "), "{told}");
    ensure!(connect(&beside)? == "ok" && outside.heard() == 1, "what was nobody's is refused still");
    Ok(())
}

/// Cgroups in each other, deeper than others' tests have any: what is refused anywhere is refused at one level only. Gone with
/// this.
#[derive(Default)]
pub(crate) struct Deep(Vec<PathBuf>);

impl Deep {
    pub(crate) fn below(&mut self, path: PathBuf) -> Result<PathBuf> {
        fs::create_dir(&path)?;
        self.0.push(path.clone());
        Ok(path)
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let since = Instant::now();
            while fs::remove_dir(path).is_err() && since.elapsed() < Duration::from_secs(1) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// What a cgroup is called, from the root of cgroup2.
pub(crate) fn name(path: &Path) -> Result<String> {
    Ok(format!("/{}", path.strip_prefix(interceptor::bpf::cgroup2()?)?.display()))
}

/// What the probe says of an attempt from a cgroup.
pub(crate) fn attempt_in(cgroup: &Path, attempt: &[&str]) -> Result<String> {
    let mut command = Command::new("/bin/sh");
    let script = r#"echo 0 > "$0/cgroup.procs" && exec "$@""#;
    command.args(["-c", script]).arg(cgroup).arg(PROBE).args(attempt).stdin(Stdio::null());
    Ok(said(&command.output()?))
}

#[test]
fn where_several_places_had_no_room_what_was_made_since_is_refused_in_all() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top) = (Pins::default(), Cgroup::new()?);
    let adopter = Adopter::load(&pins.path)?;
    let mut deep = Deep::default();
    let mut path = top.path.clone();
    for _ in 0..9 {
        path = deep.below(path.join("deep"))?;
    }
    let [first, second, third] = ["first", "second", "third"].map(|name| path.join(name));
    for place in [&first, &second, &third] {
        deep.below(place.clone())?;
    }
    let before = deep.below(third.join("before"))?;
    let watched = |path: PathBuf| -> Result<Watched> {
        Ok(Watched { path: name(&path)?, level: None, workload: NUMBER, state: State::Steered })
    };
    adopter.watch(&[watched(first.join("new"))?, watched(second.join("new"))?])?;
    fill(&adopter, &name(&first.join("new"))?)?;
    let made = [deep.below(first.join("new"))?, deep.below(second.join("new"))?, deep.below(third.join("new"))?];

    let outside = Outside::new()?;
    let to = outside.address()?;
    let connect = |cgroup: &Path| attempt_in(cgroup, &["connect", &to]);
    let ask = |cgroup: &Path| attempt_in(cgroup, &["connect-abstract", "nobody"]);
    for cgroup in &made {
        let said = [connect(cgroup)?, ask(cgroup)?];
        ensure!(said == ["ECONNREFUSED", "EACCES"], "{}: {said:?}", cgroup.display());
    }
    ensure!(connect(&before)? == "ok" && outside.heard() == 1, "what was there before goes on");
    // So does what is made at another depth, and below what was there before: by unix sockets as by others.
    for cgroup in [deep.below(top.path.join("shallow"))?, deep.below(before.join("inside"))?] {
        let said = [connect(&cgroup)?, ask(&cgroup)?];
        ensure!(said == ["ok", "ECONNREFUSED"], "{}: {said:?}", cgroup.display());
    }
    let missed = adopter.missed()?;
    adopter.catch_up(&missed)?;
    ensure!(connect(&made[2])? == "ok", "it is nobody's");
    Ok(())
}

/// What a daemon governs, as its pinned map holds it.
pub(crate) struct Room(OwnedFd);

impl Room {
    pub(crate) fn of(daemon: &Daemon) -> Result<Self> {
        const GET: i64 = 7;

        let pin = daemon.pins().join("v1/adopt/governed");
        let path = std::ffi::CString::new(pin.as_os_str().as_bytes())?;
        let made = bpf(GET, &[path.as_ptr() as u64, 0])?;
        // SAFETY: it was just made, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(i32::try_from(made)?) }))
    }

    /// Governs cgroups that nobody has for a workload that there isn't, until there is no room.
    pub(crate) fn fill(&self) -> Result<()> {
        self.fill_for(NUMBER)
    }

    /// The same for this workload.
    pub(crate) fn fill_for(&self, workload: u32) -> Result<()> {
        const UPDATE: i64 = 2;

        let map = u64::try_from(self.0.as_raw_fd())?;
        // `Governed` of interceptor-common.
        let governed = [workload, 1_u32];
        for id in NOBODYS..NOBODYS + 20_000 {
            match bpf(UPDATE, &[map, (&raw const id) as u64, governed.as_ptr() as u64, 0]) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
                    ensure!(id > NOBODYS + 16_000, "there is room for {}", id - NOBODYS);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("there is always room");
    }

    /// Governs one cgroup for this workload, refused, as the hooks do when it is made.
    pub(crate) fn govern(&self, id: u64, workload: u32) -> Result<()> {
        const UPDATE: i64 = 2;

        let (map, governed) = (u64::try_from(self.0.as_raw_fd())?, [workload, 0_u32]);
        bpf(UPDATE, &[map, (&raw const id) as u64, governed.as_ptr() as u64, 0])?;
        Ok(())
    }

    /// Takes as many of these away.
    pub(crate) fn clear(&self, count: u64) -> Result<()> {
        (NOBODYS..NOBODYS + count).try_for_each(|id| self.remove(id))
    }

    /// Takes a cgroup away.
    pub(crate) fn remove(&self, id: u64) -> Result<()> {
        const DELETE: i64 = 3;

        bpf(DELETE, &[u64::try_from(self.0.as_raw_fd())?, (&raw const id) as u64])?;
        Ok(())
    }

    /// Whether a cgroup is governed.
    pub(crate) fn has(&self, id: u64) -> Result<bool> {
        Ok(self.workload(id)?.is_some())
    }

    /// The workload for which a cgroup is governed, if it is.
    pub(crate) fn workload(&self, id: u64) -> Result<Option<u32>> {
        const LOOKUP: i64 = 1;

        let (map, mut governed) = (u64::try_from(self.0.as_raw_fd())?, [0_u32; 2]);
        let found = bpf(LOOKUP, &[map, (&raw const id) as u64, governed.as_mut_ptr() as u64, 0]).is_ok();
        Ok(found.then_some(governed[0]))
    }
}

fn bpf(command: i64, attributes: &[u64]) -> std::io::Result<i64> {
    // SAFETY: the attributes, and what they point to, live until the call returns, and have the length that is given.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if returned < 0 { Err(std::io::Error::last_os_error()) } else { Ok(returned) }
}

/// No target.
pub(crate) const ELSEWHERE: [&str; 3] = ["tcp", "plain", "198.51.100.7:443"];

#[test]
fn what_there_is_no_room_for_is_told_and_governed_once_there_is() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start("room", "")?;
    let unit = Unit::new(&daemon)?;
    ensure!(unit.attempt(&ELSEWHERE)? == "ECONNRESET");
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    let to = outside.address()?;
    let free = || -> Result<()> {
        let id = fs::metadata(&unit.cgroup)?.ino();
        unit.remove()?;
        wait_until("its id is there still", || Ok(!room.has(id)?))?;
        room.fill()
    };
    free()?;
    unit.make()?;
    let connected = unit.attempt(&["connect", &to])?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    let refused = until(&daemon, |one| one["containment"] == "refused")?;
    ensure!(refused["holes"].to_string().contains("no more than 16384 cgroups"), "{refused}");
    let status = daemon.json(&["status"])?;
    let causes = status["causes"].as_array().context("causes")?;
    let told = causes.iter().find(|cause| cause["code"] == "not-adopted").context("it isn't told")?;
    ensure!(told["message"].to_string().contains("no more than 16384 cgroups"), "{told}");
    ensure!(daemon.log().contains("a cgroup can't be governed"), "{}", daemon.log());
    // It is refused, and doesn't stand still.
    ensure!(unit.attempt(&ELSEWHERE)? == "ECONNREFUSED");
    room.clear(1_000)?;
    until(&daemon, |one| one["containment"] == "contained")?;
    ensure!(unit.attempt(&ELSEWHERE)? == "ECONNRESET", "{}", daemon.log());
    let status = daemon.json(&["status"])?;
    ensure!(!status["causes"].to_string().contains("not-adopted"), "{status}");
    let is_still = |change: &Change| matches!(change, Change::Detached { .. });
    ensure!(!changes(&daemon)?.iter().any(is_still), "{:?}", changes(&daemon)?);
    // What is nobody's was refused in between, and isn't any more.
    let beside = daemon.cgroup().join("units/beside");
    fs::create_dir(&beside)?;
    wait_until("it is refused still", || {
        let output = unit.command_in(&beside, "contained", daemon.binary("probe")).args(["connect", &to]).output()?;
        Ok(said(&output) == "ok")
    })?;
    wait_until("it is there still", || Ok(fs::remove_dir(&beside).is_ok()))?;
    outside.heard();

    // The same while no daemon runs; the next one makes room.
    free()?;
    daemon.kill9()?;
    unit.make()?;
    let connected = unit.attempt(&["connect", &to])?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    daemon.restart_despite("not-adopted")?;
    until(&daemon, |one| one["containment"] == "contained")?;
    ensure!(unit.attempt(&ELSEWHERE)? == "ECONNRESET", "{}", daemon.log());
    unit.remove()?;
    daemon.finish()
}

/// A process that doesn't outlive its test, however that ends.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The hooks can't tell it from what is nobody's: it was there before.
#[test]
fn a_cgroup_from_before_that_there_is_no_room_for_stands_still_until_there_is() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("room", "")?;
    let unit = Unit::new(&daemon)?;
    let late = Unit::at(&daemon, daemon.cgroup().join("units/late"), None);
    late.make()?;
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    let mut inside = late.command("/bin/sh");
    let script = r#"while :; do "$0" connect "$1" >/dev/null; done"#;
    let inside = Killed(inside.args(["-c", script]).arg(daemon.binary("probe")).arg(outside.address()?).spawn()?);
    wait_until("it doesn't connect", || Ok(outside.heard() > 0))?;
    room.fill()?;
    let name = daemon.cgroup().file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
    let table = ADOPTED.replace("\"svc\"", "\"late\"").replace("units/svc", "units/late").replace("{name}", &name);
    fs::write(daemon.config(), fs::read_to_string(daemon.config())? + &table)?;
    // With what belongs to no workload it lets go of what has taken the room.
    daemon.ask(&["policy", "reload"])?;
    std::thread::sleep(Duration::from_millis(100));
    outside.heard();
    let is_stuck =
        |change: &Change| matches!(change, Change::Broken { what } if what.contains("no more than 16384 cgroups"));
    let is_over =
        |change: &Change| matches!(change, Change::Repaired { what } if what.contains("could not be governed"));
    let told = |is_one: &dyn Fn(&Change) -> bool| -> Result<usize> {
        let events = recorded::events(&daemon.database(), 0)?;
        let changes = events.into_iter().filter_map(|(_, event)| match event.what {
            What::Adoption(Adoption { workload, change, .. }) if workload.as_str() == "late" => Some(change),
            _ => None,
        });
        Ok(changes.filter(|change| is_one(change)).count())
    };
    let is_contained = || -> Result<bool> {
        let list = daemon.json(&["workloads", "list"])?;
        let mut list = list.as_array().context("a list")?.iter();
        Ok(list.any(|one| one["workload"] == "late" && one["containment"] == "contained"))
    };
    wait_until("that it stood still isn't recorded", || Ok(told(&is_stuck)? == 1 && told(&is_over)? == 1))?;
    let frozen = late.cgroup.join("cgroup.freeze");
    wait_until("it stands still", || Ok(fs::read_to_string(&frozen)?.trim() == "0"))?;
    wait_until("it stays refused", is_contained)?;
    ensure!(late.attempt(&ELSEWHERE)? == "ECONNRESET", "it isn't governed:\n{}", daemon.log());
    ensure!(outside.heard() == 0, "it got past us");
    drop(inside);
    late.remove()?;
    unit.remove()?;
    daemon.finish()
}
