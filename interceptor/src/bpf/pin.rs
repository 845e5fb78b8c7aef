//! Pins: attach-or-take-over for links, and the check that a pinned map is the one that it should be.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use aya::maps::{MapData, MapInfo, MapType};
use interceptor_common::LAYOUT;

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

/// The ids of the programs that were attached, by the names of their pins.
pub(super) type Programs = BTreeMap<&'static str, u32>;

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
/// program takes the place of the link's. Gives the program's id.
pub(super) fn attach(
    path: &Path,
    program: BorrowedFd<'_>,
    target: &Target<'_>,
    attach_type: u32,
) -> Result<u32, BpfError> {
    let failed = |what: &str, source| io_error(format!("{what} `{}`", path.display()), source);
    let id = sys::program_id(program).map_err(|source| failed("asking for the program of", source))?;
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
                sys::link_update(link.as_fd(), program).map_err(|source| failed("updating the link", source))?;
                return Ok(id);
            }
            // What the old link was for is gone (0) or isn't ours any more, as when the cgroup was made anew.
            if info.target() != 0 {
                return Err(foreign(path, &format!("a link on another cgroup or namespace, {}", info.target())));
            }
            true
        }
    };
    let link = sys::link_create(program, target.fd, attach_type).map_err(|source| failed("attaching", source))?;
    let pinned = if replace { pin_over(link.as_fd(), path) } else { sys::pin(link.as_fd(), path) };
    pinned.map(|()| id).map_err(|source| failed("pinning", source))
}

/// That there are no pins of another layout: their hooks would go on beside these, by maps that nobody fills any more.
pub(super) fn require_no_other(pins: &Path) -> Result<(), BpfError> {
    let entries = match std::fs::read_dir(pins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|source| io_error(format!("reading `{}`", pins.display()), source))?,
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let version = name.to_str().and_then(|name| name.strip_prefix('v'));
        let is_layout = version.is_some_and(|version| version.parse::<u32>().is_ok());
        if is_layout && name != LAYOUT {
            let found = format!(
                "what another version of Interceptor pinned, this one's layout is `{LAYOUT}`: end the workloads, then \
                 `interceptor uninstall --pins`"
            );
            return Err(foreign(&entry.path(), &found));
        }
    }
    Ok(())
}

/// Pins a link in the place of the one that is pinned there, so that there is always one: whoever is killed in between leaves
/// the one before.
pub(super) fn pin_over(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    // bpffs takes no names with dots.
    let mut aside = path.as_os_str().to_owned();
    aside.push("-new");
    if let Err(error) = std::fs::remove_file(&aside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    sys::pin(link, Path::new(&aside))?;
    std::fs::rename(&aside, path).inspect_err(|_| {
        // The link is no use there; that it stays does no harm either.
        let _ = std::fs::remove_file(&aside);
    })
}

/// Pins maps again whose pins are gone, so that what is attached anew has those that are in use.
pub(super) fn pin_again(folder: &Path, maps: &[(&'static str, OwnedFd)]) -> Result<(), BpfError> {
    for (name, map) in maps {
        let place = folder.join(name);
        if !place.exists() {
            sys::pin(map.as_fd(), &place)
                .map_err(|source| io_error(format!("pinning `{}`", place.display()), source))?;
        }
    }
    Ok(())
}

/// Opens the pins of maps.
pub(super) fn open_maps(
    folder: &Path,
    names: impl Iterator<Item = &'static str>,
) -> Result<Vec<(&'static str, OwnedFd)>, BpfError> {
    names
        .map(|name| Ok((name, sys::open(&folder.join(name))?)))
        .collect::<io::Result<_>>()
        .map_err(|source| io_error("opening the maps' pins".into(), source))
}

/// Whether the link that is pinned at `path` attaches this very program to the cgroup, and the program runs there.
pub(super) fn is_attached(path: &Path, target: &Target<'_>, attach_type: u32, program: Option<&u32>) -> bool {
    let Some(program) = program else { return false };
    let link = sys::open(path).and_then(|link| sys::link_info(link.as_fd()));
    let is_ours = link.is_ok_and(|link| {
        link.kind == target.kind.link_kind()
            && link.target() == target.id
            && link.attach_type() == attach_type
            && link.program == *program
    });
    is_ours && sys::attached(target.fd, attach_type, sys::Which::Effective).is_ok_and(|ids| ids.contains(program))
}

/// Whether the link that is pinned at `path` is a tracepoint's with this very program.
pub(super) fn is_tracing(path: &Path, program: Option<&u32>) -> bool {
    let link = sys::open(path).and_then(|link| sys::link_info(link.as_fd()));
    link.is_ok_and(|link| link.kind == sys::LINK_RAW_TRACEPOINT && Some(&link.program) == program)
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
