use super::{CgroupError, Cgroups};

#[test]
fn where_no_cgroup_can_be_made_there_is_no_daemon() {
    // A file of cgroup2's own, below which there can't be anything.
    match Cgroups::enter("cgroup.procs").map(|cgroups| cgroups.workloads) {
        Err(CgroupError::Unusable { path, .. }) => assert!(path.ends_with("cgroup.procs/daemon"), "{path:?}"),
        Err(CgroupError::NoMount(_)) => println!("skipped: there is no cgroup2"),
        Ok(workloads) => panic!("{workloads:?}"),
    }
}
