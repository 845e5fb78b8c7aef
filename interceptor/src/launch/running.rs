//! A launched workload as the daemon holds it, also after a restart: a state file in the launch's folder says which
//! process 1 it was, and nothing is believed of it that the kernel doesn't confirm.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use serde::{Deserialize, Serialize};

use super::plan::PlannedHome;
use super::{LaunchError, sys, while_doing};
use crate::config::{IdentitySource, Level, Match, Publish, WorkloadSettings};
use crate::ids::{LaunchId, WorkloadName};
use crate::who::Workload;

const STATE: &str = "launch.json";

/// How often, and how long apart, removing a cgroup is tried: its processes are gone a moment after they were killed.
const REMOVALS: u32 = 2000;
const REMOVAL_PAUSE: Duration = Duration::from_millis(1);

/// A workload whose process 1 was started.
#[derive(Debug)]
pub struct Running {
    workload: Arc<Workload>,
    pidfd: OwnedFd,
    netns: OwnedFd,
}

impl Running {
    pub(super) fn new(workload: Arc<Workload>, pidfd: OwnedFd, netns: OwnedFd) -> Self {
        Self { workload, pidfd, netns }
    }

    /// The workload.
    pub fn workload(&self) -> &Arc<Workload> {
        &self.workload
    }

    /// The pidfd of process 1: readable once it, and with it all of the workload, has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The workload's network namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Waits until the workload has ended, at most this long, and tells whether it has.
    ///
    /// # Errors
    /// [`LaunchError::System`] with poll's error.
    pub fn wait(&self, at_most: Duration) -> Result<bool, LaunchError> {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let mut ended = [PollFd::new(self.pidfd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut ended, timeout) {
            Ok(events) => Ok(events > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(e) => Err(while_doing("wait for the workload's end")(e)),
        }
    }

    /// Kills every process of the workload (cgroup.kill).
    ///
    /// # Errors
    /// [`LaunchError::System`] when the cgroup can't be written.
    pub fn kill(&self) -> Result<(), LaunchError> {
        kill_cgroup(&self.workload.cgroup).map_err(while_doing("kill the workload"))
    }

    /// Kills what still lives, and removes cgroup and folder.
    pub fn clean_up(self) {
        discard(&self.workload.cgroup, &self.workload.folder);
        reap(&self.pidfd);
    }
}

/// Takes the status of a process 1 that has ended. If it was our child (not after a restart), nobody else does.
pub(super) fn reap(pidfd: &OwnedFd) {
    let _ = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
}

/// What is found in a workload's folder after a restart of the daemon.
#[derive(Debug)]
pub enum Revived {
    /// It lives.
    Lives(Running),
    /// It has ended, and what it left is removed. Its name, if it was written down.
    Ended(Option<WorkloadName>),
    /// A version of the daemon wrote it that writes what this one doesn't know: why it can't be read. Nothing was touched.
    Unreadable(String),
}

impl Revived {
    /// The workload that lives.
    pub fn alive(self) -> Option<Running> {
        match self {
            Revived::Lives(running) => Some(running),
            Revived::Ended(_) | Revived::Unreadable(_) => None,
        }
    }
}

/// Finds the workload of a folder again after a restart of the daemon.
pub fn revive(folder: &Path) -> Revived {
    let state = match State::read(folder) {
        Ok(state) => state,
        // The daemon was killed before it had written it down: the workload has yet to begin.
        Err(error) if is_unwritten(&error) => return Revived::Ended(None),
        Err(error) => return Revived::Unreadable(error.to_string()),
    };
    match state.confirm(folder) {
        Some(running) => Revived::Lives(running),
        None => {
            discard(&state.workload.cgroup, folder);
            Revived::Ended(Some(state.workload.name))
        }
    }
}

/// Why this version can't read what is written down in a workload's folder; none if it can, or nothing is.
pub fn unreadable(folder: &Path) -> Option<String> {
    match State::read(folder) {
        Err(error) if !is_unwritten(&error) => Some(error.to_string()),
        _ => None,
    }
}

/// Whether the state file isn't there, or not to its end.
fn is_unwritten(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// The version of the state file. It has to be raised when what is written means something else, or an earlier version mustn't
/// go without a new field: fields that it doesn't know it passes over.
const VERSION: u32 = 1;

/// Only the version of a state file.
#[derive(Debug, Deserialize)]
struct Versioned {
    #[serde(default = "first")]
    version: u32,
}

fn first() -> u32 {
    1
}

/// What the state file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// [`VERSION`]; files from before there were versions are of the first.
    #[serde(default = "first")]
    version: u32,
    /// When process 1 started, in clock ticks since boot (proc(5), field 22 of stat). A boot ends every workload, and
    /// the folder lies below /run, which a boot empties.
    start_time: u64,
    workload: Kept,
}

/// A [`Workload`] as it is written; its folder is where the file lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    id: LaunchId,
    initiator: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loginuid: Option<u32>,
    uid: u32,
    init: u32,
    cgroup: PathBuf,
    name: WorkloadName,
    uids: Vec<u32>,
    gids: Vec<u32>,
    command: Option<String>,
    user: Option<String>,
    home: PlannedHome,
    unix: Vec<PathBuf>,
    classes: Vec<String>,
    /// None: its tokens are observed.
    #[serde(default)]
    publish: Vec<Publish>,
    #[serde(default)]
    token_file: Option<PathBuf>,
}

impl Kept {
    pub(super) fn of(workload: &Workload) -> Self {
        let WorkloadSettings { name, matches, user, home, unix, publish, classes, identity, .. } = &*workload.settings;
        let Match { uids, gids, command } = matches;
        Self {
            id: workload.id,
            initiator: workload.initiator,
            loginuid: workload.loginuid,
            uid: workload.uid,
            init: workload.init,
            cgroup: workload.cgroup.clone(),
            name: name.clone(),
            uids: uids.clone(),
            gids: gids.clone(),
            command: command.clone(),
            user: user.clone(),
            home: (*home).into(),
            unix: unix.clone(),
            publish: publish.clone(),
            classes: classes.clone(),
            token_file: match identity {
                IdentitySource::Observed => None,
                IdentitySource::TokenFile(path) => Some(path.clone()),
            },
        }
    }

    fn restore(&self, folder: &Path) -> Workload {
        let kept = self.clone();
        let matches = Match { uids: kept.uids, gids: kept.gids, command: kept.command };
        Workload {
            id: kept.id,
            settings: Arc::new(WorkloadSettings {
                name: kept.name,
                matches,
                user: kept.user,
                home: kept.home.into(),
                unix: kept.unix,
                publish: kept.publish,
                classes: kept.classes,
                identity: kept.token_file.map_or(IdentitySource::Observed, IdentitySource::TokenFile),
                adopt: Vec::new(),
                // Whether it is contained enough was judged when it was launched.
                containment: Level::Steered,
            }),
            initiator: kept.initiator,
            loginuid: kept.loginuid,
            uid: kept.uid,
            init: kept.init,
            cgroup: kept.cgroup,
            folder: folder.into(),
        }
    }
}

impl State {
    /// That of a workload whose process 1 started then.
    pub(super) fn new(start_time: u64, workload: Kept) -> Self {
        Self { version: VERSION, start_time, workload }
    }

    /// Writes it into the launch's folder, as a whole or not at all.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let (new, final_place) = (folder.join("launch.json.new"), folder.join(STATE));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(new, final_place)
    }

    /// # Errors
    /// There is none, or it is of a version that this one doesn't know.
    fn read(folder: &Path) -> io::Result<Self> {
        let bytes = fs::read(folder.join(STATE))?;
        let malformed = |error: serde_json::Error| {
            let kind = if error.is_eof() { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
            io::Error::new(kind, error)
        };
        let Versioned { version } = serde_json::from_slice(&bytes).map_err(malformed)?;
        if version > VERSION {
            let what = format!("its state is of version {version}, and this binary knows {VERSION}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        serde_json::from_slice(&bytes).map_err(malformed)
    }

    /// The workload, if its process 1 is the one that was written down: same start, in the workload's cgroup, alive.
    fn confirm(&self, folder: &Path) -> Option<Running> {
        let init = self.workload.init;
        let pidfd = sys::pidfd_open(init).ok()?;
        let netns = File::open(format!("/proc/{init}/ns/net")).ok()?.into();
        let same = start_time(init).ok()? == self.start_time && is_in_cgroup(init, &self.workload.cgroup);
        let own_network =
            fs::read_link(format!("/proc/{init}/ns/net")).ok()? != fs::read_link("/proc/self/ns/net").ok()?;
        // Last: what was read above was this process's if it still lives now.
        let alive = sys::pidfd_signal(pidfd.as_fd(), 0).is_ok();
        (same && own_network && alive).then(|| Running::new(Arc::new(self.workload.restore(folder)), pidfd, netns))
    }
}

/// When a process started, in clock ticks since boot.
pub(super) fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the command in parentheses, which may hold anything; the 22nd is the 20th after it.
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let field = rest.split_ascii_whitespace().nth(19).ok_or_else(|| io::Error::other("a stat without a start time"))?;
    field.parse().map_err(io::Error::other)
}

fn is_in_cgroup(pid: u32, cgroup: &Path) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return false };
    let below_mount = text.lines().find_map(|line| line.strip_prefix("0::/"));
    below_mount.is_some_and(|below| !below.is_empty() && cgroup.ends_with(below))
}

fn kill_cgroup(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.kill"), "1")
}

/// Kills what is in the cgroup, removes it, and removes the folder. What is gone already is fine.
pub fn discard(cgroup: &Path, folder: &Path) {
    for _ in 0..REMOVALS {
        let _ = kill_cgroup(cgroup);
        match fs::remove_dir(cgroup) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(REMOVAL_PAUSE),
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(cgroup = %cgroup.display(), error = %e, "a workload's cgroup could not be removed");
                break;
            }
            _ => break,
        }
    }
    if let Err(e) = fs::remove_dir_all(folder)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), error = %e, "a workload's folder could not be removed");
    }
}

#[cfg(test)]
mod tests;
