//! The escape matrix: every way past the proxy that the program `probe` knows, out of a launched and an adopted workload, by
//! an unprivileged process and by root of a namespace of its own. Prints what each saw and what caught it; nothing may arrive
//! outside, and what is an escape by itself may not go well. The same ways without Interceptor are the control: they show
//! that what arrives is seen.

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

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use interceptor_tests::require_root;

use self::outside::Outside;
use self::rewriter::Rewriter;
use self::table::Table;
use self::workload::{Host, Kind, MODES};

#[test]
fn nothing_of_a_governed_process_arrives_outside() -> Result<()> {
    require_root!(Ok(()));
    // This thread's network is the host's from here on, for all that it starts.
    let mut outside = Outside::new()?;
    let host = Host::start(&mut outside, "")?;
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

/// Ways that some hole opens, and none of which ends anything of the host's.
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

/// What a unit has more than it should, and how the doctor calls that; the last one has nothing.
const HOLES: [(&str, &str); 7] = [
    ("privileges", "NoNewPrivileges=yes"),
    ("families", "RestrictAddressFamilies="),
    ("io-uring", "io_uring_setup"),
    ("architectures", "SystemCallArchitectures=native"),
    ("capabilities", "CAP_NET_RAW"),
    ("user", "runs as root"),
    ("contained", ""),
];

#[test]
fn what_arrives_where_holes_are_accepted_was_foretold_by_the_doctor() -> Result<()> {
    require_root!(Ok(()));
    let mut outside = Outside::new()?;
    let host = Host::start(&mut outside, "containment = \"steered\"\n")?;
    let ways = WAYS.map(str::to_owned);
    let all = host.names()?;
    ensure!(ways.iter().all(|way| all.contains(way)), "some of these nobody tries: {ways:?}");
    let mut opened = Vec::new();
    for (without, named) in HOLES {
        let mut stays = host.stays_but(without)?;
        let foretold = foretold(&host, named);
        let outcomes = host.tries_but(without, &ways, &mut outside);
        stays.kill()?;
        stays.wait()?;
        foretold?;
        for (way, outcome) in ways.iter().zip(outcomes?) {
            let by_itself = itself::is_escape(way, Kind::Adopted, "user", &outcome.said);
            if by_itself || !outcome.arrived.is_empty() {
                println!("without {without}, {way}: {} {:?}", outcome.said, outcome.arrived);
                ensure!(!named.is_empty(), "{way} of who has no hole: {outcome:?}");
                opened.push((without, way.clone()));
            }
        }
    }
    // Every kernel lets root go to another cgroup, so that something is seen.
    ensure!(opened.iter().any(|(without, _)| *without == "user"), "only {opened:?}");
    let rewriter = Rewriter::attach(*b"stray_rewriter\0\0")?;
    let said = host.doctor()?;
    let finding = said.lines().find(|line| line.contains("other programs on connect"));
    ensure!(finding.is_some_and(|line| line.contains("stray_rewriter")), "{said}");
    drop(rewriter);
    host.finish()
}

/// Waits until the doctor names this hole of the unit's, or none of it.
fn foretold(host: &Host, named: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let said = host.doctor()?;
        let of_unit = said.lines().skip_while(|line| !line.contains("workload svc (steered)"));
        let is_so = match named {
            "" => of_unit.count() == 0,
            named => of_unit.collect::<Vec<_>>().join("\n").contains(named),
        };
        if is_so {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it doesn't say `{named}`:\n{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
