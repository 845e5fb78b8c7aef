use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::*;

#[test]
fn what_the_kernel_says_of_a_process_is_read() {
    let mut child = Command::new("sleep").arg("30").current_dir("/usr").stdin(Stdio::null()).spawn().unwrap();
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let caller = Caller::read(child.id(), hold(child.id()).unwrap(), uid, gid).unwrap();
    assert_eq!(caller.cwd.path, Path::new("/usr"));
    assert_eq!(caller.cwd.inode, fs::metadata("/usr").unwrap().ino());
    assert_eq!(caller.limits.len(), 16);
    let files = sys::limit(libc::RLIMIT_NOFILE).unwrap();
    assert_eq!((caller.limits[7].soft, caller.limits[7].hard), files);

    let other = Caller::read(child.id(), hold(child.id()).unwrap(), uid + 1, gid);
    assert!(matches!(other, Err(LaunchError::Caller { .. })), "another uid than the one it connected with");

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(caller.still_lives(), Err(LaunchError::Caller { .. })));
}

#[test]
fn a_caller_in_another_namespace_is_refused() {
    if !nix::unistd::getuid().is_root() {
        return;
    }
    let mut command = Command::new("unshare");
    let mut child = command.args(["--net", "sleep", "30"]).process_group(0).spawn().unwrap();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let theirs = format!("/proc/{}/ns/net", child.id());
    while fs::read_link(&theirs).is_ok_and(|net| net == own) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let refused = Caller::read(child.id(), hold(child.id()).unwrap(), 0, 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let Err(LaunchError::Caller { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("net namespace"), "{message}");
}

#[test]
fn status_without_a_field_is_an_error() {
    let text = "Umask:\t0022\nUid:\t7\t7\t7\t7\nGroups:\t4 5 \nSigIgn:\t0000000000001001\n";
    let status = Status::parse(text).unwrap();
    assert_eq!((status.uids, status.groups, status.umask), (vec![7; 4], vec![4, 5], 0o22));
    assert_eq!(status.ignored, 1, "SIGHUP stays ignored, SIGPIPE doesn't");
    assert!(Status::parse(&text.replace("Umask", "Amask")).is_err());
}

#[test]
fn limits_out_of_order_are_an_error() {
    let mut text = String::from("Limit                     Soft Limit           Hard Limit           Units     \n");
    for name in LIMITS {
        text.push_str(&format!("{name:<26}{:<21}{:<21}units\n", "unlimited", 7));
    }
    let limits = parse_limits(&text).unwrap();
    assert_eq!((limits[15].resource, limits[15].soft, limits[15].hard), (15, u64::MAX, 7));
    assert!(parse_limits(&text.replace("Max data size", "Max some size")).is_err());
}
