use std::path::Path;

use super::{Tree, unit_paths};
use crate::adopt::Engines;
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
    assert_eq!(unit_paths("mcp.slice"), ["/mcp.slice"]);
    assert_eq!(unit_paths("a-b-c.slice"), ["/a.slice/a-b.slice/a-b-c.slice"]);
}

#[test]
fn a_unit_that_is_elsewhere_is_found_for_the_operator() {
    let room = tempfile::tempdir().unwrap();
    let tree = Tree::new(room.path().into(), Engines::new(room.path().into(), room.path().into()));
    let make = |path: &str| std::fs::create_dir_all(room.path().join(path)).unwrap();
    make("system.slice/crm.service");
    make("mcp.slice/mcp-a.slice/own.service");
    make("user.slice/user-7.slice/user@7.service/app.slice/users.service");
    make("other/hidden.service");
    assert_eq!(tree.elsewhere("crm.service"), None, "it is where it is looked for");
    assert_eq!(tree.elsewhere("own.service").as_deref(), Some("/mcp.slice/mcp-a.slice/own.service"));
    let users = "/user.slice/user-7.slice/user@7.service/app.slice/users.service";
    assert_eq!(tree.elsewhere("users.service").as_deref(), Some(users));
    assert_eq!(tree.elsewhere("hidden.service"), None, "that is no slice");
}

#[test]
fn a_cgroup_is_its_workloads_by_its_name() {
    const ID: &str = "4f2c0a6b8e1d3f5a7c9b0d2e4f6a8c0b1d3e5f7a9b0c2d4e6f8a0b1c3d5e7f90";
    let room = tempfile::tempdir().unwrap();
    // Nothing of it is there.
    let tree = Tree::new(room.path().join("cgroup2"), Engines::new(room.path().into(), room.path().into()));
    let settings = adopting(vec![
        Adopt::Unit("crm.service".into()),
        Adopt::Cgroup(Pattern::new("/a/mcp-*").unwrap()),
        Adopt::ContainerLabel("crm".into()),
    ]);
    let own = |path: &str| tree.own(&settings, Path::new(path)).map(|own| own.map(str::to_owned)).map_err(drop);
    assert_eq!(own("/system.slice/crm.service/worker"), Ok(Some("/system.slice/crm.service".into())));
    assert_eq!(own("/a/mcp-1"), Ok(Some("/a/mcp-1".into())));
    for path in ["/", "/a", "/a/other", "/system.slice/crm.service.d", "/system.slice"] {
        assert_eq!(own(path), Ok(None), "{path}");
    }
    let container = format!("/docker/{ID}");
    assert_eq!(own(&container), Ok(None), "nobody knows it");
    let folder = room.path().join("containers").join(ID);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.v2.json"), "{").unwrap();
    assert_eq!(own(&container), Err(()), "whose it is can't be known");
    std::fs::write(folder.join("config.v2.json"), r#"{"Config":{"Labels":{"crm":""}}}"#).unwrap();
    assert_eq!(own(&format!("{container}/init")), Ok(Some(container)));
}

/// One whose file is broken keeps no other from being found; whose it is stays unknown, unless another selector has it.
#[test]
fn a_container_that_cant_be_read_is_told_apart() {
    let room = tempfile::tempdir().unwrap();
    let mount = room.path().join("cgroup2");
    let tree = Tree::new(mount.clone(), Engines::new(room.path().into(), room.path().into()));
    let container = |last: char, file: &str| {
        let id = format!("{}{last}", "0".repeat(63));
        let folder = room.path().join("containers").join(&id);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.v2.json"), file).unwrap();
        std::fs::create_dir_all(mount.join("docker").join(&id)).unwrap();
        format!("/docker/{id}")
    };
    let broken = container('1', "{");
    let own = container('2', r#"{"Config":{"Labels":{"crm":""}}}"#);
    container('3', r#"{"Config":{"Labels":{"other":""}}}"#);
    let found = |adopt| {
        let found = tree.of(&adopting(adopt)).unwrap();
        let paths = |cgroups: Vec<super::Cgroup>| cgroups.into_iter().map(|one| one.path).collect::<Vec<_>>();
        (paths(found.cgroups), paths(found.unknown.into_iter().map(|(one, _)| one).collect()))
    };
    let label = Adopt::ContainerLabel("crm".into());
    assert_eq!(found(vec![label.clone()]), (vec![own.clone()], vec![broken.clone()]));
    let whole = Adopt::Cgroup(Pattern::new(&broken).unwrap());
    assert_eq!(found(vec![label, whole]), (vec![broken, own], vec![]));
}

#[test]
fn a_container_that_is_adopted_by_its_cgroup_has_its_image() {
    let room = tempfile::tempdir().unwrap();
    let mount = room.path().join("cgroup2");
    let id = "0".repeat(64);
    let folder = room.path().join("containers").join(&id);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.v2.json"), r#"{"Config":{},"Image":"sha256:ab"}"#).unwrap();
    std::fs::create_dir_all(mount.join("docker").join(&id)).unwrap();
    std::fs::create_dir_all(mount.join("a")).unwrap();
    let tree = Tree::new(mount, Engines::new(room.path().into(), room.path().into()));
    let cgroup = |path: &str| Adopt::Cgroup(Pattern::new(path).unwrap());
    let found = tree.of(&adopting(vec![cgroup(&format!("/docker/{id}")), cgroup("/a")])).unwrap();
    let images: Vec<_> = found.cgroups.iter().map(|one| (one.path.as_str(), one.image.as_deref())).collect();
    assert_eq!(images, [("/a", None), (format!("/docker/{id}").as_str(), Some("sha256:ab"))]);
}

#[test]
fn what_may_be_somebody_elses_is_refused_until_it_is_known() {
    let settings = adopting(vec![
        Adopt::Cgroup(Pattern::new("/a/whole").unwrap()),
        Adopt::Cgroup(Pattern::new("/a/mcp-*").unwrap()),
        Adopt::Cgroup(Pattern::new("/a/user-*/app/crm").unwrap()),
        Adopt::ContainerLabel("crm".into()),
    ]);
    let watched = super::watched(&settings, 3);
    let told: Vec<_> = watched.iter().map(|one| (one.path.as_str(), one.level, one.state)).collect();
    assert_eq!(told[0], ("/a/whole", None, State::Steered));
    assert_eq!(told[1], ("/a/mcp-", Some(2), State::Refused));
    assert_eq!(told[2], ("/a/user-", Some(4), State::Refused));
    assert!(told.contains(&("/docker/", Some(2), State::Refused)));
    assert!(told.contains(&("/system.slice/docker-", Some(2), State::Refused)));
    // Those of a pod.
    assert!(told.contains(&("/machine.slice/machine-libpod_pod_", Some(3), State::Refused)));
    assert!(watched.iter().all(|one| one.workload == 3));
}
