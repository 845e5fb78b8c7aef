//! The users and groups of a host as a test wants them, for the thread that it runs on and what that starts: in a mount namespace
//! of its own. Those of the host stay as they are.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Users and groups besides those of the host.
#[derive(Debug)]
pub struct Accounts {
    folder: TempDir,
}

impl Accounts {
    /// Runs `inside` where there are these users as well, on a thread of its own; panics when that does.
    ///
    /// # Errors
    /// As `inside`, or it can't be done.
    pub fn with<T: Send>(users: &[(&str, u32)], inside: impl FnOnce(&Self) -> Result<T> + Send) -> Result<T> {
        let accounts = Self { folder: tempfile::tempdir()? };
        let mut text = fs::read_to_string("/etc/passwd")?;
        for (name, uid) in users {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{name}:x:{uid}:{uid}::/:/bin/sh");
        }
        accounts.write("passwd", &text)?;
        accounts.set_group("nobodys", 61_398, &[])?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                accounts.enter()?;
                inside(&accounts)
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Has this group beside those of the host, and no other, with these members.
    ///
    /// # Errors
    /// It can't be written.
    pub fn set_group(&self, name: &str, gid: u32, members: &[&str]) -> Result<()> {
        let host = self.folder.path().join("group.host");
        if !host.exists() {
            fs::copy("/etc/group", &host)?;
        }
        self.write("group", &format!("{}{name}:x:{gid}:{}\n", fs::read_to_string(host)?, members.join(",")))
    }

    /// In place: what is mounted is this very file.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.path().join(name);
        fs::write(&path, text)?;
        Ok(fs::set_permissions(&path, Permissions::from_mode(0o644))?)
    }

    /// Enters the namespace with this thread.
    fn enter(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("making mounts private")?;
        for name in ["passwd", "group"] {
            let (own, place) = (self.folder.path().join(name), Path::new("/etc").join(name));
            mount(Some(&own), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("mounting over `{}`", place.display()))?;
        }
        Ok(())
    }
}
