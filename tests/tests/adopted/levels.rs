//! Governed cgroups at levels of the tree at which nothing is watched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use interceptor::bpf::adopt::{Adopter, State, Watched};
use interceptor_tests::adopted::NUMBER;
use interceptor_tests::netns::{Cgroup, Pins};
use interceptor_tests::require_root;
use interceptor_tests::unit::Unit;

use super::daemon::{start_with, until};
use super::room::{Deep, ELSEWHERE, Outside, Room, attempt_in, fill, name, wait_until};

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
    adopter.watch(&[Watched { path, deepest: None, workload: NUMBER, state: State::Steered }])?;
    let connected = connect()?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    Ok(())
}

/// As an earlier daemon may have left it, which governed all that is below what was made.
#[test]
fn below_what_is_governed_and_not_looked_for_a_cgroup_without_room_is_refused() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let adopter = Adopter::load(&pins.path)?;
    let mut deep = Deep::default();
    let outer = deep.below(top.path.join("outer-1"))?;
    let middle = deep.below(outer.join("middle"))?;
    let path = name(&middle.join("inner"))?;
    adopter.watch(&[Watched { path, deepest: None, workload: NUMBER, state: State::Refused }])?;
    // Which level is looked for goes by the name.
    adopter.govern(&name(&outer)?, id(&middle)?, NUMBER, State::Refused)?;
    let connected = attempt_in(&middle, &["connect", &outside.address()?])?;
    ensure!(connected == "ok" && outside.heard() == 1, "it is looked for: {connected}");
    fill(&adopter, &name(&outer)?)?;
    let inner = deep.below(middle.join("inner"))?;
    let connected = attempt_in(&inner, &["connect", &outside.address()?])?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    Ok(())
}

/// Cgroups whose paths begin so, and fit down to a level.
fn begins(path: &Path, deepest: u32) -> Result<Watched> {
    Ok(Watched { path: name(path)?, deepest: Some(deepest), workload: NUMBER, state: State::Refused })
}

/// A pattern with a star before its last part, while no daemon runs.
#[test]
fn what_may_fit_below_what_was_let_go_of_is_refused_from_its_first_connect_and_nothing_deeper_is() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let adopter = Adopter::load(&pins.path)?;
    adopter.watch(&[begins(&top.path.join("outer-"), 3)?])?;
    let mut deep = Deep::default();
    let outer = deep.below(top.path.join("outer-1"))?;
    let to = outside.address()?;
    let connected = attempt_in(&outer, &["connect", &to])?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    // It is nobody's, as a daemon would find.
    adopter.forget(id(&outer)?)?;
    for number in 0..50 {
        let inner = deep.below(outer.join(number.to_string()))?;
        let connected = attempt_in(&inner, &["connect", &to])?;
        ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{number}: {connected}");
    }
    // What is made in one that is nobody's fits nothing.
    let others = outer.join("0");
    adopter.forget(id(&others)?)?;
    let innermost = deep.below(others.join("innermost"))?;
    ensure!(!adopter.governed()?.contains_key(&id(&innermost)?), "it is governed");
    let connected = attempt_in(&innermost, &["connect", &to])?;
    ensure!(connected == "ok" && outside.heard() == 1, "{connected}");
    Ok(())
}

/// A pattern whose star is all of its last part.
#[test]
fn whatever_is_made_in_a_watched_folder_is_refused_from_its_first_connect() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let adopter = Adopter::load(&pins.path)?;
    let folder = name(&top.path)?;
    let watched = |deepest| {
        let path = format!("{folder}/");
        Watched { path, deepest: Some(deepest), workload: NUMBER, state: State::Refused }
    };
    ensure!(adopter.watch(&[watched(1)]).is_err() && adopter.watch(&[watched(16)]).is_err(), "there is nothing there");
    adopter.watch(&[watched(2)])?;
    let made = top.below("made")?;
    let connected = attempt_in(&made, &["connect", &outside.address()?])?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    Ok(())
}

/// The kernel goes by the longest beginning alone.
#[test]
fn a_longer_beginning_hides_nothing_that_fits_a_shorter_one_deeper() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let adopter = Adopter::load(&pins.path)?;
    adopter.watch(&[begins(&top.path.join("outer-"), 2)?, begins(&top.path.join("out"), 3)?])?;
    let mut deep = Deep::default();
    let outer = deep.below(top.path.join("outer-1"))?;
    adopter.forget(id(&outer)?)?;
    let inner = deep.below(outer.join("inner"))?;
    let connected = attempt_in(&inner, &["connect", &outside.address()?])?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    Ok(())
}

#[test]
fn a_service_below_a_star_is_governed_from_its_first_connect_also_while_no_daemon_runs() -> Result<()> {
    require_root!(Ok(()));
    let starred = "[[workload]]\nname = \"svc\"\nmatch = { cgroup = \"/{name}/units/user-*/svc\" }\n";
    let (_graph, mut daemon) = start_with("levels", starred)?;
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    let user = daemon.cgroup().join("units/user-1");
    fs::create_dir_all(&user)?;
    let of = id(&user)?;
    wait_until("what is nobody's isn't let go of", || Ok(!room.has(of)?))?;
    daemon.kill9()?;
    let unit = Unit::at(&daemon, user.join("svc"), None);
    let to = outside.address()?;
    for round in 0..50 {
        unit.make()?;
        let connected = unit.attempt(&["connect", &to])?;
        ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{round}: {connected}");
        unit.remove()?;
    }
    unit.make()?;
    daemon.restart()?;
    until(&daemon, |one| one["containment"] == "contained")?;
    ensure!(unit.attempt(&ELSEWHERE)? == "ECONNRESET", "{}", daemon.log());
    unit.remove()?;
    daemon.finish()
}
