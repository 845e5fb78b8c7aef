//! Which descriptors may cross into a workload: only 0 to 2, and of those only what carries bytes to its other end and
//! nothing else. A directory, a socket of the network or a handle on the kernel's own filesystems would be a way out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::{AcceptConn, SockType};
use nix::sys::socket::{UnixAddr, getpeername, getsockopt};
use nix::sys::statfs::fstatfs;

use super::LaunchError;

const NAMES: [&str; 3] = ["standard input", "standard output", "standard error"];

/// Filesystems that keep files and nothing else, by their magic numbers (linux/magic.h and the filesystems' own).
const FILE_KEEPING: [(i64, &str); 31] = [
    (0xEF53, "ext2 to ext4"),
    (0x5846_5342, "XFS"),
    (0x9123_683E, "Btrfs"),
    (0x0102_1994, "tmpfs, memfd"),
    (0x8584_58F6, "ramfs"),
    (0x794C_7630, "overlayfs"),
    (0xF2F5_2010, "F2FS"),
    (0x2FC1_2FC1, "ZFS"),
    (0xCA45_1A4E, "bcachefs"),
    (0x6573_5546, "FUSE, virtiofs"),
    (0x0102_1997, "9p"),
    (0x6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x517B, "SMB"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4D44, "FAT"),
    (0x2011_BAB0, "exFAT"),
    (0x7366_746E, "NTFS3"),
    (0x5346_544E, "NTFS"),
    (0x4244, "HFS"),
    (0x482B, "HFS+"),
    (0x3153_464A, "JFS"),
    (0x5265_4973, "ReiserFS"),
    (0x9660, "ISO 9660"),
    (0x7371_7368, "SquashFS"),
    (0xE0F5_E1E2, "EROFS"),
];

/// Checks what the caller handed over as 0 to 2.
///
/// # Errors
/// [`LaunchError::Descriptor`] names the first that mustn't cross, and what it is.
pub(super) fn check(stdio: &[OwnedFd; 3]) -> Result<(), LaunchError> {
    for (fd, name) in stdio.iter().zip(NAMES) {
        let refusal = judge(fd.as_fd()).unwrap_or_else(|e| Some(format!("something that can't be examined ({e})")));
        if let Some(what) = refusal {
            return Err(LaunchError::Descriptor { name, what });
        }
    }
    Ok(())
}

/// What the descriptor is, if that mustn't cross.
fn judge(fd: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_PATH) {
        return Ok(Some("a bare place in the filesystem (O_PATH)".into()));
    }
    let file = File::from(fd.try_clone_to_owned()?);
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    Ok(if kind.is_fifo() {
        None
    } else if kind.is_file() {
        on_disk(&file)?
    } else if kind.is_char_device() {
        character_device(fd, metadata.rdev())
    } else if kind.is_socket() {
        socket(fd)?
    } else if kind.is_dir() {
        Some("a directory".into())
    } else if kind.is_block_device() {
        Some("a block device".into())
    } else {
        Some("a handle on a kernel object".into())
    })
}

fn on_disk(file: &File) -> io::Result<Option<String>> {
    // The type's width differs between libraries; the magic numbers fit 32 bits.
    let magic = fstatfs(file)?.filesystem_type().0 as i64 & 0xFFFF_FFFF;
    let known = FILE_KEEPING.iter().any(|(known, _)| *known == magic);
    Ok((!known).then(|| format!("a file of a filesystem that isn't known to keep only files (type {magic:#x})")))
}

fn character_device(fd: BorrowedFd<'_>, device: u64) -> Option<String> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    match (major, minor) {
        (1, 3) => None,
        (5, 2) => Some("the master of a terminal".into()),
        _ if nix::unistd::isatty(fd).unwrap_or(false) => None,
        _ => Some(format!("a device ({major}:{minor})")),
    }
}

fn socket(fd: BorrowedFd<'_>) -> io::Result<Option<String>> {
    Ok(match getpeername::<nix::sys::socket::SockaddrStorage>(fd.as_raw_fd()) {
        _ if domain(fd)? != libc::AF_UNIX => Some("a socket of another family than unix".into()),
        _ if getsockopt(&fd, SockType)? != nix::sys::socket::SockType::Stream => {
            Some("a unix socket that isn't a stream".into())
        }
        _ if getsockopt(&fd, AcceptConn)? => Some("a listening socket".into()),
        _ => match getpeername::<UnixAddr>(fd.as_raw_fd()) {
            Ok(peer) => peer
                .path()
                .map(|path| format!("a connection to the service at `{}`", path.display()))
                .or_else(|| peer.as_abstract().map(|_| "a connection to a service's abstract socket".into())),
            // The other end may have closed already; nothing gets through then.
            Err(nix::errno::Errno::ENOTCONN) => None,
            Err(e) => return Err(e.into()),
        },
    })
}

fn domain(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    super::sys::socket_domain(fd)
}

#[cfg(test)]
mod tests;
