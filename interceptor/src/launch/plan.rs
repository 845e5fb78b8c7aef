//! The plan: all that process 1 has to know, made by the daemon, handed over as a sealed memfd. And what process 1 and
//! the daemon say to each other before the workload goes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::caller::Limit;
use crate::config::Home;

/// All that process 1 has to know. Paths and texts are bytes: they need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    pub(super) argv: Vec<Vec<u8>>,
    pub(super) env: Vec<Vec<u8>>,
    pub(super) cwd: PlannedCwd,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) umask: u32,
    pub(super) ignored: u64,
    pub(super) limits: Vec<Limit>,
    pub(super) tty: Option<(u16, u16)>,
    pub(super) home: PlannedHome,
    /// The directories that `home` is about: the user database's, and HOME.
    pub(super) homes: Vec<Vec<u8>>,
    pub(super) unix: Vec<Vec<u8>>,
    pub(super) hidden: Vec<Vec<u8>>,
    pub(super) bundle: Vec<u8>,
    pub(super) authority: Vec<u8>,
}

/// The working directory: its path, and which directory it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlannedCwd {
    pub(super) path: Vec<u8>,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// [`Home`], as it is written in a plan and a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PlannedHome {
    Guarded,
    Private,
    Full,
}

impl From<Home> for PlannedHome {
    fn from(home: Home) -> Self {
        match home {
            Home::Guarded => Self::Guarded,
            Home::Private => Self::Private,
            Home::Full => Self::Full,
        }
    }
}

impl From<PlannedHome> for Home {
    fn from(home: PlannedHome) -> Self {
        match home {
            PlannedHome::Guarded => Self::Guarded,
            PlannedHome::Private => Self::Private,
            PlannedHome::Full => Self::Full,
        }
    }
}

/// What stood in the way inside, for the person at the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The exit status that `interceptor run` ends with.
    pub(super) status: u8,
    pub(super) message: String,
    pub(super) next: String,
}

/// The exit status when the workload couldn't be made, as env(1) and timeout(1) have it.
pub(super) const NOT_MADE: u8 = 125;

impl Failure {
    pub(super) fn new(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { status: NOT_MADE, message: message.into(), next: next.into() }
    }
}

/// Makes a [`Failure`] of a system call's error.
pub(super) fn failing<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Failure {
    move |error| {
        let error: io::Error = error.into();
        Failure::new(format!("could not {}: {error}", doing.into()), "see `interceptor doctor`")
    }
}

/// What process 1 tells the daemon, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ToDaemon {
    /// Namespace and filesystem view are ready.
    Ready,
    /// They couldn't be made.
    Failed(Failure),
}

/// What the daemon answers, once: its end of the handshake closing means that there will be no launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ToInit {
    /// Start the command.
    Go,
}

impl Plan {
    /// The plan in a memfd that can't be changed any more.
    pub(super) fn seal(&self) -> io::Result<OwnedFd> {
        let memfd = memfd_create(c"plan", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let mut file = File::from(memfd);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
        Ok(file.into())
    }

    /// Reads a plan; one that isn't sealed isn't ours.
    pub(super) fn read(memfd: OwnedFd) -> io::Result<Self> {
        let seals = SealFlag::from_bits_retain(fcntl(memfd.as_fd(), FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL) {
            return Err(io::Error::other("the plan isn't sealed"));
        }
        let mut bytes = Vec::new();
        File::from(memfd).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// A path as it is written in a plan.
pub(super) fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

/// A path of a plan.
pub(super) fn planned_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}
