//! Who is at the other end of a unix socket, as the kernel says: uid, gid and pid when it connected, and a descriptor of
//! the process, which keeps its pid from meaning another one while /proc is read.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use crate::config::{Control, Members};
use crate::who::login::parse_loginuid;

/// The process that connected.
#[derive(Debug)]
pub struct Peer {
    /// Its effective uid.
    pub uid: u32,
    /// As whom its person logged in, where the kernel knows it; none before [`Peer::learn_loginuid`].
    pub loginuid: Option<u32>,
    /// Its effective gid.
    pub gid: u32,
    /// Its pid, in the daemon's PID namespace.
    pub pid: u32,
    /// The process itself; none if it has ended already.
    pub pidfd: Option<OwnedFd>,
}

/// Why it can't be said who a peer is. Whoever can't be known gets nothing.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel doesn't say who is at the other end.
    #[error("the kernel doesn't tell the peer's credentials: {0}")]
    Credentials(Errno),
    /// It ended, or lives in a PID namespace that isn't below the daemon's.
    #[error("the peer has ended, or can't be seen from here")]
    Gone,
    /// What /proc says of it can't be read.
    #[error("can't read `{}`: {why}", path.display())]
    Proc {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// There is no cgroup2 hierarchy in /proc/PID/cgroup.
    #[error("the kernel doesn't tell the peer's cgroup: is cgroup2 mounted?")]
    NoCgroup,
}

impl Peer {
    /// The peer of a connected unix stream socket.
    ///
    /// SO_PEERPIDFD is Linux 6.5; before, the process is opened by its pid, which could have passed on in between. A
    /// workload's processes can't reach the socket there either, since it isn't in their filesystem view.
    ///
    /// # Errors
    ///
    /// The kernel doesn't tell the credentials.
    pub fn of(socket: &impl AsFd) -> Result<Peer, PeerError> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials).map_err(PeerError::Credentials)?;
        let pid = u32::try_from(credentials.pid()).unwrap_or(0);
        let pidfd = match getsockopt(socket, sockopt::PeerPidfd) {
            Ok(pidfd) => Some(pidfd),
            Err(Errno::ENOPROTOOPT) => rustix::process::Pid::from_raw(credentials.pid())
                .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()),
            Err(_) => None,
        };
        Ok(Peer { uid: credentials.uid(), loginuid: None, gid: credentials.gid(), pid, pidfd })
    }

    /// Asks the kernel as whom its person logged in (`/proc/PID/loginuid`, proc(5)): `su` and `sudo`
    /// don't change it. What no login began has none, and nothing has one on a kernel without audit.
    ///
    /// # Errors
    ///
    /// It can't be known.
    pub fn learn_loginuid(&mut self) -> Result<(), PeerError> {
        self.loginuid = match self.proc("loginuid") {
            Ok(text) => parse_loginuid(&text),
            // Its folder is there, and the file isn't.
            Err(PeerError::Proc { why, .. })
                if why.kind() == io::ErrorKind::NotFound && self.proc("status").is_ok() =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Whether it is in the cgroup `workloads` or below, or in one of which `governs` says so. Both are given paths as
    /// /proc/PID/cgroup shows them, from the root of cgroup2: `/interceptor/workloads`.
    ///
    /// # Errors
    ///
    /// It can't be known; to be taken as a yes.
    pub fn inside(&self, workloads: &Path, governs: impl Fn(&Path) -> bool) -> Result<bool, PeerError> {
        let text = self.proc("cgroup")?;
        let cgroup = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or(PeerError::NoCgroup)?;
        // An emptied cgroup that is gone: "/interceptor/workloads/wl_… (deleted)" is still below.
        let cgroup = Path::new(cgroup.strip_suffix(" (deleted)").unwrap_or(cgroup));
        Ok(cgroup.starts_with(workloads) || governs(cgroup))
    }

    /// Whether it is root or one of the operators.
    ///
    /// # Errors
    ///
    /// Its groups matter and can't be known.
    pub fn operates(&self, control: &Control) -> Result<bool, PeerError> {
        if self.uid == 0 { Ok(true) } else { self.is_among(&control.operators) }
    }

    /// Whether it is one of these.
    ///
    /// # Errors
    ///
    /// Its groups matter and can't be known.
    pub fn is_among(&self, members: &Members) -> Result<bool, PeerError> {
        if members.uids.contains(&self.uid) { Ok(true) } else { self.is_in(&members.gids) }
    }

    /// Whether it is in one of these groups, by gid.
    ///
    /// # Errors
    ///
    /// Its groups matter and can't be known.
    pub fn is_in(&self, gids: &[u32]) -> Result<bool, PeerError> {
        if gids.contains(&self.gid) {
            return Ok(true);
        }
        if gids.is_empty() {
            return Ok(false);
        }
        let text = self.proc("status")?;
        let groups = text.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
        Ok(groups.split_whitespace().filter_map(|gid| gid.parse().ok()).any(|gid| gids.contains(&gid)))
    }

    /// A file of /proc/PID, sure to be of this process: it lived after the file was read.
    fn proc(&self, file: &str) -> Result<String, PeerError> {
        let pidfd = self.pidfd.as_ref().filter(|_| self.pid != 0).ok_or(PeerError::Gone)?;
        let path = PathBuf::from(format!("/proc/{}/{file}", self.pid));
        let bytes = fs::read(&path).map_err(|why| PeerError::Proc { path, why })?;
        let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ended, PollTimeout::ZERO) {
            Ok(0) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            _ => Err(PeerError::Gone),
        }
    }
}

#[cfg(test)]
mod tests;
