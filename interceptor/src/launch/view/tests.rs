use super::*;

#[test]
fn kernel_filesystems_are_found_wherever_they_are_mounted() {
    let mountinfo = b"22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n\
        23 27 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n\
        24 27 0:21 / /srv/my\\040root/proc rw,relatime shared:7 master:2 - proc proc rw\n\
        25 27 254:0 / / rw - ext4 /dev/vda rw\n\
        26 27 0:44 / /cgroup rw,relatime - cgroup2 none rw\n\
        27 27 0:4 net:[4026532] /var/lib/netns/a rw - nsfs nsfs rw\n\
        28 27 0:4 net:[4026532] /run/netns/a rw - nsfs nsfs rw\n\nnonsense\n";
    assert_eq!(strays(mountinfo), ["/srv/my root/proc", "/cgroup", "/var/lib/netns/a"].map(PathBuf::from));
}

#[test]
fn escapes_that_arent_are_kept() {
    assert_eq!(unescape(b"/a\\134b\\0"), PathBuf::from("/a\\b\\0"));
}
