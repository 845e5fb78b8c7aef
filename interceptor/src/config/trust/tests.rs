use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

fn untrusted(result: Result<String, ConfigError>) -> (PathBuf, String) {
    match result {
        Err(ConfigError::Untrusted { path, why }) => (path, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let folder = folder();
    let file = folder.path().join("config.toml");
    write(&file, "x");
    assert_eq!(read(&file, Trust::Daemon).unwrap(), "x");
    for mode in [0o664, 0o646, 0o666, 0o1666] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let (path, why) = untrusted(read(&file, Trust::Daemon));
        assert_eq!(path, file);
        assert!(why.contains(&format!("{mode:04o}")), "{why}");
    }
    assert_eq!(read(&file, Trust::Unchecked).unwrap(), "x");
}

#[test]
fn a_folder_above_that_others_may_write_is_refused() {
    let folder = folder();
    let inner = folder.path().join("etc");
    fs::create_dir(&inner).unwrap();
    let file = inner.join("config.toml");
    write(&file, "x");
    fs::set_permissions(&inner, Permissions::from_mode(0o775)).unwrap();
    assert_eq!(untrusted(read(&file, Trust::Daemon)).0, inner);
}

#[test]
fn somebody_elses_file_folder_or_link_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let folder = folder();
    let file = folder.path().join("config.toml");
    write(&file, "x");
    let link = folder.path().join("link");
    symlink(&file, &link).unwrap();
    assert_eq!(read(&link, Trust::Daemon).unwrap(), "x");
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        &link,
        Some(61234.into()),
        None,
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .unwrap();
    assert_eq!(untrusted(read(&link, Trust::Daemon)).0, link);
    chown(&file, Some(61234), None).unwrap();
    assert_eq!(untrusted(read(&file, Trust::Daemon)).0, file);
    chown(&file, Some(0), None).unwrap();
    chown(folder.path(), Some(61234), None).unwrap();
    assert_eq!(untrusted(read(&file, Trust::Daemon)).0, folder.path());
}

#[test]
fn what_a_link_leads_through_is_judged() {
    let folder = folder();
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    write(&open.join("config.toml"), "x");
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let link = folder.path().join("link");
    for target in [open.join("config.toml"), "open/../open/config.toml".into(), "./open/config.toml".into()] {
        symlink(target, &link).unwrap();
        assert_eq!(untrusted(read(&link, Trust::Daemon)).0, open);
        fs::remove_file(&link).unwrap();
    }
    symlink("link", &link).unwrap();
    assert!(matches!(read(&link, Trust::Daemon), Err(ConfigError::Read { .. })));
}

#[test]
fn only_regular_files_of_a_bounded_size_are_read() {
    let folder = folder();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    assert!(matches!(read(&fifo, Trust::Daemon), Err(ConfigError::Read { .. })));
    assert!(matches!(read(folder.path(), Trust::Daemon), Err(ConfigError::Read { .. })));
    let large = folder.path().join("large");
    write(&large, "");
    File::options().write(true).open(&large).unwrap().set_len(LARGEST + 1).unwrap();
    let error = read(&large, Trust::Daemon).unwrap_err().to_string();
    assert!(error.contains("larger than 4 MiB"), "{error}");
}

#[test]
fn policies_are_the_cedar_files_in_order() {
    let folder = folder();
    for name in ["20-b.cedar", "10-a.cedar", "notes.txt", ".hidden.cedar", "30-c.cedar.bak"] {
        write(&folder.path().join(name), name);
    }
    for trust in [Trust::Daemon, Trust::Unchecked] {
        let sources = policy_sources(folder.path(), trust).unwrap();
        let texts: Vec<_> = sources.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["10-a.cedar", "20-b.cedar"]);
        assert_eq!(sources[0].0, folder.path().join("10-a.cedar").display().to_string());
    }
}

#[test]
fn a_policy_folder_that_others_may_write_is_refused_also_with_the_sticky_bit() {
    let folder = folder();
    write(&folder.path().join("a.cedar"), "");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    assert!(matches!(policy_sources(folder.path(), Trust::Daemon), Err(ConfigError::Untrusted { .. })));
    assert_eq!(policy_sources(folder.path(), Trust::Unchecked).unwrap().len(), 1);
    assert!(matches!(policy_sources(&folder.path().join("missing"), Trust::Daemon), Err(ConfigError::Read { .. })));
}
