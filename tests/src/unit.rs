//! A service as its manager would start it, in a cgroup that a daemon adopts.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::daemon::Daemon;

/// The table of a workload `svc` that adopts the cgroup of [`Unit`]; for [`crate::daemon::Order::more`].
pub const ADOPTED: &str = "[[workload]]\nname = \"svc\"\nmatch = { cgroup = \"/{name}/units/svc\" }\n";

/// The user that services of this process's tests run as, and nobody's of a test that runs beside it: a user with processes
/// outside of a workload is a hole.
pub fn uid() -> u32 {
    1_000_000 + std::process::id()
}

/// The cgroup of a service of `daemon`'s, and a user that nobody else runs as.
pub struct Unit {
    /// The cgroup's folder.
    pub cgroup: PathBuf,
    /// The user.
    pub uid: u32,
    probe: PathBuf,
    trust: PathBuf,
    network: Option<File>,
}

impl Unit {
    /// The cgroup, made now. The daemon has to have brought `probe`.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new(daemon: &Daemon) -> Result<Self> {
        let units = daemon.cgroup().join("units");
        fs::create_dir_all(&units).with_context(|| format!("can't make `{}`", units.display()))?;
        let unit = Self::at(daemon, units.join("svc"), None);
        unit.make()?;
        Ok(unit)
    }

    /// A service of `daemon`'s with this cgroup, which isn't made, and with a network namespace of its own if there is one.
    pub fn at(daemon: &Daemon, cgroup: PathBuf, network: Option<File>) -> Self {
        Self { cgroup, uid: uid(), probe: daemon.binary("probe"), trust: daemon.room().join("run/trust.pem"), network }
    }

    /// Its own network namespace.
    pub fn network(&self) -> Option<&File> {
        self.network.as_ref()
    }

    /// Makes the cgroup.
    ///
    /// # Errors
    /// It is there, or can't be made.
    pub fn make(&self) -> io::Result<()> {
        fs::create_dir(&self.cgroup)
    }

    /// Removes the cgroup, once its processes are gone.
    ///
    /// # Errors
    /// It isn't there, or they don't end.
    pub fn remove(&self) -> io::Result<()> {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..20_000 {
            match fs::remove_dir(&self.cgroup) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                other => return other,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// A command of the service, contained as `interceptor adopt` would have it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_but("contained", program)
    }

    /// The same with something left out; see the program `probe`.
    pub fn command_but(&self, without: &str, program: impl AsRef<OsStr>) -> Command {
        self.command_in(&self.cgroup, without, program)
    }

    /// The same in another cgroup.
    pub fn command_in(&self, cgroup: &Path, without: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.probe);
        if let Some(network) = &self.network {
            let network = format!("/proc/{}/fd/{}", std::process::id(), network.as_raw_fd());
            command.args(["in-network", &network]).arg(&self.probe);
        }
        command.arg("as-unit").arg(cgroup).args([&self.uid.to_string(), without]).arg(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("SSL_CERT_FILE", &self.trust).current_dir("/");
        command.stdin(Stdio::null());
        command
    }

    /// What the probe says of an attempt of the service.
    ///
    /// # Errors
    /// It failed.
    pub fn attempt(&self, attempt: &[&str]) -> Result<String> {
        said(self.command(&self.probe).args(attempt))
    }
}

/// The one line that a command printed.
///
/// # Errors
/// It failed.
pub fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
