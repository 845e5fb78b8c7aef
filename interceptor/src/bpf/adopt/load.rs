//! Loading the hooks, attaching them to the root of cgroup2, and opening their maps.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuHashMap, SkStorage};
use aya::{Ebpf, EbpfLoader};
use interceptor_common::{
    DoorKey, Flow as RawFlow, Governed as RawGoverned, LAYOUT, OriginKey, PATH_BYTES, Place, PlaceKey, TallyKey,
    UnixKey,
};

use super::{Adopter, Maps};
use crate::bpf::{BpfError, UnixSockets, btf, io_error, load_program, map_error, mounts, pin, steer, sys, unix};

static ADOPT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/adopt"));

const TRACEPOINT: &std::ffi::CStr = c"cgroup_mkdir";

/// The id of the root of cgroup2, as a process outside of all cgroup namespaces sees it.
const ROOT_ID: u64 = 1;

const HOOKS: [(&str, u32); 11] = [
    ("publish", sys::ATTACH_SOCK_OPS),
    ("egress", sys::ATTACH_EGRESS),
    ("create", sys::ATTACH_SOCK_CREATE),
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
const MAPS: [(&str, &str, u32, usize, usize); 12] = [
    ("governed", "GOVERNED", sys::MAP_HASH, 8, size_of::<RawGoverned>()),
    ("levels", "LEVELS", sys::MAP_ARRAY, 4, 4),
    ("watched", "WATCHED", sys::MAP_LPM_TRIE, PATH_BYTES + 4, size_of::<RawGoverned>()),
    ("places", "PLACES", sys::MAP_HASH, size_of::<PlaceKey>(), size_of::<Place>()),
    ("doors", "DOORS", sys::MAP_HASH, size_of::<DoorKey>(), 4),
    ("flows", "FLOWS", sys::MAP_HASH, size_of::<OriginKey>(), size_of::<RawFlow>()),
    ("waiting", "WAITING", sys::MAP_HASH, 4, 8),
    ("steered", "STEERED", sys::MAP_SK_STORAGE, 4, size_of::<RawFlow>()),
    ("accepted", "ACCEPTED", sys::MAP_SK_STORAGE, 4, size_of::<RawFlow>()),
    ("ours", "OURS", sys::MAP_SK_STORAGE, 4, 4),
    ("inbound", "INBOUND", sys::MAP_SK_STORAGE, 4, 4),
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
        let mount = mounts::cgroup2()?;
        let (layout, root) = (pins.join(LAYOUT), pins.join(LAYOUT).join("adopt"));
        [pins, &layout, &root].into_iter().try_for_each(pin::make_folder)?;
        let cgroup = File::open(&mount).map_err(|source| io_error(format!("opening `{}`", mount.display()), source))?;
        let id = cgroup.metadata().map_err(|source| io_error("reading the cgroup's id".into(), source))?.ino();
        if id != ROOT_ID {
            return Err(BpfError::Mount(format!(
                "`{}` isn't the root of cgroup2 but of a cgroup namespace: run the daemon in the host's to adopt workloads",
                mount.display()
            )));
        }
        let mut object = load_object(&root)?;
        let target = pin::Target { fd: cgroup.as_fd(), kind: pin::Kind::Cgroup, id };
        for (name, attach_type) in HOOKS {
            let program = load_program(&mut object, name)?;
            pin::attach(&root.join(name), program.as_fd(), &target, attach_type)?;
        }
        let descriptor = |name: &'static str| {
            sys::open(&root.join(name)).map_err(|source| io_error(format!("opening `{name}`"), source))
        };
        let (governed, tallies) = (descriptor("governed")?, descriptor("tallies")?);
        let (unix, sockets) = unix::attach_adopted(&root, &target, governed.as_fd(), tallies.as_fd())?;
        let made = load_program(&mut object, "made")?;
        let link = sys::open_raw_tracepoint(made.as_fd(), TRACEPOINT)
            .map_err(|source| io_error("attaching to the tracepoint `cgroup_mkdir`".into(), source))?;
        // Links of tracepoints can't be updated; two of them do the same twice.
        let place = root.join("made");
        steer::gone(fs::remove_file(&place), &place)?;
        sys::pin(link.as_fd(), &place).map_err(|source| io_error(format!("pinning `{}`", place.display()), source))?;
        Self::open(root, unix, sockets)
    }

    fn open(root: PathBuf, unix: UnixSockets, sockets: HashMap<MapData, UnixKey, u8>) -> Result<Self, BpfError> {
        let map = |name: &'static str| MapData::from_pin(root.join(name)).map_err(|source| map_error(name, source));
        let maps = Maps {
            governed: hash(map("governed")?)?,
            levels: Array::try_from(Map::Array(map("levels")?)).map_err(|source| map_error("levels", source))?,
            watched: LpmTrie::try_from(Map::LpmTrie(map("watched")?)).map_err(|source| map_error("watched", source))?,
            places: hash(map("places")?)?,
            doors: hash(map("doors")?)?,
            sockets,
            ours: storage(map("ours")?)?,
            tallies: PerCpuHashMap::try_from(Map::PerCpuHashMap(map("tallies")?))
                .map_err(|source| map_error("tallies", source))?,
            deepest: 0,
        };
        Ok(Self {
            flows: map("flows")?,
            accepted: storage(map("accepted")?)?,
            steered: storage(map("steered")?)?,
            inbound: storage(map("inbound")?)?,
            maps: Mutex::new(maps),
            root,
            unix,
        })
    }
}

fn load_object(root: &Path) -> Result<Ebpf, BpfError> {
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
    ];
    let mut loader = EbpfLoader::new();
    for (name, at) in &places {
        loader.override_global(name, at, true);
    }
    for (pin_name, name, kind, key, value) in MAPS {
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
