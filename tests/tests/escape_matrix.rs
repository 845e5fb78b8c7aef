//! The escape matrix: every way past the proxy that the program `probe` knows, out of a launched and an adopted workload, by
//! an unprivileged process and by root of a namespace of its own. Prints what each saw and what caught it; nothing may arrive
//! outside, and what is an escape by itself may not go well. The same ways without Interceptor are the control: they show
//! that what arrives is seen.

#[path = "escape_matrix/holes.rs"]
mod holes;
#[path = "escape_matrix/itself.rs"]
mod itself;
#[path = "escape_matrix/outside.rs"]
mod outside;
#[path = "escape_matrix/rewriter.rs"]
mod rewriter;
#[path = "escape_matrix/table.rs"]
mod table;
#[path = "escape_matrix/workload.rs"]
mod workload;

use std::collections::BTreeSet;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use interceptor_tests::require_root;

use self::holes::{Hole, LEFT_OUT};
use self::outside::Outside;
use self::rewriter::Rewriter;
use self::table::Table;
use self::workload::{Host, Kind, MODES, Outcome};

#[test]
fn nothing_of_a_governed_process_arrives_outside() -> Result<()> {
    require_root!(Ok(()));
    // This thread's network is the host's from here on, for all that it starts.
    let mut outside = Outside::new()?;
    let host = Host::start(&mut outside, "", "")?;
    let names = host.names()?;
    let mut table = Table::new(&names);
    for mode in MODES {
        for kind in [Kind::Free, Kind::Launched, Kind::Adopted] {
            outside.hear_netlink(kind == Kind::Free)?;
            table.add(kind, mode, host.tries(kind, mode, &names, &mut outside)?);
        }
    }
    let refused = host.refused()?;
    println!("{table}");
    host.finish()?;
    ensure!(itself::unknown(&names).is_empty(), "nobody tries {:?}", itself::unknown(&names));
    ensure!(table.unentered().is_empty(), "no namespaces of users here: {:?}", table.unentered());
    ensure!(names.len() >= 80, "{} behaviours", names.len());
    ensure!(table.control() >= 60, "only {} ways get outside without us: is anything seen?", table.control());
    ensure!(refused >= table.proxied(), "the proxy refused {refused}, and {} cells say so", table.proxied());
    ensure!(table.unanswered().is_empty(), "the resolver was silent: {:?}", table.unanswered());
    let escapes = table.escapes();
    ensure!(escapes.is_empty(), "{} escapes:\n{}", escapes.len(), escapes.join("\n"));
    Ok(())
}

/// Ways that some hole may open, and plain ones. In the long run nearly all ways are tried; see [`LEFT_OUT`].
const WAYS: [&str; 25] = [
    "tcp",
    "udp sendto",
    "raw ICMP",
    "raw, a header of its own (RAW)",
    "ping",
    "packet SOCK_RAW",
    "packet SOCK_DGRAM",
    "alg",
    "xdp",
    "kcm",
    "unix stream",
    "abstract unix stream",
    "netlink to another process",
    "io_uring",
    "io_uring, a connect",
    "bpf: the first program",
    "/dev/net/tun",
    "a device node of its own",
    "ptrace of a process outside",
    "/proc/PID/mem of a process outside",
    "a descriptor of a process outside",
    "into the cgroup above",
    "a child born in another cgroup (clone3)",
    "x32: a socket",
    "i386: a socket",
];

/// What a unit has more than it should, and what that opens, as the doctor has to name it: this, and nothing else.
const HOLES: [(&str, &[Hole]); 7] = [
    // Nothing filters its calls either.
    ("privileges", &[Hole::SetUid, Hole::Families, Hole::IoUring, Hole::Architectures]),
    ("families", &[Hole::Families]),
    ("io-uring", &[Hole::IoUring]),
    ("architectures", &[Hole::Architectures]),
    ("capabilities", &[Hole::Capabilities]),
    ("user", &[Hole::Root]),
    ("contained", &[]),
];

#[test]
fn what_arrives_where_holes_are_accepted_was_foretold_by_the_doctor() -> Result<()> {
    require_root!(Ok(()));
    let mut outside = Outside::new()?;
    let accepted = "containment = \"steered\"\n";
    let host = Host::start(&mut outside, accepted, &format!("home = \"full\"\n{accepted}"))?;
    let all = host.names()?;
    ensure!(holes::unknown(&all).is_empty(), "nobody tries {:?}", holes::unknown(&all));
    let ways = ways(&all);
    ensure!(ways.iter().all(|way| all.contains(way)), "some of these nobody tries: {ways:?}");
    let mut opened = Vec::new();
    for (without, expected) in HOLES {
        let stays = host.stays_but(without)?;
        let foretold = foretold(&host, "svc", expected);
        let outcomes = foretold.and_then(|()| host.tries_but(without, &ways, &mut outside));
        end(stays)?;
        let found = explained(&format!("adopted without {without}"), Kind::Adopted, expected, &ways, &outcomes?)?;
        opened.extend(found.into_iter().map(|way| (without, way)));
    }
    // Every kernel lets root go to another cgroup, so that something is seen.
    ensure!(opened.iter().any(|(without, _)| *without == "user"), "only {opened:?}");
    // A launched one's hole is none of the network's: nothing of it may arrive.
    let expected = [Hole::Home];
    let stays = host.stays_launched()?;
    let foretold = foretold(&host, "crm", &expected);
    let outcomes = foretold.and_then(|()| host.tries(Kind::Launched, "user", &ways, &mut outside));
    end(stays)?;
    explained("launched with all of its home", Kind::Launched, &expected, &ways, &outcomes?)?;
    let rewriter = Rewriter::attach(*b"stray_rewriter\0\0")?;
    let said = host.doctor()?;
    let finding = said.lines().find(|line| line.contains("other programs on connect"));
    ensure!(finding.is_some_and(|line| line.contains("stray_rewriter")), "{said}");
    drop(rewriter);
    host.finish()
}

/// The ways that are tried where there are holes.
fn ways(all: &[String]) -> Vec<String> {
    if std::env::var_os("INTERCEPTOR_LONG").is_none() {
        return WAYS.map(str::to_owned).into();
    }
    all.iter().filter(|way| !LEFT_OUT.iter().any(|(left_out, _)| way == left_out)).cloned().collect()
}

/// What of these arrived, or is an escape by itself. Whatever did has to be opened by a hole that was named.
fn explained(who: &str, kind: Kind, named: &[Hole], ways: &[String], outcomes: &[Outcome]) -> Result<Vec<String>> {
    let (mut opened, mut stray) = (Vec::new(), Vec::new());
    for (way, outcome) in ways.iter().zip(outcomes) {
        if outcome.arrived.is_empty() && !itself::is_escape(way, kind, "user", &outcome.said) {
            continue;
        }
        if named.iter().any(|hole| hole.opens(way)) {
            opened.push(way.clone());
        } else {
            stray.push(format!("{way}: it saw {}; arrived: {}", outcome.said, outcome.arrived.join(", ")));
        }
    }
    ensure!(stray.is_empty(), "{who}: the holes {named:?} don't open\n{}", stray.join("\n"));
    Ok(opened)
}

/// Waits until the doctor names these holes of the workload, and no others.
fn foretold(host: &Host, workload: &str, expected: &[Hole]) -> Result<()> {
    let expected: BTreeSet<Hole> = expected.iter().copied().collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let said = host.doctor()?;
        if holes::named(&said, workload).as_ref() == Some(&expected) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it doesn't say {expected:?} of `{workload}`:\n{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn end(mut one: Child) -> Result<()> {
    one.kill()?;
    one.wait()?;
    Ok(())
}
