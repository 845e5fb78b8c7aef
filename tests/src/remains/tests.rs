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

#[test]
fn the_census_finds_what_a_fixture_makes_and_misses_it_when_it_is_gone() {
    require_root!();
    let remains = Remains::of(&format!("interceptor-census-{}-0", std::process::id())).unwrap();
    let built = remains.room().join("built");
    fs::create_dir_all(&built).unwrap();
    fs::create_dir(remains.cgroup()).unwrap();
    let sleeper = built.join("sleep");
    fs::copy("/bin/sleep", &sleeper).unwrap();
    let mut by_binary = Command::new(&sleeper).arg("60").spawn().unwrap();
    let mut by_cgroup = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    fs::write(remains.cgroup().join("cgroup.procs"), by_cgroup.id().to_string()).unwrap();
    interceptor::bpf::Kernel::load(remains.pins(), remains.cgroup()).unwrap();

    let [found, elsewhere] = [built.as_path(), Path::new("/nowhere")].map(|built| census::take(built).unwrap());
    let mut lines: Vec<String> = [("cgroup", remains.cgroup()), ("pins", remains.pins()), ("files", remains.room())]
        .map(|(what, place)| format!("{what} {}", place.display()))
        .into();
    lines.push(format!("process {} {}", by_binary.id(), sleeper.display()));
    for line in &lines {
        assert!(found.contains(line) && elsewhere.contains(line), "no `{line}` in {found:?}");
    }
    assert!(found.iter().any(|line| line.starts_with(&format!("process {} ", by_cgroup.id()))), "{found:?}");
    let programs = |census: &std::collections::BTreeSet<String>| -> Vec<String> {
        census.iter().filter(|line| line.starts_with("program ")).cloned().collect()
    };
    assert!(programs(&found).iter().any(|line| line.ends_with(" connect4")), "{found:?}");

    let reaper = std::thread::spawn(move || (by_binary.wait().unwrap(), by_cgroup.wait().unwrap()));
    remains.clear().unwrap();
    reaper.join().unwrap();
    let left = census::take(&built).unwrap();
    assert!(lines.iter().all(|line| !left.contains(line)), "{left:?}");
}
