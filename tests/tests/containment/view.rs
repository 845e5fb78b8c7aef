//! What a workload sees of the host's files and sockets.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use interceptor::config::Home;
use interceptor::launch::LaunchError;
use interceptor::launch::channel::ToClient;
use interceptor_tests::require_root;

use super::fixture::{Launcher, UID};

/// A socket that anybody may connect to, removed with its folder.
struct Service {
    path: PathBuf,
    _listener: UnixListener,
}

impl Service {
    fn at(folder: &str, name: &str) -> Self {
        let folder = Path::new(folder).join(format!("interceptor-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        Self { path, _listener: listener }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(self.path.parent().unwrap());
    }
}

fn file(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    for path in [path, path.parent().unwrap()] {
        chown(path, Some(UID), Some(UID)).unwrap();
    }
}

#[test]
fn services_sockets_arent_there() {
    require_root!();
    let launcher = Launcher::new();
    for (folder, name) in [
        ("/run", "docker.sock"),
        ("/var/run", "docker.sock"),
        ("/run", "system_bus_socket"),
        ("/run/user", "bus"),
        ("/run", ".s.PGSQL.5432"),
        ("/tmp", ".s.PGSQL.5432"),
        ("/tmp", "X0"),
        ("/var/tmp", "agent"),
        ("/dev/shm", "socket"),
    ] {
        let service = Service::at(folder, name);
        assert_eq!(launcher.attempt(&["connect-unix", service.path()]), "ENOENT", "{}", service.path());
    }
}

#[test]
fn a_named_socket_is_there_and_its_neighbour_isnt() {
    require_root!();
    let launcher = Launcher::new();
    let (named, other) = (Service::at("/run", "named"), Service::at("/run", "other"));
    let settings = Launcher::settings(Home::Guarded, &[&named.path]);
    let say = |path: &str| launcher.attempt_with(&["connect-unix", path], |order| order.settings = settings.clone());
    assert_eq!(say(named.path()), "ok");
    assert_eq!(say(other.path()), "ENOENT");
    let missing = Launcher::settings(Home::Guarded, &[Path::new("/run/not-there.sock")]);
    let refused = launcher.start(&["true"], |order| order.settings = missing).map(drop);
    assert!(matches!(refused, Err(LaunchError::Inside { .. })), "{refused:?}");
}

#[test]
fn temporary_files_are_its_own() {
    require_root!();
    let launcher = Launcher::new();
    for folder in ["/tmp", "/var/tmp", "/dev/shm"] {
        let mark = Path::new(folder).join(format!("interceptor-test-{}", std::process::id()));
        fs::write(&mark, "outside").unwrap();
        let path = mark.to_str().unwrap();
        let seen = launcher.attempt(&["read", path]);
        let made = launcher.run(&["sh", "-c", &format!("echo inside > {path}")]).end;
        let outside = fs::read_to_string(&mark).unwrap();
        fs::remove_file(&mark).unwrap();
        assert_eq!(
            (seen.as_str(), made, outside.as_str()),
            ("ENOENT", Some(ToClient::Exited(0)), "outside"),
            "{folder}"
        );
    }
}

#[test]
fn devices_are_few() {
    require_root!();
    let launcher = Launcher::new();
    let expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(launcher.attempt(&["list", "/dev"]), expected);
    let outcome =
        launcher.run(&["sh", "-c", "echo x > /dev/null && head -c 3 /dev/zero | wc -c && echo $(</dev/null)"]);
    assert_eq!(outcome.output.lines().next().unwrap().trim(), "3", "{outcome:?}");
    assert_eq!(launcher.attempt(&["create", "/dev/x"]), "EACCES");
}

#[test]
fn only_its_own_processes_are_seen() {
    require_root!();
    let launcher = Launcher::new();
    let listed = launcher.attempt(&["list", "/proc"]);
    let processes: Vec<&str> = listed.split(' ').filter(|name| name.parse::<u32>().is_ok()).collect();
    assert_eq!(processes, ["1", "2"]);
    let mounts = launcher.run(&["cat", "/proc/self/mountinfo"]).output;
    assert!(mounts.lines().any(|line| line.contains(" /sys ro,")), "{mounts}");
}

#[test]
fn ours_is_hidden() {
    require_root!();
    let launcher = Launcher::new();
    let (folder, config) = (launcher.folder.join("state"), launcher.folder.join("config.toml"));
    file(folder.join("key"), "secret");
    file(&config, "secret");
    let hidden = [folder.clone(), config.clone(), launcher.folder.join("not-there")];
    let say = |attempt: &[&str]| launcher.attempt_with(attempt, |order| order.hidden = hidden.to_vec());
    assert_eq!(say(&["list", folder.to_str().unwrap()]), "");
    let outcome = launcher.run_with(&["cat", config.to_str().unwrap()], |order| order.hidden = hidden.to_vec());
    assert_eq!((outcome.end, outcome.output.as_str()), (Some(ToClient::Exited(0)), ""));
}

#[test]
fn names_are_looked_up_on_loopback() {
    require_root!();
    let launcher = Launcher::new();
    let outcome = launcher.run(&["cat", "/etc/resolv.conf", "/etc/nsswitch.conf"]);
    assert!(outcome.output.starts_with("nameserver 127.0.0.1\n"), "{}", outcome.output);
    if Path::new("/etc/nsswitch.conf").exists() {
        assert!(outcome.output.contains("\nhosts: files dns\n"), "{}", outcome.output);
    }
}

#[test]
fn the_bundle_is_everywhere() {
    require_root!();
    let launcher = Launcher::new();
    let venv = launcher.home.join("venv");
    let bundle = venv.join("lib/python3.11/site-packages/certifi/cacert.pem");
    file(&bundle, "certifi's own");
    file(
        venv.join("bin/server"),
        "#!/bin/sh\ncat \"$SSL_CERT_FILE\" \"$REQUESTS_CA_BUNDLE\" \"$NODE_EXTRA_CA_CERTS\" \"$1\"\n",
    );
    fs::set_permissions(venv.join("bin/server"), Permissions::from_mode(0o755)).unwrap();
    let read = |name: &str| fs::read_to_string(launcher.folder.join(name)).unwrap();
    let (ours, authority) = (read("bundle.pem"), read("authority.pem"));
    let server = venv.join("bin/server");
    let outcome = launcher.run(&[server.to_str().unwrap(), bundle.to_str().unwrap()]);
    assert_eq!(outcome.output, format!("{ours}{ours}{authority}{ours}"), "{outcome:?}");
    let system = "/etc/ssl/certs/ca-certificates.crt";
    if Path::new(system).exists() {
        assert_eq!(launcher.run(&["cat", system]).output, ours);
        assert_eq!(launcher.attempt(&["write", system]), "EACCES");
    }
    assert_eq!(fs::read_to_string(&bundle).unwrap(), "certifi's own", "nothing outside changes");
}

#[test]
fn a_guarded_home() {
    require_root!();
    let launcher = Launcher::new();
    let home = &launcher.home;
    for (path, text) in [
        (".ssh/id_ed25519", "key"),
        (".netrc", "password"),
        (".aws/credentials", "key"),
        (".claude/settings.json", "{}"),
        (".bashrc", "true"),
        (".config/autostart/x.desktop", "[Desktop Entry]"),
        (".config/gh/hosts.yml", "token"),
        (".config/own/settings", "x"),
        (".local/bin/tool", "x"),
        (".local/share/own/data", "x"),
        ("project/file", "x"),
        ("notes.txt", "x"),
        ("dotfiles/shell/zshrc", "true"),
    ] {
        file(home.join(path), text);
    }
    for folder in [".config", ".local", ".local/share", "dotfiles"] {
        chown(home.join(folder), Some(UID), Some(UID)).unwrap();
    }
    std::os::unix::fs::symlink("dotfiles/shell/zshrc", home.join(".zshrc")).unwrap();
    let at = |path: &str| home.join(path).to_str().unwrap().to_owned();
    let table: [(&[&str], &str); 24] = [
        (&["list", &at(".ssh")], ""),
        (&["list", &at(".aws")], ""),
        (&["list", &at(".claude")], ""),
        (&["list", &at(".config/gh")], ""),
        (&["create", &at(".ssh/authorized_keys")], "EROFS"),
        (&["write", &at(".netrc")], "EACCES"),
        (&["read", &at(".bashrc")], "ok"),
        (&["write", &at(".bashrc")], "EROFS"),
        (&["create", &at(".bash_profile")], "EROFS"),
        (&["rename", &at(".bashrc"), &at("x")], "EROFS"),
        (&["rename", &at(".config"), &at("project/config")], "EXDEV"),
        (&["link", &at(".bashrc"), &at("project/bashrc")], "EXDEV"),
        (&["create", &at(".config/autostart/y.desktop")], "EROFS"),
        (&["create", &at(".config/new")], "EROFS"),
        (&["write", &at(".config/own/settings")], "ok"),
        (&["create", &at(".local/bin/git")], "EROFS"),
        (&["create", &at(".local/share/own/more")], "ok"),
        (&["create", &at("project/new")], "ok"),
        (&["write", &at("project/file")], "ok"),
        (&["write", &at("notes.txt")], "ok"),
        (&["write", &at(".zshrc")], "EROFS"),
        (&["write", &at("dotfiles/shell/zshrc")], "EROFS"),
        (&["rename", &at("dotfiles/shell"), &at("dotfiles/other")], "EBUSY"),
        (&["create", &at(".cache/x")], "ok"),
    ];
    for (attempt, expected) in table {
        assert_eq!(launcher.attempt(attempt), expected, "{attempt:?}");
    }
    assert!(home.join("project/new").exists(), "what is made is made for good");
    let outcome = launcher.run(&[&at(".claude/server")]);
    let Some(ToClient::Failed { status: 127, next, .. }) = outcome.end else { panic!("{outcome:?}") };
    assert!(next.contains("`~/.claude` is hidden"), "{next}");
}

#[test]
fn a_link_out_of_the_home_isnt_followed() {
    require_root!();
    let launcher = Launcher::new();
    let elsewhere = launcher.folder.join("elsewhere");
    file(elsewhere.join("file"), "x");
    std::os::unix::fs::symlink(&elsewhere, launcher.home.join(".ssh")).unwrap();
    std::os::unix::fs::symlink("/", launcher.home.join(".config")).unwrap();
    assert_eq!(launcher.attempt(&["list", elsewhere.to_str().unwrap()]), "file");
    assert_ne!(launcher.attempt(&["list", "/etc"]), "");
}

#[test]
fn a_private_home_is_empty_and_gone_afterwards() {
    require_root!();
    let launcher = Launcher::new();
    file(launcher.home.join("notes.txt"), "x");
    let settings = Launcher::settings(Home::Private, &[]);
    let outcome = launcher.run_with(&["sh", "-c", "true"], |order| order.settings = settings.clone());
    let Some(ToClient::Failed { status: 125, message, .. }) = outcome.end else { panic!("{outcome:?}") };
    assert!(message.contains("is another one inside"), "the caller's directory is in the home: {message}");

    let home = launcher.home.to_str().unwrap();
    let elsewhere = launcher.caller_in("/");
    let script = format!("ls -A {home}; echo mine > {home}/made && cat {home}/made");
    let outcome = launcher.run_with(&["sh", "-c", &script], |order| {
        (order.settings, order.caller) = (settings.clone(), elsewhere.read());
    });
    assert_eq!((outcome.end, outcome.output.as_str()), (Some(ToClient::Exited(0)), "mine\n"), "{}", outcome.errors);
    let left: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"], "what it made is gone with it");
}

#[test]
fn a_full_home_is_the_users() {
    require_root!();
    let launcher = Launcher::new();
    file(launcher.home.join(".ssh/id"), "key");
    let settings = Launcher::settings(Home::Full, &[]);
    let path = launcher.home.join(".ssh");
    let listed = launcher.attempt_with(&["list", path.to_str().unwrap()], |order| order.settings = settings);
    assert_eq!(listed, "id");
}

/// The daemon's runtime folder has the name of ours inside, by default.
#[test]
fn what_is_hidden_may_lie_where_our_own_things_are() {
    require_root!();
    let launcher = Launcher::new();
    for hidden in ["/run/interceptor", "/var/run/interceptor"] {
        let read = ["read", "/run/interceptor/nothing"];
        assert_eq!(launcher.attempt_with(&read, |order| order.hidden = vec![hidden.into()]), "ok", "{hidden}");
    }
}
