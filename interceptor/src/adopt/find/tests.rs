use super::unit_paths;
use crate::bpf::adopt::State;
use crate::config::{Adopt, Home, IdentitySource, Level, Match, Pattern, WorkloadSettings};

fn adopting(adopt: Vec<Adopt>) -> WorkloadSettings {
    WorkloadSettings {
        name: "crm".parse().unwrap(),
        matches: Match::default(),
        user: None,
        home: Home::Guarded,
        unix: Vec::new(),
        classes: Vec::new(),
        identity: IdentitySource::Observed,
        publish: Vec::new(),
        adopt,
        containment: Level::Contained,
    }
}

#[test]
fn the_deepest_common_cgroup_holds_them_all() {
    let cgroup = |path: &str| Adopt::Cgroup(Pattern::new(path).unwrap());
    let common = |adopt| super::common(&adopting(adopt));
    assert_eq!(common(vec![cgroup("/a/b/c")]), "/a/b/c");
    assert_eq!(common(vec![cgroup("/a/b/c-*")]), "/a/b");
    assert_eq!(common(vec![cgroup("/a/b/c"), cgroup("/a/bb/c")]), "/a");
    assert_eq!(common(vec![cgroup("/a/b"), cgroup("/c/d")]), "");
}

#[test]
fn a_unit_is_where_systemd_puts_it() {
    assert_eq!(unit_paths("crm.service"), ["/interceptor.slice/crm.service", "/system.slice/crm.service"]);
    let template = unit_paths("mcp-server@a-b.service");
    assert_eq!(template[2], "/system.slice/system-mcp\\x2dserver.slice/mcp-server@a-b.service");
}

#[test]
fn what_may_be_somebody_elses_is_refused_until_it_is_known() {
    let settings = adopting(vec![
        Adopt::Cgroup(Pattern::new("/a/whole").unwrap()),
        Adopt::Cgroup(Pattern::new("/a/mcp-*").unwrap()),
        Adopt::ContainerLabel("crm".into()),
    ]);
    let watched = super::watched(&settings, 3);
    let told: Vec<_> = watched.iter().map(|one| (one.path.as_str(), one.whole, one.state)).collect();
    assert_eq!(told[0], ("/a/whole", true, State::Steered));
    assert_eq!(told[1], ("/a/mcp-", false, State::Refused));
    assert!(told.contains(&("/system.slice/docker-", false, State::Refused)));
    assert!(watched.iter().all(|one| one.workload == 3));
}
