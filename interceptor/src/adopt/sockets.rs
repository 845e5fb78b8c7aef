//! Sockets that a governed process has from before its adoption, from its parent or from a friend: those that reach out
//! without having been steered are cut, and what can't be cut is told. Found by their inodes; looked at, and cut, by a copy of
//! the descriptor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{SockaddrStorage, getpeername, setsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_protocol, socket_type};
use rustix::net::{AddressFamily, SocketType, connect_unspec};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::procfs::{is_ending, is_shortage, threads_of};
use crate::bpf::adopt::Adopter;
use crate::launch;

/// As many descriptors of a workload as are looked at in one go, which takes some tenths of a second: nobody may keep the
/// daemon from looking at the others.
pub const DESCRIPTORS: usize = 256 * 1024;

/// For how long descriptors may be on their way from one process to another.
const UNDER_WAY: Duration = Duration::from_millis(900);

/// A socket that wasn't looked at for so long is gone; its inode may be another one's.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// Looks at sockets, each once.
#[derive(Debug)]
pub struct Sockets {
    right: BTreeSet<u64>,
    /// Since when there are descriptors in a unix socket that nobody has taken out, and when that was seen last.
    laden: BTreeMap<u64, (Instant, Instant)>,
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
    /// Whether it is over when it isn't found any more. Else it is for as long as the process lives: what it has been
    /// good for, nobody knows.
    pub passes: bool,
}

impl Stray {
    fn open(pid: u32, what: impl Into<String>) -> Self {
        Self { pid, what: what.into(), cut: false, passes: false }
    }
}

/// What a socket is to us.
enum Judged {
    /// It reaches nowhere, or where it may, and stays so.
    Right,
    /// Steered, inbound, or not connected yet. Who shares it can connect it anew, so it is looked at each time.
    ForNow,
    /// It is connected past us.
    Stray(String),
    /// It reaches past us whether it is connected or not, so there is nothing to cut.
    Open(String),
}

impl Sockets {
    /// Looks at so many descriptors of processes in one go.
    pub fn at_most(descriptors: usize) -> Self {
        Self { right: BTreeSet::new(), laden: BTreeMap::new(), most: descriptors }
    }

    /// Cuts what these processes have that reaches past the hooks, but for unix sockets to `allowed` paths and to the journal.
    pub fn cut(&mut self, adopter: &Adopter, pids: &[u32], allowed: &[PathBuf]) -> Vec<Stray> {
        let mut strays = Vec::new();
        let mut open = BTreeSet::new();
        let mut left = self.most;
        for pid in pids {
            // One that is gone has nothing.
            let Descriptors { sockets, others } = descriptors_of(*pid, &mut left).unwrap_or_default();
            if left == 0 {
                let what =
                    format!("with its workload's others more than {} descriptors, too many to look at", self.most);
                strays.push(Stray::open(*pid, what));
                return strays;
            }
            strays.extend(others.into_iter().map(|what| Stray::open(*pid, what)));
            for (inode, held) in sockets {
                open.insert(inode);
                if self.right.contains(&inode) {
                    strays.extend(self.laden(inode, &held));
                    continue;
                }
                let socket = match held.copy() {
                    Ok(socket) => socket,
                    Err(error) => {
                        let what = unseen(error).filter(|_| !is_ending(*pid, held.thread));
                        strays.extend(what.map(|what| Stray::open(*pid, what)));
                        continue;
                    }
                };
                if socket_domain(&socket) == Ok(AddressFamily::UNIX) {
                    strays.extend(self.laden(inode, &held));
                } else {
                    answer(adopter, &socket);
                }
                match judge(adopter, &socket, allowed) {
                    Ok(Judged::Right) => {
                        self.right.insert(inode);
                    }
                    Ok(Judged::ForNow) => {}
                    Ok(Judged::Stray(what)) => {
                        let cut = cut(&socket).is_ok();
                        strays.push(Stray { cut, ..Stray::open(*pid, what) });
                    }
                    Ok(Judged::Open(what)) => strays.push(Stray::open(*pid, what)),
                    Err(error) => {
                        strays.push(Stray::open(*pid, format!("a socket that doesn't tell what it is ({error})")));
                    }
                }
            }
        }
        // Inodes are used again.
        self.right.retain(|inode| open.contains(inode));
        // Not all are looked at each time.
        self.laden.retain(|_, (_, seen)| seen.elapsed() < FORGOTTEN);
        strays
    }

    /// Descriptors in a unix socket, which are in no table of a process as long as nobody takes them out.
    fn laden(&mut self, inode: u64, held: &Held) -> Option<Stray> {
        if held.carried() == 0 {
            self.laden.remove(&inode);
            return None;
        }
        let now = Instant::now();
        let (since, seen) = self.laden.entry(inode).or_insert((now, now));
        *seen = now;
        let what = "descriptors in a socket, which nobody takes out and nobody can look at";
        (since.elapsed() >= UNDER_WAY).then(|| Stray { passes: true, ..Stray::open(held.pid, what) })
    }
}

/// What a socket is that couldn't be copied; none if there is nothing to tell.
fn unseen(error: Errno) -> Option<String> {
    match error {
        // It, or its process, is gone.
        Errno::SRCH | Errno::BADF => None,
        // For want of descriptors nothing is known: the survey tells that, and the next look is soon.
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => None,
        // A kernel before 6.9 copies from the first thread alone.
        Errno::INVAL => Some("a socket that one of its threads keeps to itself".into()),
        // Yama (`kernel.yama.ptrace_scope` 3) or another security module.
        error => Some(format!("a socket that this kernel doesn't let the daemon look at ({error})")),
    }
}

/// What a process has open that may reach out.
#[derive(Default)]
struct Descriptors {
    /// Its sockets, by their inodes.
    sockets: BTreeMap<u64, Held>,
    /// What reaches out and is no socket, and what can't be looked at.
    others: BTreeSet<String>,
}

/// A socket that a process has, and where: threads can have descriptors of their own (CLONE_FILES of unshare(2)), and those of
/// the first one are gone when that has ended.
struct Held {
    pid: u32,
    thread: u32,
    number: i32,
}

/// The sockets of a process, each once, and what else reaches out, as long as there are descriptors `left` that may be looked
/// at.
fn descriptors_of(pid: u32, left: &mut usize) -> io::Result<Descriptors> {
    let mut threads = threads_of(pid)?;
    // What all share is copied from the first.
    threads.sort_by_key(|thread| *thread != pid);
    let mut found = Descriptors::default();
    let mut tables: Vec<u32> = Vec::new();
    for thread in threads {
        // Most share one table, so it isn't read for each of them.
        if tables.iter().rev().take(TABLES).any(|other| launch::share_files(*other, thread)) {
            continue;
        }
        let entries = match fs::read_dir(format!("/proc/{pid}/task/{thread}/fd")) {
            Ok(entries) => entries,
            Err(error) => {
                found.others.extend(unread(&error).filter(|_| !is_ending(pid, thread)));
                continue;
            }
        };
        tables.push(thread);
        for entry in entries.flatten() {
            if *left == 0 {
                return Ok(Descriptors::default());
            }
            *left -= 1;
            let link = match fs::read_link(entry.path()) {
                Ok(link) => link,
                Err(error) => {
                    // EACCES is also what one gets of a thread that ended in that very call (`proc_pid_readlink` of fs/proc/base.c).
                    found.others.extend(unread(&error).filter(|_| !is_ending(pid, thread)));
                    continue;
                }
            };
            let link = link.to_string_lossy();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            let inode = inode.and_then(|inode| inode.parse().ok());
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(inode), Some(number)) = (inode, number) {
                found.sockets.entry(inode).or_insert(Held { pid, thread, number });
            } else if reaches_out(&link) {
                found.others.insert(format!("`{link}` open"));
            }
        }
    }
    Ok(found)
}

/// What can't be read of a table of descriptors; none if it is gone, or if that is for want of descriptors of our own.
fn unread(error: &io::Error) -> Option<String> {
    let is_gone = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH));
    (!is_gone && !is_shortage(error)).then(|| format!("descriptors that the daemon can't look at ({error})"))
}

/// Whether a descriptor that is no socket sends all the same: what `device` of the hooks refuses to open, or a ring that makes
/// sockets. It may be from before they were there.
fn reaches_out(link: &str) -> bool {
    matches!(link, "/dev/net/tun" | "/dev/vhost-net" | "/dev/vhost-vsock" | "anon_inode:[io_uring]")
        || link.starts_with("/dev/tap")
}

/// With how many tables of a process one more is compared.
const TABLES: usize = 4;

impl Held {
    /// How many descriptors there are in it (`unix_show_fdinfo` of net/unix/af_unix.c).
    fn carried(&self) -> u32 {
        let Self { pid, thread, number } = self;
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/fdinfo/{number}")).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse().ok()).unwrap_or_default()
    }

    /// A copy of the descriptor.
    fn copy(&self) -> Result<OwnedFd, Errno> {
        /// PIDFD_THREAD of linux/pidfd.h, since Linux 6.9.
        const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
        let flags = if self.thread == self.pid { PidfdFlags::empty() } else { THREAD };
        let thread = Pid::from_raw(self.thread.cast_signed()).ok_or(Errno::SRCH)?;
        pidfd_getfd(pidfd_open(thread, flags)?, self.number, PidfdGetfdFlags::empty())
    }
}

/// What a listener accepts is right, also where somebody else made the listener, as a manager of services does for a unit.
fn answer(adopter: &Adopter, socket: &OwnedFd) {
    if socket_acceptconn(socket) == Ok(true)
        && !adopter.is_inbound(socket)
        && let Err(error) = adopter.answer(socket)
    {
        tracing::debug!(%error, "what a listener accepts can't be told from other connections");
    }
}

fn judge(adopter: &Adopter, socket: &OwnedFd, allowed: &[PathBuf]) -> io::Result<Judged> {
    // Not by its address: sockets of some families have none.
    let family = socket_domain(socket)?;
    let protocol = socket_protocol(socket)?.map_or(0, |protocol| protocol.as_raw().get().cast_signed());
    let peer: Option<SockaddrStorage> = getpeername(socket.as_raw_fd()).ok();
    match family {
        AddressFamily::INET | AddressFamily::INET6 => {
            let name = match (socket_type(socket)?, protocol) {
                (SocketType::STREAM, libc::IPPROTO_TCP) => "tcp",
                (SocketType::STREAM, libc::IPPROTO_MPTCP) => "mptcp",
                (SocketType::DGRAM, libc::IPPROTO_UDP) => "udp",
                (SocketType::RAW, _) => return Ok(Judged::Open("a raw socket".into())),
                // Ping and L2TP send without a connection, and no hook sees it.
                _ => return Ok(Judged::Open(format!("a socket of the protocol {protocol}"))),
            };
            let is_right = adopter.is_steered(&socket.as_fd()) || adopter.is_inbound(&socket.as_fd());
            Ok(match peer {
                Some(peer) if !is_right => Judged::Stray(format!("{name} to {peer}")),
                _ => Judged::ForNow,
            })
        }
        AddressFamily::UNIX => {
            let Some(peer) = peer.as_ref().and_then(SockaddrStorage::as_unix_addr) else { return Ok(Judged::ForNow) };
            Ok(match (peer.path(), peer.as_abstract()) {
                (Some(path), _) if allowed.iter().any(|one| one == path) || is_journal(path) => Judged::ForNow,
                (Some(path), _) => Judged::Stray(format!("unix to `{}`", path.display())),
                (None, Some(name)) => Judged::Stray(format!("unix to `@{}`", String::from_utf8_lossy(name))),
                // A pair, or a connection that it accepted.
                (None, None) => Judged::Right,
            })
        }
        AddressFamily::NETLINK => Ok(Judged::Right),
        other => Ok(Judged::Open(format!("a socket of the family {}", other.as_raw()))),
    }
}

/// Where systemd connects a service's output to, also that of a journal of its own (`LogNamespace=` of systemd.exec(5)).
fn is_journal(path: &Path) -> bool {
    let folder = path.strip_prefix("/run/systemd").ok().and_then(Path::parent).and_then(Path::to_str);
    path.file_name().is_some_and(|name| name == "stdout")
        && folder.is_some_and(|folder| folder == "journal" || folder.starts_with("journal.") && !folder.contains('/'))
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
