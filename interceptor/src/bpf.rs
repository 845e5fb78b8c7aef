//! The kernel half, from user space: loading the eBPF programs, attaching and pinning them so that they outlive the
//! daemon, and the maps that both halves share.
//!
//! Under `<pins>/v1/` on a bpffs (the version is that of the maps' layout): the links and maps of the hooks on the
//! workloads' parent cgroup, and one folder `wl_…` for each launched workload with the link, the listeners and the
//! steered loopback ports of its network namespace. A daemon that starts takes over what is there: it puts its
//! listeners into the pinned maps and swaps the programs under the pinned links (`BPF_LINK_UPDATE`), so that there is no
//! moment without a program. A pin that isn't what it should be is an error, never replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aya::include_bytes_aligned;
use aya::maps::{Map, MapData, MapError, PerCpuHashMap, PerCpuValues};
use aya::{Ebpf, EbpfError, EbpfLoader};
use interceptor_common::{LAYOUT, Origin as RawOrigin, OriginKey, SpaceKey};

use crate::ids::LaunchId;

pub mod adopt;
mod btf;
mod filters;
pub mod mounts;
mod pin;
mod probe;
mod steer;
mod sys;
mod unix;
mod watch;

pub use filters::FilterReader;
pub use interceptor_common::{Fate, Kind};
pub use mounts::cgroup2;
pub use probe::{Finding, probe};
pub use steer::Listeners;
pub use sys::{netns_cookie, waiting_at};
pub use unix::UnixSockets;

static STEER: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer"));
static HOOKS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hooks"));

/// Why the kernel half isn't as it should be.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The binary was built with AYA_BUILD_SKIP.
    #[error("this binary was built without its eBPF half; build it without AYA_BUILD_SKIP")]
    NotBuilt,
    /// cgroup2 or bpffs isn't mounted, or a path isn't on it.
    #[error("{0}")]
    Mount(String),
    /// A pin exists, but isn't ours.
    #[error("`{}` is not what it should be ({found}); if no other program needs it, remove it and start again", path.display())]
    Foreign {
        /// The pin.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The kernel refused a program or a map.
    #[error("the kernel refused `{what}`; `interceptor doctor` tells what it lacks")]
    Load {
        /// The program or object.
        what: &'static str,
        /// What the loader says.
        source: Box<EbpfError>,
    },
    /// A map couldn't be used.
    #[error("the map `{what}` could not be used")]
    Map {
        /// The map.
        what: &'static str,
        /// What the kernel says.
        source: Box<MapError>,
    },
    /// There is no room for another governed cgroup.
    #[error("no more than {most} cgroups can be governed at once; adopt fewer, or remove some of them")]
    Full {
        /// How many there can be.
        most: u32,
    },
    /// A bpf command or a file operation failed.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Who connected a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The process id, in the initial PID namespace.
    pub pid: u32,
    /// The thread that called connect, likewise.
    pub tid: u32,
    /// Its real uid.
    pub uid: u32,
    /// What the kernel calls it: evidence only.
    pub comm: String,
}

impl From<RawOrigin> for Origin {
    fn from(raw: RawOrigin) -> Self {
        let comm = raw.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Self { pid: raw.pid, tid: raw.tid, uid: raw.uid, comm: String::from_utf8_lossy(comm).into_owned() }
    }
}

/// The loaded kernel half. Dropping it detaches nothing: links and maps stay pinned.
pub struct Kernel {
    root: PathBuf,
    /// The workloads' parent, and its id.
    cgroup: OwnedFd,
    parent: u64,
    /// The programs that are attached to it.
    programs: Mutex<pin::Programs>,
    /// The programs that steer launches.
    steers: Mutex<BTreeMap<LaunchId, u32>>,
    /// All maps, to be pinned again where a pin is gone.
    pinned: Vec<(&'static str, OwnedFd)>,
    /// Kept because making one reads all of the kernel's BTF.
    steering: Mutex<EbpfLoader<'static>>,
    origins: MapData,
    spaces: Mutex<PerCpuHashMap<MapData, SpaceKey, u64>>,
    allowed: Mutex<unix::Allowed>,
    /// The namespaces of the launches that were steered, by their cookies.
    cookies: Mutex<BTreeMap<LaunchId, u64>>,
    unix: UnixSockets,
}

impl Kernel {
    /// Loads the hooks and attaches them to `workloads`, the long-lived parent of all workloads' cgroups; takes over
    /// what an earlier daemon left under `pins`.
    ///
    /// # Errors
    /// [`BpfError::Foreign`] also where what is pinned has another layout, or what the kernel said.
    pub fn load(pins: &Path, workloads: &Path) -> Result<Self, BpfError> {
        if STEER.is_empty() || HOOKS.is_empty() {
            return Err(BpfError::NotBuilt);
        }
        mounts::require_bpffs(pins)?;
        mounts::require_cgroup2(workloads)?;
        let root = pins.join(LAYOUT);
        pin::require_no_other(pins)?;
        pin::make_folder(pins)?;
        pin::make_folder(&root)?;

        let mut programs = pin::Programs::new();
        let watch::Hooked { cgroup, id, unix, allowed } = watch::attach_hooks(&root, workloads, &mut programs)?;
        let pinned = pin::open_maps(&root, watch::MAPS.into_iter())?;
        let origins = MapData::from_pin(root.join("origins")).map_err(|source| map_error("origins", source))?;
        let failed = |source| map_error("spaces", source);
        let spaces = MapData::from_pin(root.join("spaces")).map_err(failed)?;
        let spaces = Mutex::new(PerCpuHashMap::try_from(Map::PerCpuHashMap(spaces)).map_err(failed)?);

        let mut steering = EbpfLoader::new();
        steering.btf(None);
        Ok(Self {
            root,
            cgroup,
            parent: id,
            programs: Mutex::new(programs),
            steers: Mutex::default(),
            pinned,
            steering: Mutex::new(steering),
            origins,
            spaces,
            allowed: Mutex::new(allowed),
            cookies: Mutex::default(),
            unix,
        })
    }

    /// What becomes of connects to pathname unix sockets under this kernel.
    pub fn unix_sockets(&self) -> UnixSockets {
        self.unix
    }

    /// Who connected `peer` to `original` in the network namespace with this cookie; `None` if no hook saw it. Answers
    /// once: the entry is gone then.
    pub fn origin(&self, netns_cookie: u64, peer: SocketAddr, original: SocketAddr) -> Option<Origin> {
        let key = OriginKey {
            netns: netns_cookie,
            local: words(peer.ip()),
            remote: words(original.ip()),
            local_port: u32::from(peer.port()),
            remote_port: u32::from(original.port()),
        };
        let found: RawOrigin = sys::lookup_and_delete(self.origins.fd().as_fd(), &key).ok()?;
        Some(found.into())
    }

    /// How often what a launched workload tried came to this, as the hooks saw it; for the ledger.
    ///
    /// # Errors
    /// What the kernel said; that it never happened is none.
    pub fn attempts(&self, launch: LaunchId, kind: Kind, fate: Fate) -> Result<u64, BpfError> {
        let cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(netns) = cookies.get(&launch).copied() else { return Ok(0) };
        let spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        match spaces.get(&space_key(netns, kind, fate), 0) {
            Ok(counts) => Ok(counts.iter().sum()),
            Err(MapError::KeyNotFound) => Ok(0),
            Err(source) => Err(map_error("spaces", source)),
        }
    }

    /// Says which network namespace a launch had that isn't steered by this daemon: one that an earlier daemon left.
    pub fn know(&self, launch: LaunchId, netns: u64) {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner).insert(launch, netns);
    }

    /// The network namespaces, by their cookies, for which the maps hold allowed unix sockets or counts.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn spaces(&self) -> Result<BTreeSet<u64>, BpfError> {
        let allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = allowed.keys().map(|key| key.map(|key| key.netns));
        let mut found: BTreeSet<u64> = sockets.collect::<Result<_, _>>().map_err(|source| map_error("unix", source))?;
        let spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        for key in spaces.keys() {
            found.insert(key.map_err(|source| map_error("spaces", source))?.netns);
        }
        Ok(found)
    }

    /// Forgets what the maps hold for network namespaces of no launch that is known: of those that ended while no daemon ran.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn sweep(&self) -> Result<(), BpfError> {
        let known: BTreeSet<u64> =
            self.cookies.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect();
        for netns in self.spaces()?.difference(&known) {
            self.allow_unix(*netns, &[])?;
            self.forget_connects(*netns);
        }
        Ok(())
    }

    /// Makes room for the counts of a network namespace's unix sockets, whose hooks can't make it.
    fn make_room(&self, netns: u64) -> Result<(), BpfError> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        for key in [Fate::Refused, Fate::Allowed].map(|fate| space_key(netns, Kind::Unix, fate)) {
            if spaces.get(&key, 0).is_err() {
                spaces.insert(key, zeros()?, 0).map_err(|source| map_error("spaces", source))?;
            }
        }
        Ok(())
    }

    /// Forgets the counts of a network namespace that has ended.
    fn forget_connects(&self, netns: u64) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<SpaceKey> = spaces.keys().flatten().filter(|key| key.netns == netns).collect();
        for key in keys {
            // It may be gone already.
            let _ = spaces.remove(&key);
        }
    }

    fn steering(&self) -> std::sync::MutexGuard<'_, EbpfLoader<'static>> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, launch: LaunchId) -> PathBuf {
        self.root.join(launch.to_string())
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("root", &self.root).field("unix", &self.unix).finish_non_exhaustive()
    }
}

/// Loads one program of an object and gives its descriptor.
fn load_program(object: &mut Ebpf, name: &'static str) -> Result<aya::programs::ProgramFd, BpfError> {
    use aya::programs::{Program, ProgramError};

    let load = |program: Option<&mut Program>| match program {
        Some(Program::SkLookup(program)) => {
            program.load().and_then(|()| program.fd()?.try_clone().map_err(ProgramError::IOError))
        }
        Some(Program::CgroupSockAddr(program)) => {
            program.load().and_then(|()| program.fd()?.try_clone().map_err(ProgramError::IOError))
        }
        Some(Program::CgroupSock(program)) => {
            program.load().and_then(|()| program.fd()?.try_clone().map_err(ProgramError::IOError))
        }
        Some(Program::CgroupDevice(program)) => {
            program.load().and_then(|()| program.fd()?.try_clone().map_err(ProgramError::IOError))
        }
        Some(Program::CgroupSockopt(program)) => {
            program.load().and_then(|()| program.fd()?.try_clone().map_err(ProgramError::IOError))
        }
        Some(Program::CgroupSkb(program)) => {
            program.load().and_then(|()| program.fd()?.try_clone().map_err(ProgramError::IOError))
        }
        Some(Program::RawTracePoint(program)) => {
            program.load().and_then(|()| program.fd()?.try_clone().map_err(ProgramError::IOError))
        }
        Some(Program::SockOps(program)) => {
            program.load().and_then(|()| program.fd()?.try_clone().map_err(ProgramError::IOError))
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    load(object.program_mut(name))
        .map_err(|source| BpfError::Load { what: name, source: Box::new(EbpfError::ProgramError(source)) })
}

fn space_key(netns: u64, kind: Kind, fate: Fate) -> SpaceKey {
    SpaceKey { netns, what: kind as u32 | ((fate as u32) << 16), padding: 0 }
}

/// A count of nothing.
fn zeros() -> Result<PerCpuValues<u64>, BpfError> {
    let count = aya::util::nr_cpus().map_err(|(_, source)| io_error("counting the processors".into(), source))?;
    PerCpuValues::try_from(vec![0; count]).map_err(|source| io_error("making a count".into(), source))
}

/// An address as the hooks write it.
fn words(address: IpAddr) -> [u32; 4] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let word = |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

fn io_error(what: String, source: io::Error) -> BpfError {
    BpfError::Io { what, source }
}

fn map_error(what: &'static str, source: MapError) -> BpfError {
    BpfError::Map { what, source: Box::new(source) }
}

/// The inode that names a namespace or a cgroup.
fn inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_ino)
}

#[cfg(test)]
mod tests;
