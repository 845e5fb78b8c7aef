//! What stands still because there is no room to govern it and nothing refuses it: when the daemon is started again, where its
//! workload can't be adopted or is renamed, and that nothing else does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interceptor_tests::adopted::said;
use interceptor_tests::container::{Engine, Host, LABEL, LABELLED};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::require_root;
use interceptor_tests::unit::{ADOPTED, Unit};

use super::daemon::{start, until};
use super::room::{ELSEWHERE, Killed, Outside, Room, wait_until};
use super::told::path;

/// Processes of a service that connect to somebody outside without end. They end with its cgroup.
fn connecting(daemon: &Daemon, unit: &Unit, outside: &Outside) -> Result<Killed> {
    let script = r#"for at in 1 2 3 4; do while :; do "$0" connect "$1" >/dev/null; done & done; wait"#;
    let mut inside = unit.command("/bin/sh");
    Ok(Killed(inside.args(["-c", script]).arg(daemon.binary("probe")).arg(outside.address()?).spawn()?))
}

fn wait_until_frozen(cgroup: &Path) -> Result<()> {
    let events = cgroup.join("cgroup.events");
    wait_until("it isn't frozen", || Ok(fs::read_to_string(&events)?.contains("frozen 1")))
}

/// The table of a workload that adopts the cgroup of this name beside [`Unit`]'s.
fn table(daemon: &Daemon, workload: &str) -> Result<String> {
    let name = daemon.cgroup().file_name().and_then(|name| name.to_str()).context("a name")?;
    let quoted = format!("\"{workload}\"");
    let table = ADOPTED.replace("\"svc\"", &quoted).replace("units/svc", &format!("units/{workload}"));
    Ok(table.replace("{name}", name))
}

/// Replaces the configuration by one of which this workload can't be adopted.
fn reload_without(daemon: &Daemon, config: &str, workload: &str) -> Result<()> {
    fs::write(daemon.config(), config)?;
    let reload = daemon.interceptor(&["policy", "reload"]).output()?;
    let said = String::from_utf8_lossy(&reload.stderr);
    ensure!(!reload.status.success() && said.contains(&format!("`{workload}` can't be adopted")), "{reload:?}");
    Ok(())
}

/// A workload `bad` that can't be adopted, in a configuration that is in force; its service, and the number that it has in the
/// kernel: of what is governed for it the daemon lets go of nothing.
fn unadoptable(daemon: &Daemon, room: &Room) -> Result<(Unit, String, u32)> {
    let bad = Unit::at(daemon, daemon.cgroup().join("units/bad"), None);
    bad.make()?;
    // Which adoption it is can't be kept there.
    fs::create_dir_all(daemon.room().join("run/adopted/bad/id"))?;
    let config = fs::read_to_string(daemon.config())? + &table(daemon, "bad")?;
    reload_without(daemon, &config, "bad")?;
    let number = room.workload(fs::metadata(&bad.cgroup)?.ino())?.context("it isn't refused")?;
    Ok((bad, config, number))
}

fn is_contained(daemon: &Daemon, workload: &str) -> Result<bool> {
    let list = daemon.json(&["workloads", "list"])?;
    let mut list = list.as_array().context("a list")?.iter();
    Ok(list.any(|one| one["workload"] == workload && one["containment"] == "contained"))
}

/// What a cgroup's switch says.
fn stands_still(cgroup: &Path) -> Result<bool> {
    Ok(fs::read_to_string(cgroup.join("cgroup.freeze"))?.trim() == "1")
}

fn wait_until_it_goes_on(cgroup: &Path) -> Result<()> {
    wait_until("it stands still", || Ok(!stands_still(cgroup)?))
}

#[test]
fn what_stands_still_for_want_of_room_isnt_free_when_the_daemon_is_started_again() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start("still", "")?;
    let unit = Unit::new(&daemon)?;
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    until(&daemon, |one| one["containment"] == "contained" && one["adopted"][0].is_object())?;
    let inside = connecting(&daemon, &unit, &outside)?;
    daemon.kill9()?;
    // As a daemon leaves it that had no room for what was there before.
    let switch = unit.cgroup.join("cgroup.freeze");
    fs::write(&switch, "1")?;
    wait_until_frozen(&unit.cgroup)?;
    let mark = format!("frozen by Interceptor:\n{}", path(&unit)?);
    fs::write(daemon.room().join("run/adopted/svc/frozen"), mark)?;
    room.remove(fs::metadata(&unit.cgroup)?.ino())?;
    room.fill()?;
    ensure!(outside.heard() == 0, "it wasn't governed");
    daemon.restart_despite("not-adopted")?;
    // With what belongs to no workload the daemon lets go of what has taken the room.
    wait_until("it stands still", || Ok(fs::read_to_string(&switch)?.trim() == "0"))?;
    until(&daemon, |one| one["containment"] == "contained")?;
    ensure!(unit.attempt(&ELSEWHERE)? == "ECONNRESET", "it isn't governed:\n{}", daemon.log());
    ensure!(outside.heard() == 0, "it got past us");
    drop(inside);
    unit.remove()?;
    daemon.finish()
}

#[test]
fn what_cant_be_adopted_and_has_no_room_stands_still_until_it_is_governed_or_given_up() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("still", "")?;
    let unit = Unit::new(&daemon)?;
    let late = Unit::at(&daemon, daemon.cgroup().join("units/late"), None);
    late.make()?;
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    let inside = connecting(&daemon, &late, &outside)?;
    let (before, table) = (fs::read_to_string(daemon.config())?, table(&daemon, "late")?);
    // Which adoption it is can't be kept there.
    let folder = daemon.room().join("run/adopted/late");
    fs::create_dir_all(folder.join("id"))?;
    let switch = late.cgroup.join("cgroup.freeze");
    let stand_still = || -> Result<()> {
        wait_until("it doesn't connect", || Ok(outside.heard() > 0))?;
        room.fill()?;
        reload_without(&daemon, &format!("{before}{table}"), "late")?;
        wait_until_frozen(&late.cgroup)?;
        outside.heard();
        std::thread::sleep(Duration::from_millis(500));
        ensure!(outside.heard() == 0, "it goes on:\n{}", daemon.log());
        Ok(())
    };
    let goes_on = || wait_until("it stands still", || Ok(fs::read_to_string(&switch)?.trim() == "0"));
    stand_still()?;
    fs::write(daemon.config(), &before)?;
    daemon.ask(&["policy", "reload"])?;
    goes_on()?;
    ensure!(!folder.join("frozen").exists(), "the mark is there still");

    stand_still()?;
    fs::remove_dir(folder.join("id"))?;
    goes_on()?;
    wait_until("it stays refused", || is_contained(&daemon, "late"))?;
    ensure!(late.attempt(&ELSEWHERE)? == "ECONNRESET", "it isn't governed:\n{}", daemon.log());
    ensure!(outside.heard() == 0, "it got past us");
    drop(inside);
    late.remove()?;
    unit.remove()?;
    daemon.finish()
}

/// What there was no room for can't be told from what is nobody's and was made since beside it.
#[test]
fn what_cant_be_adopted_keeps_nobody_beside_it_refused() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("still", "")?;
    let unit = Unit::new(&daemon)?;
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    let (bad, _, number) = unadoptable(&daemon, &room)?;
    let to = outside.address()?;
    let id = fs::metadata(&unit.cgroup)?.ino();
    unit.remove()?;
    wait_until("its id is there still", || Ok(!room.has(id)?))?;
    room.fill_for(number)?;
    unit.make()?;
    let beside = daemon.cgroup().join("units/beside");
    fs::create_dir(&beside)?;
    let connect = || -> Result<String> {
        let mut command = unit.command_in(&beside, "contained", daemon.binary("probe"));
        Ok(said(&command.args(["connect", &to]).output()?))
    };
    let connected = connect()?;
    ensure!(connected == "ECONNREFUSED" && outside.heard() == 0, "{connected}");
    room.clear(1_000)?;
    wait_until("it is refused still", || Ok(connect()? == "ok"))?;
    ensure!(bad.attempt(&ELSEWHERE)? == "ECONNREFUSED", "it is let out:\n{}", daemon.log());
    ensure!(unit.attempt(&ELSEWHERE)? == "ECONNRESET", "it isn't governed:\n{}", daemon.log());
    wait_until("it is there still", || Ok(fs::remove_dir(&beside).is_ok()))?;
    bad.remove()?;
    unit.remove()?;
    daemon.finish()
}

#[test]
fn what_stands_still_does_so_all_the_time_when_its_workload_is_renamed() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("still", "")?;
    let unit = Unit::new(&daemon)?;
    let late = Unit::at(&daemon, daemon.cgroup().join("units/late"), None);
    late.make()?;
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    let (bad, config, number) = unadoptable(&daemon, &room)?;
    let inside = connecting(&daemon, &late, &outside)?;
    wait_until("it doesn't connect", || Ok(outside.heard() > 0))?;
    room.fill_for(number)?;
    let (table, path) = (table(&daemon, "late")?, path(&late)?);
    reload_without(&daemon, &format!("{config}{table}"), "bad")?;
    wait_until_frozen(&late.cgroup)?;
    outside.heard();
    for (before, name) in [("late", "desk"), ("desk", "mail"), ("mail", "late")] {
        let renamed = table.replace("\"late\"", &format!("\"{name}\""));
        reload_without(&daemon, &format!("{config}{renamed}"), "bad")?;
        ensure!(stands_still(&late.cgroup)? && outside.heard() == 0, "as `{name}` it goes on:\n{}", daemon.log());
        let mark = |name: &str| daemon.room().join("run/adopted").join(name).join("frozen");
        ensure!(fs::read_to_string(mark(name))?.lines().any(|line| line == path), "`{name}` doesn't know of it");
        ensure!(!mark(before).exists(), "the mark of `{before}` is there still");
    }
    room.clear(1_000)?;
    wait_until_it_goes_on(&late.cgroup)?;
    wait_until("it stays refused", || is_contained(&daemon, "late"))?;
    ensure!(late.attempt(&ELSEWHERE)? == "ECONNRESET", "it isn't governed:\n{}", daemon.log());
    ensure!(outside.heard() == 0, "it got past us");
    drop(inside);
    for unit in [late, bad, unit] {
        unit.remove()?;
    }
    daemon.finish()
}

/// The first of the configuration has a cgroup, also where the other one can't be adopted.
#[test]
fn what_an_earlier_workload_has_goes_on_with_that_one() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("still", "")?;
    let unit = Unit::new(&daemon)?;
    let late = Unit::at(&daemon, daemon.cgroup().join("units/late"), None);
    late.make()?;
    let room = Room::of(&daemon)?;
    fs::create_dir_all(daemon.room().join("run/adopted/rest/id"))?;
    let first = table(&daemon, "late")?;
    let second = first.replace("\"late\"", "\"rest\"").replace("units/late", "units/l*");
    room.fill()?;
    // With what belongs to no workload it lets go of what has taken the room.
    reload_without(&daemon, &format!("{}{first}{second}", fs::read_to_string(daemon.config())?), "rest")?;
    ensure!(!daemon.room().join("run/adopted/rest/frozen").exists(), "it stands still for who hasn't got it");
    wait_until_it_goes_on(&late.cgroup)?;
    wait_until("it stays refused", || is_contained(&daemon, "late"))?;
    ensure!(late.attempt(&ELSEWHERE)? == "ECONNRESET", "it isn't governed:\n{}", daemon.log());
    late.remove()?;
    unit.remove()?;
    daemon.finish()
}

#[test]
fn what_stands_still_and_cant_be_noted_down_goes_on_when_it_is_governed() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("still", "")?;
    let unit = Unit::new(&daemon)?;
    let late = Unit::at(&daemon, daemon.cgroup().join("units/late"), None);
    late.make()?;
    let room = Room::of(&daemon)?;
    // What is kept of it has no place.
    let folder = daemon.room().join("run/adopted/late");
    fs::write(&folder, "")?;
    room.fill()?;
    reload_without(&daemon, &(fs::read_to_string(daemon.config())? + &table(&daemon, "late")?), "late")?;
    ensure!(stands_still(&late.cgroup)?, "nothing holds it");
    fs::remove_file(&folder)?;
    daemon.ask(&["policy", "reload"])?;
    wait_until_it_goes_on(&late.cgroup)?;
    wait_until("it stays refused", || is_contained(&daemon, "late"))?;
    ensure!(late.attempt(&ELSEWHERE)? == "ECONNRESET", "it isn't governed:\n{}", daemon.log());
    late.remove()?;
    unit.remove()?;
    daemon.finish()
}

#[test]
fn what_stands_still_goes_on_where_nothing_is_adopted_and_no_hooks_are_left() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start("still", "")?;
    let unit = Unit::new(&daemon)?;
    let (config, table) = (fs::read_to_string(daemon.config())?, table(&daemon, "svc")?);
    ensure!(config.contains(&table), "{config}");
    daemon.kill9()?;
    fs::write(unit.cgroup.join("cgroup.freeze"), "1")?;
    let mark = daemon.room().join("run/adopted/svc/frozen");
    fs::write(&mark, format!("frozen by Interceptor:\n{}", path(&unit)?))?;
    fs::remove_dir_all(daemon.pins().join("v1/adopt"))?;
    fs::write(daemon.config(), config.replace(&table, ""))?;
    daemon.restart()?;
    wait_until_it_goes_on(&unit.cgroup)?;
    wait_until("the mark is there still", || Ok(!mark.exists()))?;
    unit.remove()?;
    daemon.finish()
}

/// Podman has its database locked for a moment: whose its containers are isn't known, and they aren't kept still for that.
#[test]
fn a_container_of_which_nothing_is_known_for_a_moment_goes_on_beside_one_that_stands_still() -> Result<()> {
    require_root!(Ok(()));
    let host = Host::new()?;
    let (_graph, daemon) = start("still", "")?;
    let unit = Unit::new(&daemon)?;
    let room = Room::of(&daemon)?;
    let (bad, config, number) = unadoptable(&daemon, &room)?;
    // Nobody looks for containers yet.
    let own = host.start(&daemon, Engine::Docker, &[LABEL])?;
    let nobodys = host.start(&daemon, Engine::Podman, &[])?;
    let scope = nobodys.unit.cgroup.parent().context("its own cgroup")?.to_owned();
    room.fill_for(number)?;
    let database = rusqlite::Connection::open(daemon.room().join("podman/db.sql"))?;
    database.execute_batch("BEGIN EXCLUSIVE")?;
    let boxes = LABELLED.replace("\"svc\"", "\"boxes\"");
    reload_without(&daemon, &format!("{config}{boxes}"), "bad")?;
    let is_still = [stands_still(&own.unit.cgroup)?, stands_still(&scope)?];
    database.execute_batch("ROLLBACK")?;
    ensure!(is_still == [true, false], "{is_still:?}\n{}", daemon.log());
    ensure!(daemon.log().contains("whose a container is isn't known yet"), "{}", daemon.log());
    std::thread::sleep(Duration::from_millis(500));
    ensure!(stands_still(&own.unit.cgroup)? && !stands_still(&scope)?, "{}", daemon.log());
    room.clear(1_000)?;
    wait_until_it_goes_on(&own.unit.cgroup)?;
    for container in [own, nobodys] {
        container.stop()?;
    }
    bad.remove()?;
    unit.remove()?;
    daemon.finish()
}
