use super::{Namespaces, Process, other_device, privileges, user_netlink};

const OWN: Namespaces = Namespaces { user: 1, pid: 2, mount: 3, net: 4 };

fn process() -> Process {
    Process { pid: 9, uids: [1000; 4], no_new_privs: true, namespaces: OWN, ..Process::default() }
}

fn told(process: &Process) -> String {
    privileges(process, &OWN).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unprivileged_process_that_stays_so_has_no_holes() {
    assert_eq!(told(&process()), "");
}

#[test]
fn a_process_that_can_become_root_is_told() {
    let before = process();
    let process = Process { no_new_privs: false, capabilities: [0, 0, u64::MAX], ..process() };
    let told = told(&process);
    assert!(
        told.contains("set-uid program gives it, CAP_NET_ADMIN, CAP_NET_RAW") && told.contains("become root"),
        "{told}"
    );
    let process = Process { capabilities: [0, 0, u64::MAX], ..before };
    assert_eq!(super::tests::told(&process), "", "a bounding set is nothing that it has");
}

#[test]
fn root_and_capabilities_are_told() {
    let root = told(&Process { uids: [0; 4], ..process() });
    assert!(root.contains("runs as root"), "{root}");
    let saved = told(&Process { uids: [1000, 1000, 0, 1000], ..process() });
    assert!(saved.contains("runs as root"), "{saved}");
    let raw = told(&Process { capabilities: [1 << 13, 0, 0], ..process() });
    assert!(raw.contains("CAP_NET_RAW") && raw.contains("CapabilityBoundingSet="), "{raw}");
    let permitted = told(&Process { capabilities: [0, 1 << 7, 0], ..process() });
    assert!(permitted.contains("CAP_SETUID"), "{permitted}");
}

/// The tree of cgroups may be mounted there, as `-v /sys/fs/cgroup:/sys/fs/cgroup` does it.
#[test]
fn root_of_a_container_is_root_of_the_host_unless_its_users_are_its_own() {
    let inside = Namespaces { pid: 12, mount: 13, net: 14, ..OWN };
    let bare = Process { namespaces: inside, ..process() };
    assert_eq!(told(&bare), "");
    let root = told(&Process { uids: [0; 4], ..bare.clone() });
    assert!(root.contains("runs as root") && root.contains("--user"), "{root}");
    for (bit, name) in [(13, "CAP_NET_RAW"), (2, "CAP_DAC_READ_SEARCH"), (7, "CAP_SETUID"), (1, "CAP_DAC_OVERRIDE")] {
        let found = told(&Process { capabilities: [1 << bit, 0, 0], ..bare.clone() });
        assert!(found.contains(name), "{name}: {found}");
    }
    let set_uid = told(&Process { no_new_privs: false, ..bare });
    assert!(set_uid.contains("become root"), "{set_uid}");
    let users = Namespaces { user: 11, ..OWN };
    let called = Process { namespaces: users, uids: [100_000; 4], capabilities: [u64::MAX; 3], ..process() };
    assert_eq!(told(&called), "", "a namespace of users of its own gives nothing outside");
    let mapped = told(&Process { uids: [0; 4], ..called });
    assert!(mapped.contains("runs as root"), "{mapped}");
}

#[test]
fn a_device_besides_lo_is_a_way_out() {
    let head = "Inter-|   Receive |  Transmit\n face |bytes packets|bytes packets\n";
    assert_eq!(other_device(&format!("{head}    lo:       0       0\n")), None);
    assert_eq!(other_device(&format!("{head}    lo:       0       0\n  tap0: 17 1\n")), Some("tap0"));
    assert_eq!(other_device(""), None);
}

#[test]
fn who_listens_for_messages_of_processes_is_found() {
    let head = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
    let route = "0 0   712        00000000 0        0        0     2        0        4\n";
    let kernel = "0 2   0          00000000 0        0        0     2        0        5\n";
    let user = "0 2   4711       00000001 0        0        0     2        0        6\n";
    assert_eq!(user_netlink(&format!("{head}{route}{kernel}")), None);
    assert_eq!(user_netlink(&format!("{head}{route}{kernel}{user}")), Some("4711"));
}
