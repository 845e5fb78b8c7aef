//! The mounting itself, by descriptors (open_tree(2), move_mount(2)): a place is opened once, and what is mounted there is
//! mounted on exactly that, whatever its owner renames meanwhile.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::c_path;
use crate::launch::sys::{self, resolve};

/// No set-uid programs, no devices, nothing to execute.
pub(super) const INERT: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// A copy of a mount that shows one file or directory, not attached anywhere yet.
#[derive(Debug)]
pub(super) struct Captured(OwnedFd);

/// Takes hold of what lies at a path, with the mounts below it, so that it can be shown elsewhere, or after its place was
/// covered.
pub(super) fn capture(path: &Path) -> io::Result<Captured> {
    sys::clone_tree(here()?.as_fd(), &c_path(path)?, true).map(Captured)
}

impl Captured {
    /// Shows it at a path, which is made (an empty file) if it isn't there.
    pub(super) fn place(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let target = match place(path) {
            Err(e) if is_missing(&e) => {
                File::options().write(true).create_new(true).mode(0o600).open(path)?;
                place(path)?
            }
            place => place?,
        };
        sys::attach(self.0.as_fd(), target.as_fd())
    }

    /// Shows it at a path, read-only.
    pub(super) fn place_read_only(&self, path: &Path) -> io::Result<()> {
        sys::make_read_only(self.0.as_fd())?;
        self.place(path)
    }
}

/// Opens what a path names, without following links in it: those that call have resolved them, or want none.
pub(super) fn place(path: &Path) -> io::Result<OwnedFd> {
    sys::open_place(here()?.as_fd(), &c_path(path)?, resolve::NO_SYMLINKS)
}

/// Mounts a new filesystem on a directory.
pub(super) fn filesystem(
    kind: &CStr,
    path: impl AsRef<Path>,
    options: &[(&CStr, &CStr)],
    attributes: u64,
) -> io::Result<()> {
    let mount = sys::new_filesystem(kind, options, attributes)?;
    sys::attach(mount.as_fd(), place(path.as_ref())?.as_fd())
}

/// Shows what lies at `source`, read-only, at another place too.
pub(super) fn cover_with(source: &Path, target: &OwnedFd) -> io::Result<()> {
    let copy = sys::clone_tree(here()?.as_fd(), &c_path(source)?, false)?;
    sys::make_read_only(copy.as_fd())?;
    sys::attach(copy.as_fd(), target.as_fd())
}

/// Mounts what a descriptor stands for upon itself, and returns it as it is from now on seen: a mount point of its own,
/// which can't be renamed or removed. Mounts below it stay.
pub(super) fn pin(place: BorrowedFd<'_>, read_only: bool) -> io::Result<OwnedFd> {
    let copy = sys::clone_tree(place, c"", true)?;
    if read_only {
        sys::make_read_only(copy.as_fd())?;
    }
    sys::attach(copy.as_fd(), place)?;
    Ok(copy)
}

pub(super) fn is_directory(place: &OwnedFd) -> io::Result<bool> {
    Ok(kind(place.as_fd())? == libc::S_IFDIR)
}

pub(super) fn is_file(place: &OwnedFd) -> io::Result<bool> {
    Ok(kind(place.as_fd())? == libc::S_IFREG)
}

pub(super) fn is_link(place: &OwnedFd) -> io::Result<bool> {
    Ok(kind(place.as_fd())? == libc::S_IFLNK)
}

fn kind(place: BorrowedFd<'_>) -> io::Result<libc::mode_t> {
    Ok(nix::sys::stat::fstat(place)?.st_mode & libc::S_IFMT)
}

/// Whether a path isn't there, or isn't to be followed.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV))
}

/// The root directory: where absolute paths are looked up, which need a descriptor to go with them.
fn here() -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open("/")
}
