//! The hooks and the steering of launched workloads, watched: whether they are attached still, and attaching them again.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use aya::EbpfLoader;
use interceptor_common::{Origin as RawOrigin, OriginKey, SpaceKey};

use super::unix::Allowed;
use super::{BpfError, HOOKS, Kernel, STEER, UnixSockets, inode, io_error, load_program, pin, sys, unix};
use crate::ids::LaunchId;

/// The hooks on the workloads' parent.
const ATTACHED: [(&str, u32); 5] = [
    ("create", sys::ATTACH_SOCK_CREATE),
    ("egress", sys::ATTACH_EGRESS),
    ("connect4", sys::ATTACH_CONNECT4),
    ("connect6", sys::ATTACH_CONNECT6),
    ("publish", sys::ATTACH_SOCK_OPS),
];

/// Those that judge unix sockets, where the kernel has them.
const UNIX: [(&str, u32); 2] = [("unix_connect", sys::ATTACH_UNIX_CONNECT), ("unix_sendmsg", sys::ATTACH_UNIX_SENDMSG)];

/// The maps, by the names of their pins.
pub(super) const MAPS: [&str; 5] = ["processes", "origins", "networks", "spaces", "unix"];

/// What was attached.
pub(super) struct Hooked {
    /// The workloads' parent.
    pub(super) cgroup: OwnedFd,
    /// Its id.
    pub(super) id: u64,
    /// What becomes of unix sockets.
    pub(super) unix: UnixSockets,
    /// The map of those that are allowed.
    pub(super) allowed: Allowed,
}

/// Loads the hooks, with the pinned maps where there are, and attaches them to the workloads' parent. `programs` has those
/// that were attached also where it ends with an error.
pub(super) fn attach_hooks(root: &Path, workloads: &Path, programs: &mut pin::Programs) -> Result<Hooked, BpfError> {
    let cgroup =
        fs::File::open(workloads).map_err(|source| io_error(format!("opening `{}`", workloads.display()), source))?;
    let id = cgroup.metadata().map_err(|source| io_error("reading the cgroup's id".into(), source))?.ino();
    let target = pin::Target { fd: cgroup.as_fd(), kind: pin::Kind::Cgroup, id };

    let processes = root.join("processes");
    let origins = root.join("origins");
    let networks = root.join("networks");
    let spaces = root.join("spaces");
    pin::check_map(&spaces, sys::MAP_PERCPU_HASH, size_of::<SpaceKey>(), 8)?;
    pin::check_map(&networks, sys::MAP_SK_STORAGE, 4, 8)?;
    pin::check_map(&processes, sys::MAP_SK_STORAGE, 4, size_of::<RawOrigin>())?;
    pin::check_map(&origins, sys::MAP_LRU_HASH, size_of::<OriginKey>(), size_of::<RawOrigin>())?;
    let mut hooks = EbpfLoader::new()
        .map_pin_path("PROCESSES", processes)
        .map_pin_path("ORIGINS", origins)
        .map_pin_path("NETWORKS", networks)
        .map_pin_path("SPACES", spaces)
        .load(HOOKS)
        .map_err(|source| BpfError::Load { what: "hooks", source: Box::new(source) })?;
    for (name, attach_type) in ATTACHED {
        let program = load_program(&mut hooks, name)?;
        programs.insert(name, pin::attach(&root.join(name), program.as_fd(), &target, attach_type)?);
    }
    let spaces = sys::open(&root.join("spaces")).map_err(|source| io_error("opening `spaces`".into(), source))?;
    let (unix, allowed) = unix::attach(root, &target, spaces.as_fd(), programs)?;
    Ok(Hooked { cgroup: cgroup.into(), id, unix, allowed })
}

impl Kernel {
    /// Which of the hooks on the workloads' parent aren't attached any more, or aren't the programs that were attached.
    pub fn missing(&self) -> Vec<&'static str> {
        let programs = self.programs();
        let target = pin::Target { fd: self.cgroup.as_fd(), kind: pin::Kind::Cgroup, id: self.parent };
        let unix = UNIX.into_iter().filter(|_| self.unix != UnixSockets::Open);
        let gone = ATTACHED.into_iter().chain(unix).filter(|(name, attach_type)| {
            !pin::is_attached(&self.root.join(name), &target, *attach_type, programs.get(name))
        });
        gone.map(|(name, _)| name).collect()
    }

    /// Attaches them again to the workloads' parent, with the maps that there are.
    ///
    /// # Errors
    /// What the kernel said, also where it doesn't take the hooks on unix sockets any more.
    pub fn repair(&self, workloads: &Path) -> Result<(), BpfError> {
        let mut programs = self.programs();
        pin::make_folder(&self.root)?;
        pin::pin_again(&self.root, &self.pinned)?;
        let hooked = attach_hooks(&self.root, workloads, &mut programs)?;
        unix::as_before(self.unix, hooked.unix)
    }

    fn programs(&self) -> MutexGuard<'_, pin::Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a launch's connections are steered still, by the program that was attached.
    pub fn is_steered(&self, launch: LaunchId) -> bool {
        let program = self.steers.lock().unwrap_or_else(PoisonError::into_inner).get(&launch).copied();
        let link = sys::open(&self.folder(launch).join("link")).and_then(|link| sys::link_info(link.as_fd()));
        link.is_ok_and(|link| {
            link.kind == sys::LINK_NETNS
                && link.target() != 0
                && link.attach_type() == sys::ATTACH_SK_LOOKUP
                && Some(link.program) == program
        })
    }

    /// Steers a launch's connections again, to the listeners that it has.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn steer_again(&self, launch: LaunchId, netns: BorrowedFd<'_>) -> Result<(), BpfError> {
        let folder = self.folder(launch);
        let id = inode(netns).map_err(|source| io_error("looking at the network namespace".into(), source))?;
        let mut object = self
            .steering()
            .map_pin_path("LISTENERS", folder.join("listeners"))
            .map_pin_path("PORTS", folder.join("ports"))
            .load(STEER)
            .map_err(|source| BpfError::Load { what: "steer", source: Box::new(source) })?;
        let program = load_program(&mut object, "steer")?;
        let target = pin::Target { fd: netns, kind: pin::Kind::Netns, id };
        let program = pin::attach(&folder.join("link"), program.as_fd(), &target, sys::ATTACH_SK_LOOKUP)?;
        self.steers.lock().unwrap_or_else(PoisonError::into_inner).insert(launch, program);
        Ok(())
    }
}
