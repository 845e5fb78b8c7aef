//! Governed cgroups at levels of the tree at which nothing is watched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use interceptor::bpf::adopt::{Adopter, State, Watched};
use interceptor_tests::adopted::NUMBER;
use interceptor_tests::netns::{Cgroup, Pins};
use interceptor_tests::require_root;

use super::room::{Deep, Outside, attempt_in, fill, name};

fn id(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

#[test]
fn what_is_governed_stays_so_when_the_next_daemon_watches_other_levels() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let mut deep = Deep::default();
    let outer = deep.below(top.path.join("outer"))?;
    let inner = deep.below(outer.join("inner"))?;
    let to = outside.address()?;
    let connect = || attempt_in(&inner, &["connect", &to]);
    let adopter = Adopter::load(&pins.path)?;
    // It has no sockets of the daemon's to go to.
    adopter.govern(&name(&inner)?, id(&inner)?, NUMBER, State::Steered)?;
    let connected = connect()?;
    ensure!(connected == "ECONNREFUSED", "{connected}");
    drop(adopter);

    let adopter = Adopter::load(&pins.path)?;
    let path = name(&top.path.join("other"))?;
    adopter.watch(&[Watched { path, whole: true, workload: NUMBER, state: State::Steered }])?;
    let connected = connect()?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    Ok(())
}

/// Only the beginning of a path is watched, so that cgroups below are governed as well, which no hook looks for there.
#[test]
fn below_what_is_governed_and_not_looked_for_a_cgroup_without_room_is_refused() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let adopter = Adopter::load(&pins.path)?;
    let path = name(&top.path.join("outer-"))?;
    adopter.watch(&[Watched { path, whole: false, workload: NUMBER, state: State::Refused }])?;
    let mut deep = Deep::default();
    let outer = deep.below(top.path.join("outer-1"))?;
    let middle = deep.below(outer.join("middle"))?;
    ensure!(adopter.governed()?.contains_key(&id(&middle)?), "it isn't governed");
    // It is nobody's, as a daemon would find.
    adopter.forget(id(&outer)?)?;
    fill(&adopter, &name(&outer)?)?;
    let inner = deep.below(middle.join("inner"))?;
    let connected = attempt_in(&inner, &["connect", &outside.address()?])?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    Ok(())
}
