//! At which levels of the tree cgroups are governed when they are made, and governed ones where nothing is watched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::bpf::adopt::{Adopter, State, Watched};
use interceptor_tests::adopted::NUMBER;
use interceptor_tests::netns::{Cgroup, Pins};
use interceptor_tests::require_root;
use interceptor_tests::unit::Unit;

use super::daemon::{start, start_with, until};
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
    adopter.watch(&[Watched { path, level: None, workload: NUMBER, state: State::Steered }])?;
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
    adopter.watch(&[Watched { path, level: None, workload: NUMBER, state: State::Refused }])?;
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

/// Cgroups whose paths begin so, and fit at a level.
fn begins(path: &Path, level: u32) -> Result<Watched> {
    Ok(Watched { path: name(path)?, level: Some(level), workload: NUMBER, state: State::Refused })
}

/// A pattern with a star before its last part, while no daemon runs.
#[test]
fn where_a_pattern_may_fit_all_is_refused_from_its_first_connect_and_nothing_above_or_deeper_is() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let adopter = Adopter::load(&pins.path)?;
    adopter.watch(&[begins(&top.path.join("outer-"), 3)?])?;
    let mut deep = Deep::default();
    let outer = deep.below(top.path.join("outer-1"))?;
    let beside = deep.below(top.path.join("outer-2"))?;
    let to = outside.address()?;
    // They can't be the workload's, and others may live there: a user's session, for one.
    for cgroup in [&outer, &beside] {
        let said = [attempt_in(cgroup, &["connect", &to])?, attempt_in(cgroup, &["connect-abstract", "nobody"])?];
        ensure!(said == ["ok", "ECONNREFUSED"] && outside.heard() == 1, "{}: {said:?}", cgroup.display());
        ensure!(!adopter.governed()?.contains_key(&id(cgroup)?), "it is governed");
    }
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
    let watched = |level| {
        let path = format!("{folder}/");
        Watched { path, level: Some(level), workload: NUMBER, state: State::Refused }
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

/// Two workloads may have it, of which the first does if it fits.
#[test]
fn a_whole_path_that_an_earlier_pattern_may_have_is_refused_until_somebody_has_looked() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let adopter = Adopter::load(&pins.path)?;
    let pattern = Watched { workload: NUMBER + 1, ..begins(&top.path.join("mcp-"), 2)? };
    let path = name(&top.path.join("mcp-crm"))?;
    let unit = Watched { path, level: None, workload: NUMBER, state: State::Steered };
    let orders = [([pattern.clone(), unit.clone()], State::Refused), ([unit, pattern], State::Steered)];
    for (watched, state) in orders {
        adopter.watch(&watched)?;
        let mut deep = Deep::default();
        let made = deep.below(top.path.join("mcp-crm"))?;
        let governed = adopter.governed()?.get(&id(&made)?).copied();
        ensure!(governed == Some((NUMBER, state)), "{governed:?}");
        let connected = attempt_in(&made, &["connect", &outside.address()?])?;
        ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    }
    Ok(())
}

/// The id of the cgroup with this path from the root of cgroup2.
fn id_of(path: &str) -> Option<u64> {
    id(&interceptor::bpf::cgroup2().ok()?.join(path.trim_start_matches('/'))).ok()
}

/// A daemon that took it for free would have its workload stand still.
#[test]
fn what_the_hooks_refuse_deeper_than_what_had_no_room_is_known_to_be_refused() -> Result<()> {
    require_root!(Ok(()));
    let (pins, top, outside) = (Pins::default(), Cgroup::new()?, Outside::new()?);
    let adopter = Adopter::load(&pins.path)?;
    let mut deep = Deep::default();
    let before = deep.below(top.path.join("before"))?;
    let path = name(&top.path.join("new"))?;
    adopter.watch(&[Watched { path: path.clone(), level: None, workload: NUMBER, state: State::Steered }])?;
    fill(&adopter, &path)?;
    deep.below(top.path.join("new"))?;
    let beside = deep.below(top.path.join("beside"))?;
    let inner = deep.below(beside.join("inner"))?;
    let innermost = deep.below(inner.join("innermost"))?;
    let late = deep.below(before.join("late"))?;
    let missed = adopter.missed()?;
    let refused = [&beside, &inner, &innermost].map(|cgroup| (cgroup, true));
    for (cgroup, is_refused) in refused.into_iter().chain([(&before, false), (&late, false)]) {
        let connected = attempt_in(cgroup, &["connect", &outside.address()?])?;
        let expected = if is_refused { "ECONNREFUSED" } else { "ok" };
        ensure!(connected == expected, "{}: {connected}", cgroup.display());
        let told = missed.refuses(&name(cgroup)?, id(cgroup)?, id_of);
        ensure!(told == is_refused, "{}: {missed:?}", cgroup.display());
    }
    ensure!(outside.heard() == 2, "what was refused got past us");
    Ok(())
}

/// An id that no cgroup has: one that the hooks govern already, and that can't be seen yet.
const UNSEEN: u64 = 1 << 57;

/// The kernel governs a cgroup while it is made, and shows it then; a look may fall in between.
#[test]
fn what_a_look_cant_see_yet_is_let_go_of_at_a_later_one_only() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("levels", "")?;
    let unit = Unit::new(&daemon)?;
    let room = Room::of(&daemon)?;
    let workload = room.workload(id(&unit.cgroup)?)?.context("it isn't governed")?;
    // At any time between two looks.
    for round in 0..10 {
        std::thread::sleep(Duration::from_millis(10) * round);
        let (made, since) = (UNSEEN + u64::from(round), Instant::now());
        room.govern(made, workload)?;
        wait_until("what is nobody's isn't let go of", || Ok(!room.has(made)?))?;
        let after = since.elapsed();
        ensure!(after >= Duration::from_millis(100), "round {round}: it was let go of after {after:?}");
    }
    unit.remove()?;
    daemon.finish()
}

#[test]
fn a_service_below_a_star_is_governed_from_its_first_connect_also_while_no_daemon_runs() -> Result<()> {
    require_root!(Ok(()));
    let starred = "[[workload]]\nname = \"svc\"\nmatch = { cgroup = \"/{name}/units/user-*/svc\" }\n";
    let (_graph, mut daemon) = start_with("levels", starred)?;
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    let user = daemon.cgroup().join("units/user-1");
    fs::create_dir_all(&user)?;
    ensure!(!room.has(id(&user)?)?, "what else there is in it is refused with it");
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
