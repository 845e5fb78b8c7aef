use std::path::Path;

use super::DropIn;

fn drop_in(root: &Path, unit: &str) -> Result<DropIn, super::UnitError> {
    DropIn::new(root, unit, Path::new("/run/interceptor/trust.pem"), Path::new("/run/interceptor/authority.pem"))
}

#[test]
fn a_drop_in_is_written_found_and_removed_with_its_folder() {
    let root = tempfile::tempdir().expect("a folder");
    let one = drop_in(root.path(), "crm-mcp.service").expect("a service");
    assert!(one.path.ends_with("etc/systemd/system/crm-mcp.service.d/zzz-interceptor.conf"));
    assert!(!one.is_written());
    one.write().expect("it can be written");
    assert!(one.is_written());
    assert!(one.remove().expect("it can be removed"));
    assert!(!one.path.parent().expect("a folder").exists());
    assert!(!one.remove().expect("nothing is left"));
}

/// Drop-ins are read in the order of their names, and the last one that says something is right (systemd.unit(5)).
#[test]
fn it_sorts_behind_what_others_add_and_takes_the_place_of_an_earlier_one() {
    let root = tempfile::tempdir().expect("a folder");
    let one = drop_in(root.path(), "crm.service").expect("a service");
    let name = one.path.file_name().and_then(|name| name.to_str()).expect("a name");
    for other in ["override.conf", "99-local.conf"] {
        assert!(name > other, "{name}");
    }
    let earlier = one.path.with_file_name("90-interceptor.conf");
    let before = || {
        std::fs::create_dir_all(earlier.parent().expect("a folder")).expect("a folder");
        std::fs::write(&earlier, &one.text).expect("a file");
    };
    before();
    assert!(one.is_there() && !one.is_written());
    one.write().expect("it can be written");
    assert!(one.is_written() && !earlier.exists());
    before();
    assert!(!one.is_written());
    assert!(one.remove().expect("it can be removed"));
    assert!(!one.is_there() && !earlier.parent().expect("a folder").exists());
    before();
    assert!(one.remove().expect("one of the earlier name as well"));
}

#[test]
fn what_others_put_there_stays() {
    let root = tempfile::tempdir().expect("a folder");
    let one = drop_in(root.path(), "crm@a.service").expect("a service");
    one.write().expect("it can be written");
    let other = one.path.with_file_name("10-other.conf");
    std::fs::write(&other, "[Service]\n").expect("a file");
    assert!(one.remove().expect("it can be removed"));
    assert!(other.exists());
}

#[test]
fn what_is_no_service_has_no_drop_in() {
    for unit in ["crm", "crm.scope", ".service", "../../x.service", "a b.service", "a\n.service"] {
        assert!(drop_in(Path::new("/"), unit).is_err(), "`{unit}` was taken");
    }
}

#[test]
fn it_says_what_has_to_hold_for_a_contained_workload() {
    let text = drop_in(Path::new("/"), "crm.service").expect("a service").text;
    for line in [
        "Requires=interceptor-anchor.service",
        "After=interceptor.service interceptor-anchor.service",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "Environment=SSL_CERT_FILE=/run/interceptor/trust.pem",
        "Environment=NODE_EXTRA_CA_CERTS=/run/interceptor/authority.pem",
    ] {
        assert!(text.lines().any(|one| one == line), "`{line}` is missing in\n{text}");
    }
}
