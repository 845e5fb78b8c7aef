use std::path::{Path, PathBuf};

use super::{Origin, is_within, process};

fn origin(pid: u32) -> Origin {
    Origin { pid, tid: pid, uid: 0, comm: "x".into() }
}

#[test]
fn a_cgroup_is_within_itself_and_its_parents_only() {
    let cgroup = Path::new("/sys/fs/cgroup/unified/interceptor/workloads/wl_1");
    assert!(is_within("8:pids:/\n0::/interceptor/workloads/wl_1\n", cgroup));
    assert!(is_within("0::/interceptor/workloads/wl_1/deep/er\n", cgroup));
    assert!(!is_within("0::/interceptor/workloads/wl_10\n", cgroup));
    assert!(!is_within("0::/interceptor/workloads\n", Path::new("/sys/fs/cgroup/interceptor/workloads/wl_1")));
    assert!(!is_within("0::/\n", cgroup));
    assert!(!is_within("8:pids:/interceptor/workloads/wl_1\n", cgroup));
    assert!(!is_within("", cgroup));
}

#[test]
fn a_pid_of_somebody_else_is_nobody() {
    assert_eq!(process(origin(std::process::id()), Path::new("/sys/fs/cgroup/none/such")), None);
}

#[test]
fn a_process_that_has_ended_is_still_known() {
    let ended = process(origin(u32::MAX - 1), &PathBuf::from("/sys/fs/cgroup/x"));
    assert!(ended.is_some_and(|found| found.exe.is_none() && found.comm == "x"));
}
