//! A systemd of a test's own: an instance for a user, whose units are what the test says and no others. It has a cgroup of its
//! own, and a mount namespace in which it finds what it looks for on a host that was started by systemd, and in which its units are
//! the host's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::remains::cgroup2;

/// Where systemd is.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// What units want that isn't theirs. Nothing of the host's is started.
const TARGETS: [&str; 6] =
    ["default.target", "basic.target", "shutdown.target", "sockets.target", "slices.target", "network.target"];

/// Enters the cgroup, makes the host look as systemd wants it, and becomes the rest.
const ENTER: &str = r#"
set -e
cgroup="$1"; cgroups="$2"; room="$3"; uid="$4"; shift 4
echo 0 > "$cgroup/cgroup.procs"
[ "$cgroups" = /sys/fs/cgroup ] || { umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; }
cp /etc/passwd "$room/passwd"
echo "crm:x:$uid:$uid::/:/bin/sh" >> "$room/passwd"
mount --bind "$room/passwd" /etc/passwd
mount --bind "$room/units" /etc/systemd/system
[ -d /run/systemd/system ] || { mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/system; }
exec "$@"
"#;

/// `systemctl` of the manager: it is a user's, and tells where a unit's cgroup is from the host's root, not from its own.
const SYSTEMCTL: &str = r#"#!/bin/sh
said=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin systemctl --user "$@")
status=$?
[ -z "$said" ] || printf '%s\n' "$said" | sed 's#=ROOT/#=/#'
exit $status
"#;

/// Whether it is installed. Where the kernel tests are required, so is it.
///
/// # Errors
/// It is required, and isn't there.
pub fn is_there() -> Result<bool> {
    let is_there = Path::new(SYSTEMD).exists();
    let required = std::env::var_os("INTERCEPTOR_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    ensure!(is_there || !required, "systemd isn't there: run `cargo xtask setup --tests`");
    Ok(is_there)
}

/// A running systemd. Dropping it ends it with all that it started.
pub struct Systemd {
    cgroup: PathBuf,
    room: PathBuf,
    child: Child,
}

impl Systemd {
    /// Starts one with these units, in a cgroup `sd` below `cgroup` and with its files in `room`. `uid` is that of a user `crm`,
    /// whom it alone knows.
    ///
    /// # Errors
    /// It isn't ready in time.
    pub fn start(cgroup: &Path, room: &Path, uid: u32, units: &[(&str, String)]) -> Result<Self> {
        let (cgroup, room) = (cgroup.join("sd"), room.join("sd"));
        fs::create_dir_all(&cgroup)?;
        let (run, folder) = (room.join("run"), room.join("units"));
        let tools = room.join("bin");
        for folder in [&run, &folder, &tools, &room.join("home")] {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        }
        for target in TARGETS {
            fs::write(folder.join(target), "[Unit]\nDefaultDependencies=no\n")?;
        }
        for (name, text) in units {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(path, text)?;
        }
        let root = Path::new("/").join(cgroup.strip_prefix(cgroup2()?)?);
        let systemctl = tools.join("systemctl");
        fs::write(&systemctl, SYSTEMCTL.replace("ROOT", root.to_str().context("a path in UTF-8")?))?;
        fs::set_permissions(systemctl, fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", ENTER, "sh"]);
        command.args([&cgroup, &cgroup2()?, &room]).args([&uid.to_string(), SYSTEMD, "--user", "--log-target=console"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", room.join("home"));
        command.env("XDG_RUNTIME_DIR", &run).env("SYSTEMD_UNIT_PATH", &folder);
        let child = command.stdin(Stdio::null()).spawn().context("can't start systemd")?;
        let systemd = Self { cgroup, room, child };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !run.join("systemd/private").exists() || systemd.ctl(&["is-active", "default.target"]).is_err() {
            ensure!(Instant::now() < deadline, "systemd isn't ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(systemd)
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// `program`, where this is the host's systemd.
    pub fn beside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.child.id())).arg(program).stdin(Stdio::null());
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.room.join("bin").display());
        command.env("PATH", path).env("XDG_RUNTIME_DIR", self.room.join("run")).env_remove("DBUS_SESSION_BUS_ADDRESS");
        command
    }

    /// `systemctl ARG…`; what it printed.
    ///
    /// # Errors
    /// It failed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        // It waits for what it asks for.
        let mut command = Command::new("timeout");
        command
            .args(["60", "systemctl", "--user"])
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.room.join("run"))
            .stdin(Stdio::null());
        command.env_remove("DBUS_SESSION_BUS_ADDRESS");
        let output = command.output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`systemctl {}`: {said}", arguments.join(" "));
        Ok(said)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // What doesn't end this way is found by its cgroup, and ended with what the test leaves.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.child.wait();
    }
}
