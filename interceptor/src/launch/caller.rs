//! Who asks for a launch, as the kernel tells it: nothing here comes from the caller's message. A caller that doesn't
//! share the daemon's namespaces or root is refused, because its paths, uids and sockets would mean something else here.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{LaunchError, sys, while_doing};

/// The namespaces that a caller must share with the daemon.
const NAMESPACES: [&str; 5] = ["user", "pid", "mnt", "net", "ipc"];

/// The names of /proc/PID/limits, in the order of their numbers (asm-generic/resource.h).
const LIMITS: [&str; 16] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

/// Who asks for a launch.
#[derive(Debug)]
pub struct Caller {
    /// Its pid, in the daemon's PID namespace.
    pub pid: u32,
    /// Its effective uid.
    pub uid: u32,
    /// As whom its person logged in, where the daemon knows it and sets it.
    pub loginuid: Option<u32>,
    /// Its effective gid.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// Whether it may launch any workload: true for root; the daemon sets it for operators.
    pub operator: bool,
    pub(super) umask: u32,
    /// Bit n - 1: signal n is ignored.
    pub(super) ignored: u64,
    pub(super) limits: Vec<Limit>,
    pub(super) cwd: Cwd,
    pidfd: OwnedFd,
}

/// One resource limit; `u64::MAX` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limit {
    pub(super) resource: u32,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// A working directory: its path, and which directory that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cwd {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Caller {
    /// Reads the process `pid`, which connected as `uid` and `gid` (SO_PEERCRED) and is held by `pidfd`
    /// (SO_PEERPIDFD, or pidfd_open).
    ///
    /// # Errors
    /// [`LaunchError::Caller`] when it is gone, has changed its user since, or lives in other namespaces.
    pub fn read(pid: u32, pidfd: OwnedFd, uid: u32, gid: u32) -> Result<Self, LaunchError> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let read = || -> io::Result<_> {
            let stranger = stranger(&process)?;
            let status = Status::parse(&read_small(&process.join("status"))?)?;
            let limits = parse_limits(&read_small(&process.join("limits"))?)?;
            let cwd = cwd(&process)?;
            Ok((stranger, status, limits, cwd))
        };
        let (stranger, status, limits, cwd) = read().map_err(|source| LaunchError::Caller {
            message: format!("the calling process {pid} could not be read: {source}"),
            next: "call again, and wait for the answer",
        })?;
        // What was read belongs to the caller only if the caller still lives: the pid can't have been used again then.
        let caller = Self {
            pid,
            uid,
            loginuid: None,
            gid,
            groups: status.groups,
            operator: uid == 0,
            umask: status.umask,
            ignored: status.ignored,
            limits,
            cwd,
            pidfd,
        };
        caller.still_lives()?;
        if let Some(what) = stranger {
            return Err(LaunchError::Caller {
                message: format!("the caller has another {what} than the daemon"),
                next: "run `interceptor run` on the host itself, outside containers, sandboxes and chroots",
            });
        }
        if status.uids.iter().any(|&one| one != uid) {
            return Err(LaunchError::Caller {
                message: format!("the caller changed its user while asking (it connected as uid {uid})"),
                next: "run `interceptor run` as the user that the workload is for, not from a set-uid program",
            });
        }
        Ok(caller)
    }

    /// Checks again that the process that was read still lives.
    pub(super) fn still_lives(&self) -> Result<(), LaunchError> {
        sys::pidfd_signal(self.pidfd.as_fd(), 0).or_else(|e| match e.raw_os_error() {
            // It lives, and isn't ours to signal.
            Some(libc::EPERM) => Ok(()),
            _ => Err(LaunchError::Caller {
                message: format!("the calling process {} is gone", self.pid),
                next: "call again, and wait for the answer",
            }),
        })
    }

    /// Whether it is in this group.
    pub(super) fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// What the process doesn't share with the daemon, if anything.
fn stranger(process: &Path) -> io::Result<Option<String>> {
    for name in NAMESPACES {
        if fs::read_link(process.join("ns").join(name))? != fs::read_link(Path::new("/proc/self/ns").join(name))? {
            return Ok(Some(format!("{name} namespace")));
        }
    }
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    Ok((!same(&fs::metadata(process.join("root"))?, &fs::metadata("/proc/self/root")?))
        .then(|| "root directory".into()))
}

fn cwd(process: &Path) -> io::Result<Cwd> {
    let link = process.join("cwd");
    let directory = fs::metadata(&link)?;
    Ok(Cwd { path: fs::read_link(&link)?, device: directory.dev(), inode: directory.ino() })
}

struct Status {
    uids: Vec<u32>,
    groups: Vec<u32>,
    umask: u32,
    ignored: u64,
}

impl Status {
    fn parse(text: &str) -> io::Result<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .ok_or_else(|| io::Error::other(format!("/proc/PID/status has no `{name}`")))
        };
        let numbers = |name: &str| {
            let numbers = field(name)?.split_ascii_whitespace().map(str::parse);
            numbers.collect::<Result<Vec<u32>, _>>().map_err(io::Error::other)
        };
        let ignored = u64::from_str_radix(field("SigIgn")?, 16).map_err(io::Error::other)?;
        Ok(Self {
            uids: numbers("Uid")?,
            groups: numbers("Groups")?,
            umask: u32::from_str_radix(field("Umask")?, 8).map_err(io::Error::other)? & 0o777,
            // The client's own runtime ignores SIGPIPE, whatever its parent did.
            ignored: ignored & !(1 << (libc::SIGPIPE - 1)),
        })
    }
}

/// Parses /proc/PID/limits. All sixteen must be there, in their order.
fn parse_limits(text: &str) -> io::Result<Vec<Limit>> {
    let mut lines = text.lines().skip(1);
    let number = |text: Option<&str>| match text {
        Some("unlimited") => Ok(u64::MAX),
        Some(text) => text.parse().map_err(io::Error::other),
        None => Err(io::Error::other("a limit without a value")),
    };
    (0..)
        .zip(LIMITS)
        .map(|(resource, name)| {
            let line = lines.next().and_then(|line| line.strip_prefix(name));
            let mut values = line.ok_or_else(|| io::Error::other(format!("no `{name}`")))?.split_ascii_whitespace();
            Ok(Limit { resource, soft: number(values.next())?, hard: number(values.next())? })
        })
        .collect()
}

/// Reads a file of /proc, which is small.
fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

/// Holds the process that the pid is now; for callers whose pidfd the kernel doesn't hand out (before 6.5).
///
/// # Errors
/// [`LaunchError::System`] when there is no such process.
pub fn hold(pid: u32) -> Result<OwnedFd, LaunchError> {
    sys::pidfd_open(pid).map_err(while_doing("hold the calling process"))
}

#[cfg(test)]
mod tests;
