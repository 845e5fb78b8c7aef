//! What a launched workload's filter refuses of sockets, counted: no hook sees a call that a filter refuses. So the kernel asks
//! process 1 about these (seccomp_unotify(2)), which refuses every one of them and keeps count in a file of the launch's folder.
//! Where nobody answers, because process 1 is at its end, the kernel refuses by itself (ENOSYS). The call is judged by its
//! registers, which can't change meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use interceptor_common::Kind;

use super::sys;

/// Where the counts are in a launch's folder: three numbers of eight bytes, in the machine's order.
const FILE: &str = "refused";

/// How many sockets a workload was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// Of IP, and neither TCP nor UDP.
    pub raw: u64,
    /// That send and receive below IP.
    pub packet: u64,
    /// Of other families, and of netlink's protocols but ROUTE.
    pub other: u64,
}

impl Refused {
    /// What process 1 of the launch with this folder has counted.
    ///
    /// # Errors
    /// Its file can't be read. That there is none, because an earlier version launched it, is no error: that counted nothing.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let bytes = match fs::read(folder.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read?,
        };
        let ([raw, packet, other], []) = bytes.as_chunks() else {
            return Err(io::Error::other(format!("`{FILE}` isn't three numbers")));
        };
        let [raw, packet, other] = [raw, packet, other].map(|bytes| u64::from_ne_bytes(*bytes));
        Ok(Self { raw, packet, other })
    }

    /// Makes the file in a new launch's folder. Its room is taken now, so that none has to be found later.
    pub(super) fn create(folder: &Path) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(FILE))?;
        Self::default().write(&file)?;
        Ok(file)
    }

    fn write(self, file: &File) -> io::Result<()> {
        let Self { raw, packet, other } = self;
        file.write_all_at([raw, packet, other].map(u64::to_ne_bytes).as_flattened(), 0)
    }

    fn add(&mut self, kind: Kind) {
        let count = match kind {
            Kind::Raw => &mut self.raw,
            Kind::Packet => &mut self.packet,
            _ => &mut self.other,
        };
        *count += 1;
    }
}

/// Process 1's end of a workload's filter.
pub(super) struct Refusals {
    listener: OwnedFd,
    file: File,
    refused: Refused,
}

impl Refusals {
    /// Answers what comes at `listener`, and counts in `file`, which nobody else writes.
    pub(super) fn new(listener: OwnedFd, file: File) -> Self {
        Self { listener, file, refused: Refused::default() }
    }

    /// Refuses the next call. To be called when the listener is readable, and waits otherwise.
    ///
    /// # Errors
    /// It can't be asked about or answered, or the counts can't be written; the last is refused all the same.
    pub(super) fn answer(&mut self) -> io::Result<()> {
        let asked = match sys::next_notification(self.listener.as_fd()) {
            // Its caller was killed before.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => return Ok(()),
            asked => asked?,
        };
        let (kind, errno) = judge(&asked.data);
        self.refused.add(kind);
        // First: who has his answer may look at the counts.
        let written = self.refused.write(&self.file);
        match sys::refuse_notification(self.listener.as_fd(), asked.id, errno) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => written,
        }
    }
}

impl AsFd for Refusals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// As what a refused call counts, and the errno that a kernel without the protocol, or a process without privileges, has for it:
/// programs fall back on those. Where more than one would do, programs expect that of the privileges, then that of the family.
fn judge(call: &libc::seccomp_data) -> (Kind, i32) {
    const TYPE: i32 = 0xf;
    const OBSOLETE_PACKET: i32 = 10;
    // The kernel takes the lower half of these registers.
    let [family, kind, protocol, ..] = call.args.map(|register| register as i32);
    let kind = kind & TYPE;
    let is_ip = matches!(family, libc::AF_INET | libc::AF_INET6);
    if libc::c_long::from(call.nr) == libc::SYS_socketpair || !(is_ip || family == libc::AF_NETLINK) {
        return (if family == libc::AF_PACKET { Kind::Packet } else { Kind::Other }, libc::EAFNOSUPPORT);
    }
    if !is_ip {
        return (Kind::Other, libc::EPROTONOSUPPORT);
    }
    let counts_as = if kind == OBSOLETE_PACKET { Kind::Packet } else { Kind::Raw };
    let errno = match (kind, protocol) {
        (libc::SOCK_RAW, _) => libc::EPERM,
        (_, 0 | libc::IPPROTO_TCP | libc::IPPROTO_UDP) => libc::ESOCKTNOSUPPORT,
        _ => libc::EPROTONOSUPPORT,
    };
    (counts_as, errno)
}

#[cfg(test)]
mod tests;
