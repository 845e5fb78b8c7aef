use super::*;

#[test]
fn hosts_are_looked_up_by_dns_only() {
    let text = "passwd: files systemd\nhosts:  files mymachines resolve [!UNAVAIL=return] dns\nnetworks: files\n";
    assert_eq!(only_dns(text), "passwd: files systemd\nnetworks: files\nhosts: files dns\n");
}

#[test]
fn a_dangling_link_is_followed_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (link, target) = (folder.path().join("link"), folder.path().join("x/../not-there"));
    std::os::unix::fs::symlink("x/../not-there", &link).unwrap();
    assert_eq!(final_place(link.to_str().unwrap()).unwrap(), normal(&target));
    std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
    assert!(final_place(folder.path().join("loop").to_str().unwrap()).is_err());
}
