//! A real daemon, started from the built binary with a configuration, folders, cgroup and pins of its own, and an
//! unprivileged user to launch workloads as. When it is dropped everything is ended and removed, and it panics if
//! something can't be.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binary;
use crate::graph::Graph;
use crate::remains::{Remains, sweep};

pub use self::order::{GRAPH_TARGET, Order, READ_ONLY};

mod order;

/// The uid and gid that workloads are launched as; no account needs to exist.
pub const UID: u32 = 61_234;

/// How long a daemon may take to serve, on a machine that others load.
const START: Duration = Duration::from_secs(40);
/// How long it may take to stop: its own drain, and what such a machine takes.
const STOP: Duration = Duration::from_secs(30);

/// Tells the fixtures of one process apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running daemon.
pub struct Daemon {
    remains: Remains,
    child: Option<Child>,
    /// What it logs, if not the usual.
    filter: Option<&'static str>,
}

impl Daemon {
    /// Starts a daemon and waits until it serves.
    ///
    /// # Errors
    /// It isn't built, or doesn't serve in time; its log is in the error.
    pub fn start(order: &Order) -> Result<Self> {
        Self::begin(order, None)
    }

    /// The same, with what INTERCEPTOR_LOG says.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_logging(order: &Order, filter: &'static str) -> Result<Self> {
        Self::begin(order, Some(filter))
    }

    fn begin(order: &Order, filter: Option<&'static str>) -> Result<Self> {
        let prefix = format!("interceptor-{}-", order.purpose);
        sweep(&prefix)?;
        let name = format!("{prefix}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let remains = Remains::of(&name)?;
        fs::create_dir(remains.room()).with_context(|| format!("can't make `{}`", remains.room().display()))?;
        let mut daemon = Self { remains, child: None, filter };
        daemon.furnish(order, &name)?;
        daemon.launch("break-glass")?;
        Ok(daemon)
    }

    /// A daemon for `graph`, with the workload `crm` for [`UID`], the target `graph` and the policy `policy`.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn for_graph(graph: &Graph, policy: &str) -> Result<Self> {
        Self::start(&Order::for_graph(graph, policy))
    }

    /// Its process id.
    ///
    /// # Errors
    /// It isn't running.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context("the daemon isn't running")
    }

    /// The folder that holds everything of it. A workload can't see all of it.
    pub fn room(&self) -> &Path {
        self.remains.room()
    }

    /// The home of the unprivileged user.
    pub fn home(&self) -> PathBuf {
        self.room().join("home")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.room().join("etc/config.toml")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.room().join("run/control.sock")
    }

    /// The record.
    pub fn database(&self) -> PathBuf {
        self.room().join("state/record.db")
    }

    /// The cgroup of the daemon and its workloads.
    pub fn cgroup(&self) -> &Path {
        self.remains.cgroup()
    }

    /// The pins.
    pub fn pins(&self) -> &Path {
        self.remains.pins()
    }

    /// The path of a binary that every user can run: `interceptor`, or one of the `tests` package that
    /// [`Order::bring`] named.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.room().join("bin").join(name)
    }

    /// `interceptor ARG…` as root, speaking to this daemon.
    pub fn interceptor(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binary("interceptor"));
        command.args(arguments).env("INTERCEPTOR_SOCKET", self.socket());
        command
    }

    /// `interceptor run --workload crm -- CMD…` as the unprivileged user in its home, with the environment that MCP
    /// SDKs give a server (`HOME`, `PATH` and the like, nothing else).
    pub fn run(&self, arguments: &[&str]) -> Command {
        let mut command = self.as_user(&self.binary("interceptor"));
        command.arg("run").arg("--socket").arg(self.socket()).args(["--workload", "crm", "--"]).args(arguments);
        command
    }

    /// `program` as the unprivileged user, without interception.
    pub fn as_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir(self.home())
            .uid(UID)
            .gid(UID);
        command
    }

    /// What `interceptor ARG…` printed.
    ///
    /// # Errors
    /// It failed; what it said is in the error.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.interceptor(arguments).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "`interceptor {}` ended with {}:\n{said}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(said)
    }

    /// What `interceptor ARG… --json` printed.
    ///
    /// # Errors
    /// It failed, or it isn't JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let said = self.ask(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }

    /// Replaces the policy by `text` and reloads.
    ///
    /// # Errors
    /// The file can't be written, or the command can't be started. A refused policy is in the output.
    pub fn reload(&self, text: &str) -> Result<Output> {
        fs::write(self.room().join("etc/policy.d/crm.cedar"), text)?;
        Ok(self.interceptor(&["policy", "reload"]).stdin(Stdio::null()).output()?)
    }

    /// Kills the daemon as nothing can prevent, and reaps it.
    ///
    /// # Errors
    /// It isn't running.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the daemon isn't running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Has it end by SIGABRT, and reaps it.
    ///
    /// # Errors
    /// It isn't running.
    pub fn abort(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the daemon isn't running")?;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGABRT)?;
        Ok(child.wait()?)
    }

    /// Starts it again on what it left; gives the time until it served.
    ///
    /// # Errors
    /// It doesn't serve in time.
    pub fn restart(&mut self) -> Result<Duration> {
        // One that goes on with a broken glass says so.
        self.restart_despite("break-glass")
    }

    /// The same, where it may say that this is wrong.
    ///
    /// # Errors
    /// As [`Daemon::restart`].
    pub fn restart_despite(&mut self, cause: &str) -> Result<Duration> {
        ensure!(self.child.is_none(), "the daemon is still running");
        let start = Instant::now();
        self.launch(cause)?;
        Ok(start.elapsed())
    }

    /// Asks it to stop (SIGTERM) and waits.
    ///
    /// # Errors
    /// It isn't running, or doesn't stop in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the daemon isn't running")?;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(5));
        }
        child.kill()?;
        child.wait()?;
        bail!("the daemon didn't stop within {STOP:?} of SIGTERM:\n{}", self.log())
    }

    /// The end of what the daemon logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.room().join("daemon.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(8_000)..]).into_owned()
    }

    /// Ends it and removes all that it and its workloads left.
    ///
    /// # Errors
    /// It didn't stop by itself, or something is left that can't be removed.
    pub fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let stopped = if self.child.is_some() { self.stop().map(drop) } else { Ok(()) };
        self.remains.clear()?;
        stopped
    }

    fn furnish(&self, order: &Order, name: &str) -> Result<()> {
        let room = self.room();
        for folder in ["bin", "etc", "etc/policy.d", "home", "run", "state"] {
            fs::create_dir(room.join(folder))?;
            fs::set_permissions(room.join(folder), Permissions::from_mode(0o755))?;
        }
        fs::set_permissions(room, Permissions::from_mode(0o755))?;
        fs::set_permissions(self.home(), Permissions::from_mode(0o700))?;
        chown(self.home(), Some(UID), Some(UID))?;
        // The build folder may be closed to other users.
        for binary in std::iter::once("interceptor").chain(order.bring.iter().copied()) {
            fs::copy(binary::find(binary)?, self.binary(binary))?;
        }
        fs::write(room.join("etc/policy.d/crm.cedar"), &order.policy)?;
        fs::write(room.join("etc/extra-ca.pem"), &order.extra_ca)?;
        fs::write(self.config(), order.config(room, self.pins(), name))?;
        Ok(())
    }

    fn launch(&mut self, despite: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.room().join("daemon.log"))?;
        let mut command = Command::new(self.binary("interceptor"));
        command
            .arg("daemon")
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for who drives it, who then stops it in order.
            .process_group(0)
            .envs(self.filter.map(|filter| ("INTERCEPTOR_LOG", filter)));
        self.child = Some(command.spawn().context("can't start the daemon")?);
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()? {
                self.child = None;
                bail!("the daemon ended with {status}:\n{}", self.log());
            }
            let status = self.interceptor(&["status"]).stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&status.stdout);
            if status.status.success() && (said.starts_with("serving yes") || said.contains(despite)) {
                return Ok(());
            }
            sleep(Duration::from_millis(10));
        }
        bail!("the daemon doesn't serve after {START:?}:\n{}", self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `finish` nothing is left and nothing happens.
        if let Err(error) = self.end()
            && !std::thread::panicking()
        {
            panic!("{error:#}");
        }
    }
}
