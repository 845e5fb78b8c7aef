use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_key_is_made_once_and_is_the_daemons_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.key");
    let first = open(&path).unwrap();
    assert_eq!(open(&path).unwrap(), first);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    assert_ne!(open(&dir.path().join("other.key")).unwrap(), first);
}

#[test]
fn a_file_that_others_may_read_or_that_is_no_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.key");
    let _key = open(&path).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(open(&path), Err(KeyFileError::Exposed { .. })));
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&path, [0; 31]).unwrap();
    assert!(matches!(open(&path), Err(KeyFileError::Malformed(_))));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(matches!(open(&path), Err(KeyFileError::Io { .. })));
}
