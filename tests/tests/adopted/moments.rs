//! What happens between two of the daemon's looks, or in the middle of one.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::recorded;
use interceptor_tests::remains::cgroup2;
use interceptor_tests::require_root;
use interceptor_tests::unit::{ADOPTED, Unit, said};

use super::daemon::{start, start_with, until};
use super::told::changes;

/// No target.
const ELSEWHERE: &str = "198.51.100.7:443";

/// Other workloads, so that it takes a while to look at them all.
fn others(count: usize) -> String {
    let other = |number| {
        format!("[[workload]]\nname = \"other-{number}\"\nmatch = {{ cgroup = \"/{{name}}/others/{number}-*\" }}\n")
    };
    (0..count).map(other).collect()
}

/// How many sessions there are. One that isn't handed over is reset as well, and has none.
fn sessions(daemon: &Daemon) -> Result<usize> {
    recorded::last(&daemon.database())?;
    let sessions = daemon.json(&["sessions", "list", "--limit", "10000"])?;
    Ok(sessions.as_array().context("a list")?.len())
}

/// How many processes at least come of each of those that start them.
const LEAST: usize = 7;

/// Starts a process of the service that connects to nowhere and then stays for some hundredths of a second, again and again
/// until `end`; how many.
fn births(daemon: &Daemon, unit: &Unit, end: Instant) -> Result<usize> {
    let script = format!(r#""$0" tcp plain {ELSEWHERE}; sleep .02"#);
    let mut born = 0;
    while born < LEAST || Instant::now() < end {
        let answer = said(unit.command("/bin/sh").args(["-c", &script]).arg(daemon.binary("probe")))?;
        ensure!(answer == "ECONNRESET", "{answer}: {:?}\n{}", changes(daemon)?, daemon.log());
        born += 1;
    }
    Ok(born)
}

#[test]
fn processes_that_come_and_go_are_never_taken_for_somebody_elses() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("births", &others(300))?;
    let unit = Unit::new(&daemon)?;
    until(&daemon, |one| one["adopted"].as_array().is_some_and(|cgroups| cgroups.len() == 1))?;
    let end = Instant::now() + Duration::from_secs(3);
    let born: usize = std::thread::scope(|scope| {
        let lines = [(); 8].map(|()| scope.spawn(|| births(&daemon, &unit, end)));
        lines.into_iter().map(|line| line.join().map_err(|_| anyhow!("the thread panicked"))?).sum::<Result<_>>()
    })?;
    let handed_over = sessions(&daemon)?;
    ensure!(born > 50 && handed_over == born, "{born} born, {handed_over} handed over");
    unit.remove()?;
    daemon.finish()
}

#[test]
fn a_unit_that_ends_is_not_outside_of_its_workload() -> Result<()> {
    require_root!(Ok(()));
    let both = "[[workload]]\nname = \"svc\"\nmatch = { cgroup = \"/{name}/units/svc*\" }\n";
    let (_graph, daemon) = start_with("siblings", &format!("{both}{}", others(300)))?;
    let unit = Unit::new(&daemon)?;
    let folder = unit.cgroup.with_file_name("svc-sibling");
    until(&daemon, |one| one["adopted"].as_array().is_some_and(|cgroups| cgroups.len() == 1))?;
    let end = Instant::now() + Duration::from_secs(4);
    let (born, ended) = std::thread::scope(|scope| -> Result<(usize, usize)> {
        let siblings = scope.spawn(|| -> Result<usize> {
            let mut ended = 0;
            while ended <= 20 || Instant::now() < end {
                let sibling = Unit::at(&daemon, folder.clone(), None);
                sibling.make()?;
                let mut child = sibling.command("sleep").arg("60").spawn()?;
                std::thread::sleep(Duration::from_millis(15));
                sibling.remove()?;
                child.wait()?;
                ended += 1;
            }
            Ok(ended)
        });
        let born = births(&daemon, &unit, end)?;
        Ok((born, siblings.join().map_err(|_| anyhow!("the thread panicked"))??))
    })?;
    let handed_over = sessions(&daemon)?;
    ensure!(ended > 20 && handed_over == born, "{born} born, {handed_over} handed over; {ended} siblings ended");
    unit.remove()?;
    daemon.finish()
}

#[test]
fn a_renamed_workload_is_governed_all_the_time() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = start("rename", &others(100))?;
    let unit = Unit::new(&daemon)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let script = r#"while :; do "$0" connect "$1" >/dev/null; done"#;
    let address = listener.local_addr()?.to_string();
    let mut inside = unit.command("/bin/sh");
    let mut inside = inside.args(["-c", script]).arg(daemon.binary("probe")).arg(address).spawn()?;
    let governed = (|| {
        until(&daemon, |one| one["adopted"].as_array().is_some_and(|cgroups| cgroups.len() == 1))?;
        let text = std::fs::read_to_string(daemon.config())?;
        let rename = |name: &str| text.replace("name = \"svc\"", &format!("name = \"{name}\""));
        for name in ["desk", "svc", "mail", "svc", "files", "svc"] {
            std::fs::write(daemon.config(), rename(name))?;
            daemon.ask(&["policy", "reload"])?;
            ensure!(listener.accept().is_err(), "it got past us when it became `{name}`");
        }
        // And while no daemon runs.
        std::fs::write(daemon.config(), rename("mail"))?;
        daemon.kill9()?;
        daemon.restart()?;
        ensure!(listener.accept().is_err(), "it got past us at the start");
        Ok(())
    })();
    inside.kill()?;
    inside.wait()?;
    unit.remove()?;
    governed?;
    daemon.finish()
}

#[test]
fn the_first_of_the_configuration_has_a_cgroup() -> Result<()> {
    require_root!(Ok(()));
    // What the kernel calls them goes by their names, so one pair of each has it the other way round.
    for (first, second) in [("svc", "rest"), ("rest", "svc")] {
        let table = |name: &str, end: &str| {
            format!("[[workload]]\nname = \"{name}\"\nmatch = {{ cgroup = \"/{{name}}/units/{end}\" }}\n")
        };
        let (_graph, daemon) = start_with("first", &format!("{}{}", table(first, "svc"), table(second, "*")))?;
        let unit = Unit::new(&daemon)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while unit.attempt(&["tcp", "plain", ELSEWHERE])? != "ECONNRESET" {
            ensure!(Instant::now() < deadline, "it isn't steered");
        }
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let list = daemon.json(&["workloads", "list"])?;
            let has = |one: &serde_json::Value| one["adopted"].as_array().is_some_and(|cgroups| cgroups.len() == 1);
            if list.as_array().context("a list")?.iter().all(|one| has(one) == (one["workload"] == first)) {
                break;
            }
            ensure!(Instant::now() < deadline, "{first} is first: {list}");
        }
        let sessions = daemon.json(&["sessions", "list"])?;
        ensure!(sessions[0]["workload"] == first, "{sessions}");
        unit.remove()?;
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn the_first_call_in_a_cgroup_that_was_just_made_is_looked_at() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start_with("early", &format!("{ADOPTED}{}", others(100)))?;
    let unit = Unit::new(&daemon)?;
    for _ in 0..10 {
        unit.remove()?;
        // Until the daemon has seen that there is none.
        until(&daemon, |one| one["adopted"].as_array().is_some_and(Vec::is_empty))?;
        unit.make()?;
        let mut early = unit.command_but("io-uring", daemon.binary("probe"));
        ensure!(said(early.args(["tcp", "plain", ELSEWHERE]))? != "ok");
    }
    ensure!(sessions(&daemon)? == 0, "it got to be a session");
    unit.remove()?;
    daemon.finish()
}

/// As by a repair of the hooks that failed after it had put them back.
#[test]
fn what_was_left_frozen_goes_on() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("frozen", "")?;
    let unit = Unit::new(&daemon)?;
    until(&daemon, |one| one["adopted"].as_array().is_some_and(|cgroups| cgroups.len() == 1))?;
    let (mark, switch) = (daemon.room().join("run/adopted/svc/frozen"), unit.cgroup.join("cgroup.freeze"));
    let leave_frozen = || -> Result<()> {
        let path = unit.cgroup.strip_prefix(cgroup2()?)?;
        // In this order: a mark of what isn't frozen yet goes at once.
        std::fs::write(&switch, "1")?;
        Ok(std::fs::write(&mark, format!("/{}\n", path.display()))?)
    };
    let is_thawed = || -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::fs::read_to_string(&switch)?.trim() != "0" {
            ensure!(Instant::now() < deadline, "it stands still:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    let goes_on = || -> Result<()> {
        is_thawed()?;
        // The mark goes right behind that.
        let deadline = Instant::now() + Duration::from_secs(20);
        while mark.exists() {
            ensure!(Instant::now() < deadline, "the mark is there still");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    leave_frozen()?;
    goes_on()?;
    // An earlier daemon's mark names nothing.
    std::fs::write(&switch, "1")?;
    std::fs::write(&mark, "")?;
    goes_on()?;
    // Nor for ever where it couldn't be written.
    std::fs::create_dir(&mark)?;
    std::fs::write(&switch, "1")?;
    is_thawed()?;
    std::fs::remove_dir(&mark)?;
    // What somebody else froze isn't ours to thaw.
    std::fs::write(&switch, "1")?;
    std::fs::write(&mark, "frozen by Interceptor:\n/somebody/elses\n")?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while mark.exists() {
        ensure!(Instant::now() < deadline, "the mark is there still");
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(std::fs::read_to_string(&switch)?.trim() == "1", "it was thawed by us");
    std::fs::write(&switch, "0")?;
    // Nor for ever when it is released meanwhile.
    let text = std::fs::read_to_string(daemon.config())?;
    let at = text.find("[[workload]]\nname = \"svc\"").context("the table")?;
    std::fs::write(daemon.config(), &text[..at])?;
    leave_frozen()?;
    daemon.ask(&["policy", "reload"])?;
    goes_on()?;
    unit.remove()?;
    daemon.finish()
}
