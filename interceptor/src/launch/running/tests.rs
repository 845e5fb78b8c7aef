use std::fs;

use serde_json::{Value, json};

use super::{Revived, State, revive, unreadable};

/// What an earlier version wrote, of a process 1 that there can't be.
fn state() -> Value {
    json!({
        "start_time": 1,
        "workload": {
            "id": crate::ids::LaunchId::new(), "initiator": 1000, "uid": 1000, "init": u32::MAX / 2, "cgroup": "/nowhere/cgroup",
            "name": "crm", "uids": [1000], "gids": [], "command": null, "user": null, "home": "guarded", "unix": [],
            "classes": [],
        },
    })
}

#[test]
fn what_an_earlier_version_wrote_is_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("launch.json"), state().to_string()).unwrap();
    let read = State::read(folder.path()).unwrap();
    assert_eq!((read.version, read.start_time), (1, 1));
    assert_eq!(unreadable(folder.path()), None);
    let found = revive(folder.path());
    assert!(matches!(&found, Revived::Ended(Some(name)) if name.as_str() == "crm"), "{found:?}");
    assert!(!folder.path().exists(), "what it left is removed");
}

#[test]
fn fields_that_are_new_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = state();
    state["something"] = json!(1);
    state["workload"]["more"] = json!({ "of": "it" });
    fs::write(folder.path().join("launch.json"), state.to_string()).unwrap();
    assert!(State::read(folder.path()).is_ok());
}

#[test]
fn what_this_version_cant_know_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("launch.json");
    let mut state = state();
    state["version"] = json!(2);
    state["workload"] = json!("something else");
    for text in [state.to_string(), "[1]".to_owned()] {
        fs::write(&file, &text).unwrap();
        assert!(unreadable(folder.path()).is_some());
        let found = revive(folder.path());
        assert!(matches!(found, Revived::Unreadable(_)), "{found:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    // The daemon was killed while it wrote it down.
    for text in ["", "{\"start_time\":"] {
        fs::write(&file, text).unwrap();
        assert_eq!(unreadable(folder.path()), None);
        assert!(matches!(revive(folder.path()), Revived::Ended(None)), "{text}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(unreadable(folder.path()), None);
    assert!(matches!(revive(folder.path()), Revived::Ended(None)));
}
