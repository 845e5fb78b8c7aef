//! Network namespaces, cgroups and pins that a test makes for itself and that are gone when it ends.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that is set up as a workload's.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes one, on a thread of its own.
    pub fn new() -> Result<Self> {
        let made = std::thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
            interceptor::transport::namespace::configure().context("configure")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        Ok(Self { file: made.join().map_err(|_| anyhow!("the thread panicked"))?? })
    }

    /// That of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/ns/net"))? })
    }

    /// Lays a wire to another one. The end here is `outer`, with this address, and up; the end there is `hole`, and down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lay_wire(&self, to: &Self, address: &str) -> Result<()> {
        let there = format!("/proc/{}/fd/{}", std::process::id(), to.file.as_raw_fd());
        self.ip(&format!("link add outer type veth peer name hole netns {there}"))?;
        self.ip(&format!("addr add {address} dev outer"))?;
        self.ip("link set outer up")
    }

    /// `ip COMMAND` in it.
    ///
    /// # Errors
    /// It fails.
    pub fn ip(&self, command: &str) -> Result<()> {
        let output = self.run(|| Command::new("ip").args(command.split(' ')).output()).context("ip")?;
        ensure!(output.status.success(), "ip {command}: {output:?}");
        Ok(())
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `inside` in it, on a thread of its own; panics when that does.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if let Err(error) = setns(self.fd(), CloneFlags::CLONE_NEWNET) {
                    panic!("setns: {error}");
                }
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs the test `name` of the calling test binary as a process of its own, in this namespace and in `cgroup`; it
    /// has to call [`enter`] first. `role` tells it what to do.
    pub fn child(&self, cgroup: &Path, name: &str, role: &str) -> Result<Output> {
        Ok(Command::new(std::env::current_exe()?)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(NETNS, format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
            .env(CGROUP, cgroup)
            .output()?)
    }
}

const ROLE: &str = "INTERCEPTOR_TEST_ROLE";
const NETNS: &str = "INTERCEPTOR_TEST_NETNS";
const CGROUP: &str = "INTERCEPTOR_TEST_CGROUP";

/// In a process that [`Namespace::child`] made: enters the cgroup and the namespace, and says what to do. `None` in the
/// test run itself.
pub fn enter() -> Result<Option<String>> {
    let Ok(role) = std::env::var(ROLE) else {
        return Ok(None);
    };
    let cgroup = PathBuf::from(std::env::var_os(CGROUP).context("no cgroup")?);
    File::options().write(true).open(cgroup.join("cgroup.procs"))?.write_all(b"0")?;
    setns(File::open(std::env::var_os(NETNS).context("no namespace")?)?, CloneFlags::CLONE_NEWNET)?;
    Ok(Some(role))
}

/// A name that no other test has.
fn unique(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("interceptor_{kind}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A cgroup at the root of cgroup2, with whatever a test puts below it.
#[derive(Debug)]
pub struct Cgroup {
    /// Its path in the file system.
    pub path: PathBuf,
}

impl Cgroup {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let path = interceptor::bpf::cgroup2()?.join(unique("test"));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Makes one below it, which goes with it.
    pub fn below(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                remove(&path);
            }
        }
        remove(&self.path);
    }
}

/// A cgroup can be removed only a moment after its last process has ended.
fn remove(cgroup: &Path) {
    for _ in 0..1_000 {
        if fs::remove_dir(cgroup).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder for pins. Not made yet: making it is the loader's part.
#[derive(Debug)]
pub struct Pins {
    /// Its path, on the host's bpffs.
    pub path: PathBuf,
}

impl Default for Pins {
    fn default() -> Self {
        Self { path: Path::new("/sys/fs/bpf").join(unique("pins")) }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
