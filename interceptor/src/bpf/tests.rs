use std::path::Path;

use super::{btf, mounts, unix};

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
