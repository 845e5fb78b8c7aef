//! What is read of processes, from the kernel itself.

use std::collections::BTreeSet;
use std::process::Command;

use interceptor::adopt::{Engines, Process, Survey, Tree};
use interceptor::bpf::FilterReader;
use interceptor_tests::netns::Cgroup;
use interceptor_tests::{require_root, unit};

const PROBE: &str = env!("CARGO_BIN_EXE_probe");

/// The kernel lets go of a thread's filters before the thread is gone, and says all the while how many there were.
#[test]
fn a_process_at_its_end_is_no_hole() {
    require_root!();
    let cgroup = Cgroup::new().expect("a cgroup");
    let mut survey = Survey::new().expect("/proc is there");
    survey.read_filters_by(FilterReader::load().expect("it can be loaded"));
    let mut reader = FilterReader::load().expect("it can be loaded");
    let mount = interceptor::bpf::cgroup2().expect("cgroup2 is mounted");
    let tree = Tree::new(mount, Engines::new("/nowhere".into(), "/nowhere".into()));
    let path = format!("/{}", cgroup.path.file_name().and_then(|name| name.to_str()).expect("a name"));
    let uid = unit::uid().to_string();
    let (mut looks, mut gone) = (0, 0);
    for _ in 0..100 {
        let mut unit = Command::new(PROBE);
        let unit = unit.arg("as-unit").arg(&cgroup.path).args([uid.as_str(), "contained", "/bin/sleep", "60"]);
        let mut child = unit.spawn().expect("it can be started");
        // Before, it is what it is made to be: root, and without a filter.
        let is_ready = |process: &Process| process.filters == 1;
        while !Process::read(child.id()).is_ok_and(|process| is_ready(&process)) {
            assert!(child.try_wait().expect("it is ours").is_none(), "it was never ready");
        }
        child.kill().expect("it runs");
        while Process::read(child.id()).is_ok() {
            // So that it isn't known from the look before.
            survey.keep(&BTreeSet::new());
            let holes = survey.look(&tree, &path, &[child.id()], &BTreeSet::new());
            assert!(holes.is_empty(), "{holes:?}");
            looks += 1;
            gone += u32::from(reader.read(child.id(), 1).is_err());
        }
        child.wait().expect("it was ours");
    }
    println!("of {looks} looks at 100 processes, the filters were gone at {gone}");
}

/// A threaded cgroup doesn't say which processes it has; their threads do.
#[test]
fn a_threaded_cgroup_hides_nobody() {
    require_root!();
    let cgroup = Cgroup::new().expect("a cgroup");
    let below = cgroup.below("threads").expect("a cgroup");
    let mount = interceptor::bpf::cgroup2().expect("cgroup2 is mounted");
    let tree = Tree::new(mount, Engines::new("/nowhere".into(), "/nowhere".into()));
    let path = format!("/{}", cgroup.path.file_name().and_then(|name| name.to_str()).expect("a name"));
    let mut child = Command::new("sleep").arg("60").spawn().expect("it can be started");
    let pid = child.id();
    let found = (|| {
        std::fs::write(cgroup.path.join("cgroup.procs"), pid.to_string())?;
        std::fs::write(below.join("cgroup.type"), "threaded")?;
        std::fs::write(below.join("cgroup.threads"), pid.to_string())?;
        Ok::<_, std::io::Error>((tree.processes(&path)?, tree.processes(&format!("{path}/threads"))?))
    })();
    child.kill().expect("it runs");
    child.wait().expect("it was ours");
    assert_eq!(found.expect("they are told"), (vec![pid], vec![pid]));
}
