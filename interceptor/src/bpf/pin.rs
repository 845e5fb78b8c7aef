//! Pins: attach-or-take-over for links, and the check that a pinned map is the one that it should be.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use aya::maps::{MapData, MapInfo, MapType};

use super::{BpfError, io_error, sys};

/// What a link is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A cgroup.
    Cgroup,
    /// A network namespace.
    Netns,
}

impl Kind {
    fn link_kind(self) -> u32 {
        match self {
            Kind::Cgroup => sys::LINK_CGROUP,
            Kind::Netns => sys::LINK_NETNS,
        }
    }
}

/// Where programs are attached.
pub(super) struct Target<'a> {
    /// An open descriptor of it.
    pub(super) fd: BorrowedFd<'a>,
    /// What it is.
    pub(super) kind: Kind,
    /// Its inode.
    pub(super) id: u64,
}

/// Makes a folder for pins that only root may enter. One that is there must be root's alone: whoever may remove a pin
/// may detach its program.
pub(super) fn make_folder(path: &Path) -> Result<(), BpfError> {
    let failed = |source| io_error(format!("making `{}`", path.display()), source);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(foreign(path, &format!("uid {}, mode {:o}; root's alone is needed", found.uid(), found.mode())))
    }
}

/// Attaches `program` to the target and pins the link at `path`; if a link for this very target is pinned there, the
/// program takes the place of the link's.
pub(super) fn attach(
    path: &Path,
    program: BorrowedFd<'_>,
    target: &Target<'_>,
    attach_type: u32,
) -> Result<(), BpfError> {
    let failed = |what: &str, source| io_error(format!("{what} `{}`", path.display()), source);
    let old = match sys::open(path) {
        Ok(link) => Some(link),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(foreign(path, &format!("it can't be opened: {error}"))),
    };
    let replace = match &old {
        None => false,
        Some(link) => {
            if !is_link(link.as_fd()) {
                return Err(foreign(path, "it isn't a link"));
            }
            let info = sys::link_info(link.as_fd()).map_err(|source| failed("reading the link", source))?;
            if info.kind != target.kind.link_kind() || info.attach_type() != attach_type {
                return Err(foreign(
                    path,
                    &format!("a link of type {}, attach type {}", info.kind, info.attach_type()),
                ));
            }
            if info.target() == target.id {
                return sys::link_update(link.as_fd(), program).map_err(|source| failed("updating the link", source));
            }
            // What the old link was for is gone (0) or isn't ours any more, as when the cgroup was made anew.
            if info.target() != 0 {
                return Err(foreign(path, &format!("a link on another cgroup or namespace, {}", info.target())));
            }
            true
        }
    };
    let link = sys::link_create(program, target.fd, attach_type).map_err(|source| failed("attaching", source))?;
    if replace {
        std::fs::remove_file(path).map_err(|source| failed("removing the dead link", source))?;
    }
    sys::pin(link.as_fd(), path).map_err(|source| failed("pinning", source))
}

/// Whether a bpf descriptor is a link's: the kernel names its files `anon_inode:bpf_link` (`bpf-map`, `bpf-prog`
/// otherwise).
fn is_link(fd: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd;

    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .is_ok_and(|name| name.to_string_lossy().contains("bpf_link") || name.to_string_lossy().contains("bpf-link"))
}

/// Checks that the pin at `path`, if there is one, is a map of this type and these sizes (in bytes).
pub(super) fn check_map(path: &Path, kind: u32, key: usize, value: usize) -> Result<(), BpfError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error(format!("looking at `{}`", path.display()), source)),
        Ok(_) => {}
    }
    let map = MapData::from_pin(path).map_err(|error| foreign(path, &format!("not a map: {error}")))?;
    let info: MapInfo = map.info().map_err(|error| foreign(path, &format!("not a map: {error}")))?;
    let found = info.map_type().unwrap_or(MapType::Unspecified) as u32;
    let (found_key, found_value) = (info.key_size() as usize, info.value_size() as usize);
    if (found, found_key, found_value) == (kind, key, value) {
        Ok(())
    } else {
        Err(foreign(path, &format!("a map of type {found} with keys of {found_key} and values of {found_value} bytes")))
    }
}

pub(super) fn foreign(path: &Path, found: &str) -> BpfError {
    BpfError::Foreign { path: path.into(), found: found.into() }
}
