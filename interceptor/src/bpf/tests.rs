use std::path::Path;

use interceptor_common::{
    DoorKey, Fate, Flow, Governed, Kind, LAYOUT, Origin, OriginKey, PATH_BYTES, Place, PlaceKey, SpaceKey, TallyKey,
    UnixKey,
};

use super::{btf, mounts, unix};

/// Maps outlive the daemon: whoever changes one of these has to raise the version.
#[test]
fn the_layout_is_what_its_version_says() {
    let sizes = [
        size_of::<OriginKey>(),
        size_of::<Origin>(),
        size_of::<UnixKey>(),
        size_of::<Governed>(),
        size_of::<PlaceKey>(),
        size_of::<Place>(),
        size_of::<DoorKey>(),
        size_of::<Flow>(),
        size_of::<SpaceKey>(),
        size_of::<TallyKey>(),
        PATH_BYTES,
    ];
    assert_eq!((LAYOUT, sizes), ("v1", [48, 32, 120, 8, 16, 8, 16, 64, 16, 8, 252]));
    let kinds = [Kind::Tcp, Kind::Udp, Kind::Dns, Kind::Raw, Kind::Packet, Kind::Unix, Kind::Other];
    assert_eq!((LAYOUT, kinds.map(|kind| kind as u32)), ("v1", [0, 1, 2, 3, 4, 5, 6]));
    let fates = [
        Fate::Steered,
        Fate::Refused,
        Fate::Dropped,
        Fate::Allowed,
        Fate::Arrived,
        Fate::Failed,
        Fate::Established,
        Fate::Lost,
        Fate::Left,
    ];
    assert_eq!((LAYOUT, fates.map(|fate| fate as u32)), ("v1", [0, 1, 2, 3, 4, 5, 6, 7, 8]));
}

#[test]
fn the_second_cgroup_hierarchy_is_found_beside_the_first() {
    let text = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        40 31 0:38 /sub /mnt/part rw - cgroup2 cgroup2 rw\n\
        41 31 0:38 / /sys/fs/cgroup/my\\040own rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
    assert_eq!(mounts::find(text, "cgroup2").as_deref(), Some(Path::new("/sys/fs/cgroup/my own")));
    assert_eq!(mounts::find(text, "bpf"), None);
    assert_eq!(mounts::find("garbage\n - \n", "cgroup2"), None);
}

#[test]
fn btf_is_searched_by_kind_and_whole_name() {
    let Ok(types) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        return;
    };
    assert!(btf::function_id(&types, "tcp_v4_connect").is_some());
    assert_eq!(btf::function_id(&types, "tcp_v4_connec"), None);
    assert_eq!(btf::function_id(&types, "bpf_sock_addr_kern"), None);
    assert_eq!(btf::member_offset(&types, "bpf_sock_addr_kern", "uaddr"), Some(8));
    assert_eq!(btf::member_offset(&types, "bpf_sock_addr_kern", "nothing"), None);
}

#[test]
fn btf_that_is_cut_off_or_garbage_finds_nothing() {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    assert_eq!(btf::function_id(&types[..types.len().min(4096)], "tcp_v4_connect"), None);
    assert_eq!(btf::function_id(&[0x9f, 0xeb], "x"), None);
    assert_eq!(btf::function_id(&[0xff; 64], "x"), None);
}

#[test]
fn a_path_that_no_socket_can_have_is_not_allowed() {
    assert!(unix::key(1, Path::new("/run/x.sock")).is_ok_and(|key| key.path[..12] == *b"/run/x.sock\0"));
    assert!(unix::key(1, Path::new(&"x".repeat(108))).is_ok());
    assert!(unix::key(1, Path::new(&"x".repeat(109))).is_err());
    assert!(unix::key(1, Path::new("")).is_err());
    assert!(unix::key(1, Path::new("a\0b")).is_err());
}
