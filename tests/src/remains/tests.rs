use std::process::Command;

use super::*;
use crate::require_root;

/// A pid that no process has: an ended and reaped child's.
fn ended() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[test]
fn what_a_killed_fixture_left_is_found_and_cleared() {
    require_root!();
    let name = format!("interceptor-sweep-{}-0", ended());
    let remains = Remains::of(&name).unwrap();
    fs::create_dir_all(remains.room().join("bin")).unwrap();
    fs::create_dir_all(remains.cgroup().join("workloads/one")).unwrap();
    let sleeper = remains.room().join("bin/sleep");
    fs::copy("/bin/sleep", &sleeper).unwrap();
    let mut by_binary = Command::new(&sleeper).arg("60").spawn().unwrap();
    let mut by_cgroup = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    fs::write(remains.cgroup().join("workloads/one/cgroup.procs"), by_cgroup.id().to_string()).unwrap();
    // The child has become `sleeper` only after its exec, which `spawn` has waited for.
    let mut expected = [by_binary.id(), by_cgroup.id()];
    expected.sort_unstable();
    assert_eq!(remains.processes(), expected);
    assert_eq!(remains.list().len(), 4, "two processes, a cgroup, files: {:?}", remains.list());

    // Zombies stay until their parent has waited for them, which takes a thread here.
    let reaper = std::thread::spawn(move || (by_binary.wait().unwrap(), by_cgroup.wait().unwrap()));
    sweep("interceptor-sweep-").unwrap();
    reaper.join().unwrap();
    assert_eq!(remains.list(), Vec::<String>::new());
}

#[test]
fn a_living_owner_is_left_alone() {
    require_root!();
    let name = format!("interceptor-living-{}-0", std::process::id());
    let remains = Remains::of(&name).unwrap();
    fs::create_dir_all(remains.room()).unwrap();
    sweep("interceptor-living-").unwrap();
    assert_eq!(remains.list(), [format!("files {}", remains.room().display())]);
    remains.clear().unwrap();
}
