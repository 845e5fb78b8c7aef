use std::fs;

use super::{Engine, Engines, engine_and_id};

const ID: &str = "4f2c0a6b8e1d3f5a7c9b0d2e4f6a8c0b1d3e5f7a9b0c2d4e6f8a0b1c3d5e7f90";

#[test]
fn a_container_is_known_by_the_id_in_its_cgroup() {
    for (path, engine) in [
        (format!("/docker/{ID}"), Engine::Docker),
        (format!("/system.slice/docker-{ID}.scope"), Engine::Docker),
        (format!("/machine.slice/libpod-{ID}.scope"), Engine::Podman),
        (format!("/machine.slice/machine-libpod_pod_{ID}.slice/libpod-{ID}.scope"), Engine::Podman),
        (format!("/libpod_parent/libpod-{ID}"), Engine::Podman),
    ] {
        assert_eq!(engine_and_id(&path), Some((engine, ID)), "{path}");
    }
    let conmon = [format!("/machine.slice/libpod-conmon-{ID}.scope"), format!("/libpod_parent/libpod-conmon-{ID}")];
    let others = ["/docker/buildkit", "/system.slice/docker-.scope", "/system.slice/docker.service", ""];
    for path in conmon.iter().map(String::as_str).chain(others) {
        assert_eq!(engine_and_id(path), None, "{path}");
    }
}

#[test]
fn labels_and_image_are_read_from_dockers_file() {
    let room = tempfile::tempdir().unwrap();
    let folder = room.path().join("containers").join(ID);
    fs::create_dir_all(&folder).unwrap();
    let engines = || Engines::new(room.path().into(), room.path().into());
    let cgroup = format!("/docker/{ID}");
    assert!(engines().find(&cgroup).unwrap().is_none());
    let write = |text: &str| fs::write(folder.join("config.v2.json"), text).unwrap();
    write(
        r#"{"ID":"x","Config":{"Image":"crm:1","Labels":{"interceptor.workload":"crm","a":""}},"Image":"sha256:ab"}"#,
    );
    let container = engines().find(&cgroup).unwrap().unwrap();
    assert!(container.has("interceptor.workload=crm") && container.has("interceptor.workload") && container.has("a="));
    assert!(!container.has("interceptor.workload=cr") && !container.has("b"));
    assert_eq!(container.image.as_deref(), Some("sha256:ab"));
    write(r#"{"Config":{}}"#);
    assert!(!engines().find(&cgroup).unwrap().unwrap().has("a"));
    write("{");
    assert!(engines().find(&cgroup).is_err(), "that it can't be read doesn't make it nobody's");
}

#[test]
fn labels_and_image_are_read_from_podmans_database() {
    let room = tempfile::tempdir().unwrap();
    let engines = || Engines::new(room.path().into(), room.path().into());
    let cgroup = format!("/machine.slice/libpod-{ID}.scope");
    assert!(engines().find(&cgroup).unwrap().is_none());
    assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0, "no database was made");
    let database = rusqlite::Connection::open(room.path().join("db.sql")).unwrap();
    let table = "CREATE TABLE ContainerConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, PodID TEXT, JSON TEXT NOT NULL)";
    database.execute(table, []).unwrap();
    assert!(engines().find(&cgroup).unwrap().is_none());
    let json = r#"{"spec":{},"id":"x","rootfsImageID":"ab","labels":{"interceptor.workload":"crm"}}"#;
    let row = "INSERT INTO ContainerConfig VALUES (?1, 'crm', NULL, ?2)";
    database.execute(row, [ID, json]).unwrap();
    let container = engines().find(&cgroup).unwrap().unwrap();
    assert!(container.has("interceptor.workload=crm"));
    assert_eq!(container.image.as_deref(), Some("sha256:ab"));
    // One of a unit that Quadlet made is no cgroup that a label finds.
    let payload = format!("/system.slice/crm.service/libpod-payload-{ID}");
    assert_eq!(engines().image(&payload).as_deref(), Some("sha256:ab"));
    assert!(engines().find(&payload).unwrap().is_none() && engines().image("/system.slice/crm.service").is_none());
    // As long as Podman writes, nothing is known; it is asked again.
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(engines().find(&cgroup).is_err());
    database.execute_batch("COMMIT").unwrap();
    assert!(engines().find(&cgroup).unwrap().is_some());
}

#[test]
fn what_was_found_is_kept_as_long_as_the_cgroup_is_there() {
    let room = tempfile::tempdir().unwrap();
    let folder = room.path().join("containers").join(ID);
    fs::create_dir_all(&folder).unwrap();
    let engines = Engines::new(room.path().into(), room.path().into());
    let cgroup = format!("/docker/{ID}");
    fs::write(folder.join("config.v2.json"), r#"{"Config":{"Labels":{"a":"b"}}}"#).unwrap();
    assert!(engines.find(&cgroup).unwrap().is_some());
    fs::remove_dir_all(room.path().join("containers")).unwrap();
    engines.keep([cgroup.as_str()].into_iter());
    assert!(engines.find(&cgroup).unwrap().is_some());
    engines.keep(std::iter::empty());
    assert!(engines.find(&cgroup).unwrap().is_none());
}

/// Also of one that its cgroup's path is adopted by, or that is in a unit.
#[test]
fn an_image_is_known_without_a_label() {
    let room = tempfile::tempdir().unwrap();
    let engines = Engines::new(room.path().into(), room.path().into());
    // Images are remembered by their containers' ids, so each has its own.
    let other = ID.replace('f', "a");
    let (docker, podman) = (format!("/docker/{ID}"), format!("/system.slice/crm.service/libpod-payload-{other}"));
    assert_eq!((engines.image(&docker), engines.image(&podman)), (None, None));
    let folder = room.path().join("containers").join(ID);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.v2.json"), r#"{"Config":{},"Image":"sha256:ab"}"#).unwrap();
    let database = rusqlite::Connection::open(room.path().join("db.sql")).unwrap();
    database.execute("CREATE TABLE ContainerConfig(ID TEXT PRIMARY KEY NOT NULL, JSON TEXT NOT NULL)", []).unwrap();
    database
        .execute("INSERT INTO ContainerConfig VALUES (?1, ?2)", [other.as_str(), r#"{"rootfsImageID":"cd"}"#])
        .unwrap();
    assert_eq!(engines.image(&docker).as_deref(), Some("sha256:ab"));
    assert_eq!(engines.image(&podman).as_deref(), Some("sha256:cd"));
    for path in ["/system.slice/crm.service", "/system.slice/crm.service/libpod-payload-x", ""] {
        assert_eq!(engines.image(path), None, "{path}");
    }
}
