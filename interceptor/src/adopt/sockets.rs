//! Sockets that a governed process has from before its adoption, from its parent or from a friend: those that reach out
//! without having been steered are cut. Found by their inodes; looked at, and cut, by a copy of the descriptor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockopt, setsockopt, sockopt,
};
use rustix::io::Errno;
use rustix::net::connect_unspec;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::procfs::threads_of;
use crate::bpf::adopt::Adopter;
use crate::launch;

/// As many descriptors of a workload as are looked at in one go, which takes some tenths of a second: nobody may keep the
/// daemon from looking at the others.
pub const DESCRIPTORS: usize = 256 * 1024;

/// Looks at sockets, each once.
#[derive(Debug)]
pub struct Sockets {
    right: BTreeSet<u64>,
    most: usize,
}

/// A socket that reaches past the hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The process that has it.
    pub pid: u32,
    /// What it is: `tcp to 198.51.100.7:443`.
    pub what: String,
    /// Whether it was cut; else it is still open.
    pub cut: bool,
}

/// What a socket is to us.
enum Judged {
    /// Steered, inbound, or reaching nowhere.
    Right,
    /// Not connected yet: it will be judged by the hooks, and again here.
    Idle,
    /// It reaches past us.
    Stray(String),
}

impl Sockets {
    /// Looks at so many descriptors of processes in one go.
    pub fn at_most(descriptors: usize) -> Self {
        Self { right: BTreeSet::new(), most: descriptors }
    }

    /// Cuts what these processes have that reaches past the hooks, but for unix sockets to `allowed` paths and the standard
    /// streams.
    pub fn cut(&mut self, adopter: &Adopter, pids: &[u32], allowed: &[PathBuf]) -> Vec<Stray> {
        let mut strays = Vec::new();
        let mut open = BTreeSet::new();
        let mut left = self.most;
        for pid in pids {
            // One that is gone has nothing.
            let held = sockets_of(*pid, &mut left).unwrap_or_default();
            if left == 0 {
                let what =
                    format!("with its workload's others more than {} descriptors, too many to look at", self.most);
                strays.push(Stray { pid: *pid, what, cut: false });
                return strays;
            }
            for held in held {
                open.insert(held.inode);
                if self.right.contains(&held.inode) {
                    continue;
                }
                let socket = match held.copy() {
                    Ok(socket) => socket,
                    // A kernel before 6.9 copies from the first thread alone.
                    Err(Errno::INVAL) => {
                        let what = "a socket that one of its threads keeps to itself".into();
                        strays.push(Stray { pid: *pid, what, cut: false });
                        continue;
                    }
                    Err(_) => continue,
                };
                match judge(adopter, &socket, held.number, allowed) {
                    Ok(Judged::Right) => {
                        self.right.insert(held.inode);
                    }
                    Ok(Judged::Idle) | Err(_) => {}
                    Ok(Judged::Stray(what)) => {
                        let cut = cut(&socket).is_ok();
                        strays.push(Stray { pid: *pid, what, cut });
                    }
                }
            }
        }
        // Inodes are used again.
        self.right.retain(|inode| open.contains(inode));
        strays
    }
}

/// A socket that a process has, and where: threads can have descriptors of their own (CLONE_FILES of unshare(2)), and those of
/// the first one are gone when that has ended.
struct Held {
    pid: u32,
    thread: u32,
    number: i32,
    inode: u64,
}

/// The sockets of a process, each once, as long as there are descriptors `left` that may be looked at.
fn sockets_of(pid: u32, left: &mut usize) -> io::Result<Vec<Held>> {
    let mut threads = threads_of(pid)?;
    // What all share is copied from the first.
    threads.sort_by_key(|thread| *thread != pid);
    let mut sockets = BTreeMap::new();
    let mut tables: Vec<u32> = Vec::new();
    for thread in threads {
        // Most share one table, so it isn't read for each of them.
        if tables.iter().rev().take(TABLES).any(|other| launch::share_files(*other, thread)) {
            continue;
        }
        // It may have ended.
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task/{thread}/fd")) else { continue };
        tables.push(thread);
        for entry in entries.flatten() {
            if *left == 0 {
                return Ok(Vec::new());
            }
            *left -= 1;
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let link = link.to_string_lossy();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            let inode = inode.and_then(|inode| inode.parse().ok());
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(inode), Some(number)) = (inode, number) {
                sockets.entry(inode).or_insert(Held { pid, thread, number, inode });
            }
        }
    }
    Ok(sockets.into_values().collect())
}

/// With how many tables of a process one more is compared.
const TABLES: usize = 4;

impl Held {
    /// A copy of the descriptor.
    fn copy(&self) -> Result<OwnedFd, Errno> {
        /// PIDFD_THREAD of linux/pidfd.h, since Linux 6.9.
        const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
        let flags = if self.thread == self.pid { PidfdFlags::empty() } else { THREAD };
        let thread = Pid::from_raw(self.thread.cast_signed()).ok_or(Errno::SRCH)?;
        pidfd_getfd(pidfd_open(thread, flags)?, self.number, PidfdGetfdFlags::empty())
    }
}

fn judge(adopter: &Adopter, socket: &OwnedFd, number: i32, allowed: &[PathBuf]) -> io::Result<Judged> {
    let kind = getsockopt(socket, sockopt::SockType);
    let local: SockaddrStorage = nix::sys::socket::getsockname(socket.as_raw_fd())?;
    let peer: Option<SockaddrStorage> = getpeername(socket.as_raw_fd()).ok();
    match local.family() {
        Some(AddressFamily::Inet | AddressFamily::Inet6) => {
            if !matches!(kind, Ok(SockType::Stream | SockType::Datagram)) {
                return Ok(Judged::Stray("a raw socket".into()));
            }
            let name = if matches!(kind, Ok(SockType::Stream)) { "tcp" } else { "udp" };
            let Some(peer) = peer else { return Ok(Judged::Idle) };
            let is_right = adopter.is_steered(&socket.as_fd()) || adopter.is_inbound(&socket.as_fd());
            Ok(if is_right { Judged::Right } else { Judged::Stray(format!("{name} to {peer}")) })
        }
        Some(AddressFamily::Unix) => {
            // What began with it: its manager's pipes and log.
            if number <= 2 {
                return Ok(Judged::Right);
            }
            let peer = peer.as_ref().and_then(SockaddrStorage::as_unix_addr);
            let Some(peer) = peer else { return Ok(Judged::Idle) };
            match (peer.path(), peer.as_abstract()) {
                (Some(path), _) if allowed.iter().any(|one| one == path) => Ok(Judged::Right),
                (Some(path), _) => Ok(Judged::Stray(format!("unix to `{}`", path.display()))),
                (None, Some(name)) => Ok(Judged::Stray(format!("unix to `@{}`", String::from_utf8_lossy(name)))),
                // A pair, or a connection that it accepted.
                (None, None) => Ok(Judged::Right),
            }
        }
        Some(AddressFamily::Netlink) => Ok(Judged::Right),
        other => Ok(Judged::Stray(format!("a socket of the family {other:?}"))),
    }
}

/// Ends what a socket is connected to, with a reset where there is one.
fn cut(socket: &OwnedFd) -> io::Result<()> {
    // For what isn't TCP this does nothing.
    let _ = setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    let dissolved = connect_unspec(socket);
    let shut = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    dissolved.map_err(io::Error::from).or_else(|_| Ok(shut?))
}

#[cfg(test)]
mod tests;
