use super::*;
use crate::config::Level;
use crate::config::{Home, IdentitySource};
use crate::launch::caller::hold;

fn workload(name: &str, matches: Match, user: Option<&str>) -> Arc<WorkloadSettings> {
    Arc::new(WorkloadSettings {
        name: name.parse().unwrap(),
        matches,
        user: user.map(Into::into),
        home: Home::Guarded,
        unix: Vec::new(),
        classes: Vec::new(),
        identity: IdentitySource::Observed,
        publish: Vec::new(),
        adopt: Vec::new(),
        containment: Level::Steered,
    })
}

fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
    let me = std::process::id();
    let (real_uid, real_gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let mut caller = Caller::read(me, hold(me).unwrap(), real_uid, real_gid).unwrap();
    (caller.uid, caller.gid, caller.groups, caller.operator) = (uid, gid, groups.to_vec(), uid == 0);
    caller
}

fn matching(uids: &[u32], gids: &[u32], command: Option<&str>) -> Match {
    Match { uids: uids.to_vec(), gids: gids.to_vec(), command: command.map(Into::into) }
}

fn argv(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn the_first_that_fits_is_chosen() {
    let workloads = [
        workload("operators", Match::default(), Some("mcp")),
        workload("crm", matching(&[1000], &[], Some("crm-mcp")), None),
        workload("team", matching(&[], &[50], None), None),
        workload("both", matching(&[1000], &[60], None), None),
    ];
    let table = [
        (caller(1000, 1000, &[]), "crm-mcp --fast", Some("crm")),
        (caller(1000, 1000, &[]), "/opt/bin/crm-mcp", Some("crm")),
        (caller(1000, 1000, &[]), "other", None),
        (caller(1001, 1000, &[]), "crm-mcp", None),
        (caller(1001, 50, &[]), "crm-mcp", Some("team")),
        (caller(1001, 1, &[2, 50]), "x", Some("team")),
        (caller(1000, 1, &[60]), "x", Some("both")),
        (caller(1001, 1, &[60]), "x", None),
        (caller(0, 0, &[]), "x", None),
    ];
    for (caller, command, expected) in table {
        let chosen = choose(&workloads, &caller, None, None, &argv(command));
        assert_eq!(chosen.as_ref().ok().map(|w| w.name.as_str()), expected, "{command} by {}", caller.uid);
        if expected.is_none() {
            assert!(matches!(chosen, Err(LaunchError::NoMatch { .. })));
        }
    }
}

#[test]
fn a_workload_is_named_only_by_those_it_is_for() {
    let workloads = [workload("crm", matching(&[1000], &[], None), Some("mcp"))];
    let name: WorkloadName = "crm".parse().unwrap();
    let choose = |uid, named, user| choose(&workloads, &caller(uid, uid, &[]), named, user, &argv("x"));
    assert!(choose(1000, Some(&name), None).is_ok());
    assert!(choose(0, Some(&name), None).is_ok(), "root may name any");
    assert!(matches!(choose(1001, Some(&name), None), Err(LaunchError::NotForCaller(_))));
    assert!(choose(1000, Some(&name), Some("mcp")).is_ok());
    assert!(matches!(choose(1000, Some(&name), Some("root")), Err(LaunchError::User { .. })));
    assert!(matches!(choose(1000, None, Some("root")), Err(LaunchError::NoMatch { .. })));
}

#[test]
fn the_stanza_to_add_is_toml_that_would_fit() {
    let error = choose(&[], &caller(1000, 1000, &[]), None, None, &argv("/x/My\"Server.sh")).unwrap_err();
    let LaunchError::NoMatch { stanza, .. } = &error else { panic!("{error:?}") };
    let parsed: toml::Table = stanza.parse().unwrap();
    let workload = &parsed["workload"][0];
    assert!(workload["name"].as_str().unwrap().parse::<WorkloadName>().is_ok());
    assert_eq!(workload["match"]["command"].as_str(), Some("My\"Server.sh"));
    assert_eq!(workload["match"]["uid"].as_integer(), Some(1000));
    assert!(error.next().contains("[[workload]]"));
}

#[test]
fn commands_that_leave_the_workload_are_refused() {
    for command in ["docker run x", "/usr/bin/podman", "systemd-run --user x", "sudo x"] {
        let refused = choose(&[], &caller(1000, 1000, &[]), None, None, &argv(command));
        assert!(matches!(refused, Err(LaunchError::Command { .. })), "{command}");
    }
    assert!(matches!(choose(&[], &caller(1, 1, &[]), None, None, &[]), Err(LaunchError::Command { .. })));
}
