//! Holes of a workload that is steered: how the doctor calls each, and which ways past the proxy it may open. What isn't said
//! to be opened by a hole has to be caught also where there are some.

use std::collections::BTreeSet;

/// What makes a workload a steered one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hole {
    /// It is root, though without capabilities.
    Root,
    Capabilities,
    /// It can become root by a set-uid program; no way here is one.
    SetUid,
    Families,
    IoUring,
    Architectures,
    /// A launched one sees all of its user's home. That is no way out.
    Home,
}

/// Words of what the doctor says of each.
const CALLED: [(Hole, &str); 7] = [
    (Hole::Root, "runs as root"),
    (Hole::Capabilities, "it holds"),
    (Hole::SetUid, "by a set-uid program"),
    (Hole::Families, "of families that the hooks don't see"),
    (Hole::IoUring, "can use io_uring"),
    (Hole::Architectures, "of another architecture"),
    (Hole::Home, "shows keys and start-up files"),
];

/// What each may open.
const OPENS: [(Hole, &[&str]); 5] = [
    // What belongs to root needs no capability: the cgroups, and some of /proc.
    (
        Hole::Root,
        &[
            "into the cgroup above",
            "into the root of the cgroups",
            "a child born in another cgroup (clone3)",
            "bpf: what the daemon has pinned",
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/kernel/core_pattern",
            "/proc/sysrq-trigger",
            "root, by setuid",
        ],
    ),
    (
        Hole::Capabilities,
        &[
            "raw ICMP",
            "raw ICMPv6",
            "raw TCP",
            "raw UDP",
            "raw, a header of its own (RAW)",
            "raw v6, a header of its own (RAW)",
            "raw, a protocol without a name (253)",
            "raw v6, a protocol without a name (253)",
            "raw IP_HDRINCL",
            "ip-in-ip",
            "gre",
            "packet SOCK_RAW",
            "packet SOCK_DGRAM",
            "SOCK_PACKET",
            "xdp",
        ],
    ),
    (
        Hole::Families,
        &[
            "packet SOCK_RAW",
            "packet SOCK_DGRAM",
            "xdp",
            "vsock stream",
            "vsock dgram",
            "vsock seqpacket",
            "alg",
            "key (IPsec)",
            "smc",
            "tipc stream",
            "tipc dgram",
            "tipc by a pair",
            "rds",
            "can raw",
            "can bcm",
            "bluetooth l2cap",
            "bluetooth hci",
            "kcm",
            "qipcrtr",
            "x25",
            "ax25",
            "netrom",
            "rose",
            "ipx",
            "appletalk",
            "llc",
            "atm",
            "pppox",
            "phonet",
            "ieee802154",
            "caif",
            "nfc",
            "rxrpc",
            "mctp",
        ],
    ),
    (Hole::IoUring, &["io_uring", "io_uring, a connect"]),
    (Hole::Architectures, &["x32: a socket", "i386: a socket", "i386: socketcall", "i386: a vsock"]),
];

/// What isn't tried where there are holes, and why.
pub(crate) const LEFT_OUT: [(&str, &str); 4] = [
    ("killing the daemon", "root does that, and nothing is seen afterwards"),
    ("removing what the daemon has pinned", "root does that, and what comes afterwards isn't this daemon's"),
    ("a cgroup of its own below", "root leaves one, with which the unit's can't be removed"),
    ("being connected to", "what answers somebody who connected is no way out"),
];

impl Hole {
    /// Whether it may open this way.
    pub(crate) fn opens(self, way: &str) -> bool {
        OPENS.iter().any(|(hole, ways)| *hole == self && ways.contains(&way))
    }

    fn called(what: &str) -> Option<Self> {
        CALLED.iter().find(|(_, words)| what.contains(words)).map(|(hole, _)| *hole)
    }
}

/// The holes of this workload that the doctor names; none if it names one that isn't known here.
pub(crate) fn named(doctor: &str, workload: &str) -> Option<BTreeSet<Hole>> {
    let whose = format!("workload {workload} (");
    let findings = doctor.lines().filter_map(|line| line.split_once(whose.as_str())?.1.split_once("): "));
    findings.map(|(_, what)| Hole::called(what)).collect()
}

/// Those ways of this file that nobody tries: their names are wrong.
pub(crate) fn unknown(names: &[String]) -> Vec<&'static str> {
    let opened = OPENS.iter().flat_map(|(_, ways)| ways.iter().copied());
    let all = opened.chain(LEFT_OUT.iter().map(|(way, _)| *way));
    all.filter(|way| !names.iter().any(|name| name == way)).collect()
}

#[test]
fn only_the_holes_of_that_very_workload_explain_what_they_open() {
    let doctor = "ok      root\n\
        warn    workload crm (steered): `home = \"full\"` shows keys and start-up files\n        -> use \"guarded\"\n\
        warn    workload svc (steered): it can make sockets of families that the hooks don't see (AF_VSOCK among them)\n\
        \x20       -> set `RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK`\n\
        warn    workload svc (steered): it holds, or a set-uid program gives it, CAP_NET_RAW\n\
        \x20       -> set `CapabilityBoundingSet=`, `AmbientCapabilities=` and `NoNewPrivileges=yes`\n";
    assert_eq!(named(doctor, "svc"), Some(BTreeSet::from([Hole::Capabilities, Hole::Families])));
    assert_eq!(named(doctor, "crm"), Some(BTreeSet::from([Hole::Home])));
    assert_eq!(named(doctor, "other"), Some(BTreeSet::new()));
    assert_eq!(named("warn    workload svc (steered): the moon is full\n", "svc"), None);
    assert!(Hole::Families.opens("vsock stream") && !Hole::Families.opens("raw ICMP"));
    assert!(Hole::Root.opens("into the cgroup above") && !Hole::IoUring.opens("into the cgroup above"));
    assert!(!CALLED.iter().any(|(hole, _)| hole.opens("tcp") || hole.opens("udp sendto")));
}
