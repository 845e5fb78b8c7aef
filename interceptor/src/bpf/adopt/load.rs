//! Loading the hooks, attaching them to the root of cgroup2, and opening their maps.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuHashMap, SkStorage};
use aya::{Ebpf, EbpfLoader};
use interceptor_common::{
    DoorKey, Flow as RawFlow, Governed as RawGoverned, LAYOUT, OriginKey, PATH_BYTES, Place, PlaceKey, TallyKey,
    Watched as RawWatched,
};

use super::{Adopter, Maps};
use crate::bpf::{BpfError, UnixSockets, btf, io_error, load_program, map_error, mounts, pin, sys, unix};

static ADOPT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/adopt"));

/// The programs on tracepoints.
pub(super) const TRACEPOINTS: [(&str, &std::ffi::CStr); 3] =
    [("made", c"cgroup_mkdir"), ("released", c"cgroup_release"), ("changed", c"inet_sock_set_state")];

/// The id of the root of cgroup2, as a process outside of all cgroup namespaces sees it.
const ROOT_ID: u64 = 1;

const HOOKS: [(&str, u32); 15] = [
    ("publish", sys::ATTACH_SOCK_OPS),
    ("egress", sys::ATTACH_EGRESS),
    ("create", sys::ATTACH_SOCK_CREATE),
    ("device", sys::ATTACH_DEVICE),
    ("option", sys::ATTACH_SETSOCKOPT),
    ("bind4", sys::ATTACH_BIND4),
    ("bind6", sys::ATTACH_BIND6),
    ("recvmsg4", sys::ATTACH_RECVMSG4),
    ("recvmsg6", sys::ATTACH_RECVMSG6),
    ("getpeername4", sys::ATTACH_GETPEERNAME4),
    ("getpeername6", sys::ATTACH_GETPEERNAME6),
    ("sendmsg4", sys::ATTACH_SENDMSG4),
    ("sendmsg6", sys::ATTACH_SENDMSG6),
    ("connect4", sys::ATTACH_CONNECT4),
    ("connect6", sys::ATTACH_CONNECT6),
];

/// The maps, by the names of their pins: the name in the object, the kernel's type, the sizes of key and value.
const MAPS: [(&str, &str, u32, usize, usize); 14] = [
    ("governed", "GOVERNED", sys::MAP_HASH, 8, size_of::<RawGoverned>()),
    ("levels", "LEVELS", sys::MAP_ARRAY, 4, 4),
    ("missed", "MISSED", sys::MAP_ARRAY, 4, 8),
    ("watched", "WATCHED", sys::MAP_LPM_TRIE, PATH_BYTES + 4, size_of::<RawWatched>()),
    ("places", "PLACES", sys::MAP_HASH, size_of::<PlaceKey>(), size_of::<Place>()),
    ("doors", "DOORS", sys::MAP_HASH, size_of::<DoorKey>(), 4),
    ("flows", "FLOWS", sys::MAP_HASH, size_of::<OriginKey>(), size_of::<RawFlow>()),
    ("waiting", "WAITING", sys::MAP_HASH, 4, 8),
    ("steered", "STEERED", sys::MAP_SK_STORAGE, 4, size_of::<RawFlow>()),
    ("accepted", "ACCEPTED", sys::MAP_SK_STORAGE, 4, size_of::<RawFlow>()),
    ("ours", "OURS", sys::MAP_SK_STORAGE, 4, 4),
    ("inbound", "INBOUND", sys::MAP_SK_STORAGE, 4, 4),
    ("connecting", "CONNECTING", sys::MAP_LRU_HASH, 8, 4),
    ("tallies", "TALLIES", sys::MAP_PERCPU_HASH, size_of::<TallyKey>(), 8),
];

impl Adopter {
    /// Loads the hooks and attaches them to the root of cgroup2, or takes over what an earlier daemon left under `pins`.
    ///
    /// # Errors
    /// [`BpfError::Mount`] when the daemon sees only a part of cgroup2, or what the kernel said.
    pub fn load(pins: &Path) -> Result<Self, BpfError> {
        if ADOPT.is_empty() {
            return Err(BpfError::NotBuilt);
        }
        mounts::require_bpffs(pins)?;
        let (layout, root) = (pins.join(LAYOUT), pins.join(LAYOUT).join("adopt"));
        [pins, &layout, &root].into_iter().try_for_each(pin::make_folder)?;
        let mut programs = pin::Programs::new();
        let hooked = attach_all(&root, &mut programs)?;
        Self::open(root, hooked, programs)
    }

    /// Which of the hooks aren't attached any more, or aren't the programs that were attached.
    pub fn missing(&self) -> Vec<&'static str> {
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let target = pin::Target { fd: self.cgroup.as_fd(), kind: pin::Kind::Cgroup, id: ROOT_ID };
        let unix = [("unix_connect", sys::ATTACH_UNIX_CONNECT), ("unix_sendmsg", sys::ATTACH_UNIX_SENDMSG)];
        let unix = unix.into_iter().filter(|_| self.unix != UnixSockets::Open);
        let on_cgroup = HOOKS.into_iter().chain(unix).filter(|(name, attach_type)| {
            !pin::is_attached(&self.root.join(name), &target, *attach_type, programs.get(name))
        });
        let names = TRACEPOINTS.into_iter().map(|(name, _)| name);
        let traced = names.filter(|name| !pin::is_tracing(&self.root.join(name), programs.get(name)));
        on_cgroup.map(|(name, _)| name).chain(traced).collect()
    }

    /// The programs of others that rewrite connects for the whole host, by name: Cilium's, for one. What runs after ours sees
    /// what ours has written, and could write something else.
    pub fn others(pins: &Path) -> Vec<String> {
        let root = pins.join(LAYOUT).join("adopt");
        let Ok(cgroup) = mounts::cgroup2().and_then(|mount| {
            File::open(&mount).map_err(|source| io_error(format!("opening `{}`", mount.display()), source))
        }) else {
            return Vec::new();
        };
        let rewriting = [sys::ATTACH_CONNECT4, sys::ATTACH_CONNECT6, sys::ATTACH_SENDMSG4, sys::ATTACH_SENDMSG6];
        let mut ids: Vec<u32> = rewriting
            .into_iter()
            .flat_map(|attach_type| sys::attached(cgroup.as_fd(), attach_type, sys::Which::Own).unwrap_or_default())
            .collect();
        let ours = HOOKS.iter().filter_map(|(name, _)| {
            let link = sys::open(&root.join(name)).ok()?;
            sys::link_info(link.as_fd()).ok().map(|link| link.program)
        });
        let ours: Vec<u32> = ours.collect();
        ids.retain(|id| !ours.contains(id));
        if ids.is_empty() {
            return Vec::new();
        }
        let programs = aya::programs::loaded_programs().flatten().filter(|program| ids.contains(&program.id()));
        let mut names: Vec<String> = programs
            .map(|program| format!("{} (id {})", program.name_as_str().unwrap_or("unnamed"), program.id()))
            .collect();
        names.sort();
        names
    }

    /// Tries whether this kernel takes the hooks; why it doesn't. Nothing is attached or pinned.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn probe() -> Result<(), BpfError> {
        if ADOPT.is_empty() {
            return Err(BpfError::NotBuilt);
        }
        let mut object = load_object(None)?;
        for name in HOOKS.into_iter().map(|(name, _)| name).chain(TRACEPOINTS.into_iter().map(|(name, _)| name)) {
            let program = load_program(&mut object, name)?;
            if let Some((_, tracepoint)) = TRACEPOINTS.into_iter().find(|(traced, _)| *traced == name) {
                sys::open_raw_tracepoint(program.as_fd(), tracepoint)
                    .map_err(|source| io_error(format!("attaching to the tracepoint {tracepoint:?}"), source))?;
            }
        }
        Ok(())
    }

    /// Attaches what isn't attached any more, with the maps that there are.
    ///
    /// # Errors
    /// As [`load`](Self::load), also where the kernel doesn't take the hooks on unix sockets any more.
    pub fn repair(&self) -> Result<(), BpfError> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        for folder in [self.root.parent(), Some(self.root.as_path())].into_iter().flatten() {
            pin::make_folder(folder)?;
        }
        pin::pin_again(&self.root, &self.pinned)?;
        let hooked = attach_all(&self.root, &mut programs)?;
        unix::as_before(self.unix, hooked.unix)
    }

    fn open(root: PathBuf, hooked: Hooked, programs: pin::Programs) -> Result<Self, BpfError> {
        let Hooked { cgroup, unix, sockets } = hooked;
        let map = |name: &'static str| MapData::from_pin(root.join(name)).map_err(|source| map_error(name, source));
        let failed = |source| map_error("levels", source);
        let levels: Array<MapData, u32> = Array::try_from(Map::Array(map("levels")?)).map_err(failed)?;
        // What an earlier daemon governed stays so, and has to be looked for.
        let deepest = levels.get(&0, 0).map_err(failed)?;
        let maps = Maps {
            governed: hash(map("governed")?)?,
            levels,
            missed: Array::try_from(Map::Array(map("missed")?)).map_err(|source| map_error("missed", source))?,
            watched: LpmTrie::try_from(Map::LpmTrie(map("watched")?)).map_err(|source| map_error("watched", source))?,
            places: hash(map("places")?)?,
            doors: hash(map("doors")?)?,
            waiting: hash(map("waiting")?)?,
            sockets,
            ours: storage(map("ours")?)?,
            answering: storage(map("inbound")?)?,
            tallies: PerCpuHashMap::try_from(Map::PerCpuHashMap(map("tallies")?))
                .map_err(|source| map_error("tallies", source))?,
            deepest,
        };
        Ok(Self {
            flows: hash(map("flows")?)?,
            accepted: storage(map("accepted")?)?,
            steered: storage(map("steered")?)?,
            inbound: storage(map("inbound")?)?,
            maps: Mutex::new(maps),
            pinned: pin::open_maps(&root, MAPS.iter().map(|(name, ..)| *name).chain(["unix"]))?,
            root,
            unix,
            cgroup,
            programs: Mutex::new(programs),
        })
    }
}

/// What was attached.
struct Hooked {
    /// The root of cgroup2.
    cgroup: OwnedFd,
    /// What becomes of unix sockets.
    unix: UnixSockets,
    /// The map of those that are allowed.
    sockets: unix::Allowed,
}

/// Loads the object, with the pinned maps where there are, and attaches all of its programs; the ones before make way without a
/// gap. `programs` has those that were attached also where it ends with an error.
fn attach_all(root: &Path, programs: &mut pin::Programs) -> Result<Hooked, BpfError> {
    let mount = mounts::cgroup2()?;
    let cgroup = File::open(&mount).map_err(|source| io_error(format!("opening `{}`", mount.display()), source))?;
    let id = cgroup.metadata().map_err(|source| io_error("reading the cgroup's id".into(), source))?.ino();
    if id != ROOT_ID {
        return Err(BpfError::Mount(format!(
            "`{}` isn't the root of cgroup2 but of a cgroup namespace: run the daemon in the host's to adopt workloads",
            mount.display()
        )));
    }
    let mut object = load_object(Some(root))?;
    let target = pin::Target { fd: cgroup.as_fd(), kind: pin::Kind::Cgroup, id };
    for (name, attach_type) in HOOKS {
        let program = load_program(&mut object, name)?;
        programs.insert(name, pin::attach(&root.join(name), program.as_fd(), &target, attach_type)?);
    }
    let descriptor = |name: &'static str| {
        sys::open(&root.join(name)).map_err(|source| io_error(format!("opening `{name}`"), source))
    };
    let (governed, levels) = (descriptor("governed")?, descriptor("levels")?);
    let (missed, tallies) = (descriptor("missed")?, descriptor("tallies")?);
    let whose = unix::Adopted {
        governed: governed.as_fd(),
        levels: levels.as_fd(),
        missed: missed.as_fd(),
        tallies: tallies.as_fd(),
    };
    let (unix, sockets) = unix::attach_adopted(root, &target, whose, programs)?;
    for (name, tracepoint) in TRACEPOINTS {
        programs.insert(name, trace(&mut object, &root.join(name), name, tracepoint)?);
    }
    Ok(Hooked { cgroup: cgroup.into(), unix, sockets })
}

/// Attaches a program to a tracepoint and pins the link; gives the program's id. Links of tracepoints can't be updated: the one
/// before goes when the new one is there, and what both see counts once, because they share their maps.
fn trace(object: &mut Ebpf, place: &Path, name: &'static str, tracepoint: &std::ffi::CStr) -> Result<u32, BpfError> {
    let program = load_program(object, name)?;
    let link = sys::open_raw_tracepoint(program.as_fd(), tracepoint)
        .map_err(|source| io_error(format!("attaching to the tracepoint {tracepoint:?}"), source))?;
    pin::pin_over(link.as_fd(), place)
        .and_then(|()| sys::program_id(program.as_fd()))
        .map_err(|source| io_error(format!("pinning `{}`", place.display()), source))
}

/// Loads the object; its maps are those that are pinned below `root`, if there is one.
fn load_object(root: Option<&Path>) -> Result<Ebpf, BpfError> {
    let types = fs::read("/sys/kernel/btf/vmlinux")
        .map_err(|source| io_error("reading `/sys/kernel/btf/vmlinux`".into(), source))?;
    let at = |structure, member| {
        btf::member_offset(&types, structure, member).and_then(|at| u32::try_from(at).ok()).ok_or_else(|| {
            io_error(
                format!("looking for `{structure}.{member}` in the kernel's types"),
                io::ErrorKind::NotFound.into(),
            )
        })
    };
    let places = [
        ("ROOT_AT", at("cgroup", "root")?),
        ("NODE_AT", at("cgroup", "kn")?),
        ("HIERARCHY_AT", at("cgroup_root", "hierarchy_id")?),
        ("ID_AT", at("kernfs_node", "id")?),
        ("SELF_AT", at("cgroup", "self")?),
        ("LEVEL_AT", at("cgroup", "level")?),
        ("PARENT_AT", at("cgroup_subsys_state", "parent")?),
    ];
    let mut loader = EbpfLoader::new();
    for (name, at) in &places {
        loader.override_global(name, at, true);
    }
    for (root, (pin_name, name, kind, key, value)) in root.into_iter().flat_map(|root| MAPS.map(|map| (root, map))) {
        let path = root.join(pin_name);
        pin::check_map(&path, kind, key, value)?;
        loader.map_pin_path(name, path);
    }
    loader.load(ADOPT).map_err(|source| BpfError::Load { what: "adopt", source: Box::new(source) })
}

fn hash<K: aya::Pod, V: aya::Pod>(map: MapData) -> Result<HashMap<MapData, K, V>, BpfError> {
    HashMap::try_from(Map::HashMap(map)).map_err(|source| map_error("adopt", source))
}

fn storage<V: aya::Pod>(map: MapData) -> Result<SkStorage<MapData, V>, BpfError> {
    SkStorage::try_from(Map::SkStorage(map)).map_err(|source| map_error("adopt", source))
}
