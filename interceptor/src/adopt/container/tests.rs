use super::{docker, id_in, podman};

const ID: &str = "4f2c0a6b8e1d3f5a7c9b0d2e4f6a8c0b1d3e5f7a9b0c2d4e6f8a0b1c3d5e7f90";

#[test]
fn a_container_is_known_by_the_id_in_its_cgroup() {
    for path in [
        format!("/docker/{ID}"),
        format!("/system.slice/docker-{ID}.scope"),
        format!("/machine.slice/libpod-{ID}.scope"),
        format!("/libpod_parent/libpod-{ID}"),
    ] {
        assert_eq!(id_in(&path), Some(ID), "{path}");
    }
    for path in ["/docker/buildkit", "/system.slice/docker-.scope", "/system.slice/docker.service", ""] {
        assert_eq!(id_in(path), None, "{path}");
    }
}

#[test]
fn labels_and_image_are_read_from_dockers_file() {
    let file =
        br#"{"ID":"x","Config":{"Image":"crm:1","Labels":{"interceptor.workload":"crm","a":""}},"Image":"sha256:ab"}"#;
    let container = docker(file).expect("it is one");
    assert!(container.has("interceptor.workload=crm") && container.has("interceptor.workload") && container.has("a="));
    assert!(!container.has("interceptor.workload=cr") && !container.has("b"));
    assert_eq!(container.image.as_deref(), Some("sha256:ab"));
    assert!(docker(br#"{"Config":{}}"#).is_some_and(|container| !container.has("a")));
    assert!(docker(b"{").is_none());
}

#[test]
fn labels_and_image_are_read_from_podmans_list() {
    let list = format!(
        r#"[{{"id":"other","image":"00","metadata":"{{}}"}},
            {{"id":"{ID}","image":"ab","metadata":"{{\"labels\":{{\"interceptor.workload\":\"crm\"}}}}"}}]"#
    );
    let container = podman(list.as_bytes(), ID).expect("it is listed");
    assert!(container.has("interceptor.workload=crm"));
    assert_eq!(container.image.as_deref(), Some("sha256:ab"));
    assert!(podman(list.as_bytes(), "none").is_none());
    assert!(podman(b"[{}]", ID).is_none());
}
