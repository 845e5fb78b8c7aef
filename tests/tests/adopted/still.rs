//! What stands still because there is no room to govern it and nothing refuses it: when the daemon is started again, and where its
//! workload can't be adopted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interceptor_tests::adopted::said;
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
    let is_contained = || -> Result<bool> {
        let list = daemon.json(&["workloads", "list"])?;
        let mut list = list.as_array().context("a list")?.iter();
        Ok(list.any(|one| one["workload"] == "late" && one["containment"] == "contained"))
    };
    wait_until("it stays refused", is_contained)?;
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
    let bad = Unit::at(&daemon, daemon.cgroup().join("units/bad"), None);
    bad.make()?;
    fs::create_dir_all(daemon.room().join("run/adopted/bad/id"))?;
    let config = fs::read_to_string(daemon.config())? + &table(&daemon, "bad")?;
    reload_without(&daemon, &config, "bad")?;
    let (outside, room) = (Outside::new()?, Room::of(&daemon)?);
    let to = outside.address()?;
    let id = fs::metadata(&unit.cgroup)?.ino();
    unit.remove()?;
    wait_until("its id is there still", || Ok(!room.has(id)?))?;
    // For one that is to be adopted, of which the daemon lets go of nothing.
    let number = room.workload(fs::metadata(&bad.cgroup)?.ino())?.context("it isn't refused")?;
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
