//! Adopted workloads, from user space: the hooks on the root of cgroup2, which cgroups they govern, and where the daemon
//! listens for them. Pinned in a folder of their own below the launched workloads' pins; a daemon that adopts nothing
//! doesn't load them.
//!
//! A cgroup is governed by its id, or by its path from the moment it is made: a tracepoint sees to that, so that a unit
//! that restarts is never without.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuHashMap, SkStorage};
use interceptor_common::{
    DEEPEST_LEVEL, DoorKey, Fate, Flow as RawFlow, GOVERNED_MOST, Governed as RawGoverned, Kind, LAYOUT, OriginKey,
    PATH_BYTES, Place, PlaceKey, STATE_REFUSED, STATE_STEERED, TallyKey, Watched as RawWatched,
};

use super::pin::Programs;
use super::{BpfError, Origin, UnixSockets, io_error, map_error, words, zeros};

mod load;
mod missed;
mod watch;

pub use missed::Missed;
pub use watch::Watched;

/// A number that stands for an adopted workload in the kernel.
pub type Number = u32;

/// What becomes of a governed cgroup's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing passes.
    Refused,
    /// Connections go to the daemon.
    Steered,
}

impl State {
    fn raw(self, workload: Number) -> RawGoverned {
        let state = if self == State::Refused { STATE_REFUSED } else { STATE_STEERED };
        RawGoverned { workload, state }
    }
}

/// Where a steered connection was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The workload.
    pub workload: Number,
    /// Who connected.
    pub origin: Origin,
    /// Where to.
    pub original: SocketAddr,
    /// The cookie of the connecting socket.
    pub cookie: u64,
}

/// A count of the kernel's side of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The workload.
    pub workload: Number,
    /// `interceptor_common::Kind`, as a number.
    pub kind: u32,
    /// `interceptor_common::Fate`, as a number.
    pub fate: u32,
    /// How often.
    pub count: u64,
}

/// The daemon's sockets for a workload in a network namespace, all on its 127.0.0.1 and ::1.
#[derive(Debug, Clone, Copy)]
pub struct Doors<'a> {
    /// Takes IPv4 connections.
    pub tcp4: &'a TcpListener,
    /// Takes IPv6 connections.
    pub tcp6: &'a TcpListener,
    /// Takes DNS questions over IPv4.
    pub dns4: &'a UdpSocket,
    /// Takes DNS questions over IPv6.
    pub dns6: &'a UdpSocket,
}

/// The loaded hooks. Dropping it detaches nothing.
pub struct Adopter {
    root: PathBuf,
    maps: Mutex<Maps>,
    flows: HashMap<MapData, OriginKey, RawFlow>,
    accepted: SkStorage<MapData, RawFlow>,
    steered: SkStorage<MapData, RawFlow>,
    inbound: SkStorage<MapData, u32>,
    unix: UnixSockets,
    /// The root of cgroup2.
    cgroup: OwnedFd,
    /// The programs that are attached to it, and to tracepoints.
    programs: Mutex<Programs>,
    /// All maps, to be pinned again where a pin is gone.
    pinned: Vec<(&'static str, OwnedFd)>,
}

struct Maps {
    governed: HashMap<MapData, u64, RawGoverned>,
    levels: Array<MapData, u32>,
    missed: Array<MapData, u64>,
    watched: LpmTrie<MapData, [u8; PATH_BYTES], RawWatched>,
    places: HashMap<MapData, PlaceKey, Place>,
    doors: HashMap<MapData, DoorKey, u32>,
    ours: SkStorage<MapData, u32>,
    /// The same map as [`Adopter::inbound`], to be written.
    answering: SkStorage<MapData, u32>,
    waiting: HashMap<MapData, u32, u64>,
    /// The pathname unix sockets that workloads may connect to.
    sockets: super::unix::Allowed,
    tallies: PerCpuHashMap<MapData, TallyKey, u64>,
    /// The levels at which something was ever governed, also those that nothing watches any more.
    deepest: u32,
}

impl Maps {
    /// Lets go of the ports of a place that was given up. The kernel may have given them to another one meanwhile, and a port
    /// of IPv4's may be another one's of IPv6.
    fn shut(&mut self, netns: u64, before: Place) -> Result<(), BpfError> {
        let places = self.places.iter().collect::<Result<Vec<_>, _>>().map_err(|source| map_error("places", source))?;
        let held: Vec<DoorKey> = places
            .into_iter()
            .filter(|(key, _)| key.netns == netns)
            .flat_map(|(_, place)| door_keys(netns, place))
            .collect();
        for key in door_keys(netns, before).iter().filter(|key| !held.contains(key)) {
            gone(self.doors.remove(key)).map_err(|source| map_error("doors", source))?;
        }
        Ok(())
    }
}

/// That something to remove isn't there is as good.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Adopter {
    /// What becomes of connects to unix sockets under this kernel.
    pub fn unix_sockets(&self) -> UnixSockets {
        self.unix
    }

    /// Replaces the pathname unix sockets that a workload may connect to, and makes room for the counts of the others.
    ///
    /// # Errors
    /// A path that no socket can have, or what the kernel said.
    pub fn allow_unix(&self, workload: Number, paths: &[PathBuf]) -> Result<(), BpfError> {
        let mut maps = self.maps();
        super::unix::replace(&mut maps.sockets, u64::from(workload), paths)?;
        for fate in [Fate::Refused, Fate::Allowed] {
            let key = TallyKey { workload, what: Kind::Unix as u32 | ((fate as u32) << 16) };
            if maps.tallies.get(&key, 0).is_err() {
                maps.tallies.insert(key, zeros()?, 0).map_err(|source| map_error("tallies", source))?;
            }
        }
        Ok(())
    }

    /// Whether an earlier daemon left hooks under `pins`.
    pub fn is_left(pins: &Path) -> bool {
        pins.join(LAYOUT).join("adopt").is_dir()
    }

    /// Governs a cgroup that is there, by its path below `cgroup2` and its id (its inode); or changes what becomes of it.
    ///
    /// # Errors
    /// A path that is too deep, [`BpfError::Full`], or what the kernel said.
    pub fn govern(&self, path: &str, id: u64, workload: Number, state: State) -> Result<(), BpfError> {
        let mut maps = self.maps();
        maps.deepest |= 1 << level(path)?;
        let levels = maps.deepest;
        maps.levels.set(0, levels, 0).map_err(|source| map_error("levels", source))?;
        maps.governed.insert(id, state.raw(workload), 0).map_err(|source| match source {
            MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                BpfError::Full { most: GOVERNED_MOST }
            }
            source => map_error("governed", source),
        })
    }

    /// Governs a cgroup no longer.
    ///
    /// # Errors
    /// What the kernel said; that it wasn't governed is none.
    pub fn forget(&self, id: u64) -> Result<(), BpfError> {
        gone(self.maps().governed.remove(&id)).map_err(|source| map_error("governed", source))
    }

    /// What is governed: the cgroups' ids with their workloads, whether they are refused.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn governed(&self) -> Result<BTreeMap<u64, (Number, State)>, BpfError> {
        let failed = |source| map_error("governed", source);
        let state = |raw: RawGoverned| if raw.state == STATE_STEERED { State::Steered } else { State::Refused };
        let maps = self.maps();
        maps.governed
            .iter()
            .map(|entry| entry.map(|(id, raw)| (id, (raw.workload, state(raw)))).map_err(failed))
            .collect()
    }

    /// Sends a workload's connections in the network namespace with this cookie to these sockets.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open_doors(&self, workload: Number, netns: u64, doors: &Doors<'_>) -> Result<(), BpfError> {
        let port = |address: io::Result<SocketAddr>| {
            address
                .map(|address| address.port())
                .map_err(|source| io_error("asking for a socket's port".into(), source))
        };
        let place = Place {
            tcp4: port(doors.tcp4.local_addr())?,
            tcp6: port(doors.tcp6.local_addr())?,
            dns4: port(doors.dns4.local_addr())?,
            dns6: port(doors.dns6.local_addr())?,
        };
        let mut maps = self.maps();
        let ours = &mut maps.ours;
        let mut tag = |socket: &dyn AsRawFd| {
            ours.insert(&socket.as_raw_fd(), workload, 0).map_err(|source| map_error("ours", source))
        };
        tag(doors.tcp4)?;
        tag(doors.tcp6)?;
        tag(doors.dns4)?;
        tag(doors.dns6)?;
        let before = maps.places.get(&PlaceKey { netns, workload, padding: 0 }, 0).ok();
        for key in door_keys(netns, place) {
            maps.doors.insert(key, workload, 0).map_err(|source| map_error("doors", source))?;
        }
        maps.places
            .insert(PlaceKey { netns, workload, padding: 0 }, place, 0)
            .map_err(|source| map_error("places", source))?;
        before.map_or(Ok(()), |before| maps.shut(netns, before))
    }

    /// Sends a workload's connections in this network namespace nowhere any more: they are refused.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn close_doors(&self, workload: Number, netns: u64) -> Result<(), BpfError> {
        let mut maps = self.maps();
        let key = PlaceKey { netns, workload, padding: 0 };
        let Ok(place) = maps.places.get(&key, 0) else { return Ok(()) };
        maps.places.remove(&key).map_err(|source| map_error("places", source))?;
        maps.shut(netns, place)
    }

    /// The network namespaces in which earlier daemons had sockets for workloads.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn places(&self) -> Result<Vec<(Number, u64)>, BpfError> {
        let keys = self.maps().places.keys().collect::<Result<Vec<_>, _>>();
        let keys = keys.map_err(|source| map_error("places", source))?;
        Ok(keys.into_iter().map(|key| (key.workload, key.netns)).collect())
    }

    /// Where an accepted connection was to go; none if nobody steered it here.
    ///
    /// It is handed over while the handshake ends, so for a moment it may still lie where the connecting end left it: it is taken
    /// from there by the kernel's half, which counts it.
    pub fn flow(&self, stream: &TcpStream, netns: u64, peer: SocketAddr, own: SocketAddr) -> Option<Flow> {
        let key = OriginKey {
            netns,
            local: words(peer.ip()),
            remote: words(own.ip()),
            local_port: u32::from(peer.port()),
            remote_port: u32::from(own.port()),
        };
        let accepted = || self.accepted.get(stream, 0).ok();
        let found = accepted()
            // The kernel's end takes it away, and counts it.
            .or_else(|| self.flows.get(&key, 0).ok())
            .or_else(accepted)?;
        let origin = Origin::from(found.origin);
        let port = u16::try_from(found.port).ok()?;
        Some(Flow {
            workload: found.workload,
            origin,
            original: (address(found.address), port).into(),
            cookie: found.cookie,
        })
    }

    /// Whether a socket was steered.
    pub fn is_steered(&self, socket: &impl AsRawFd) -> bool {
        self.steered.get(socket, 0).is_ok()
    }

    /// Whether a socket answers who came to it.
    pub fn is_inbound(&self, socket: &impl AsRawFd) -> bool {
        self.inbound.get(socket, 0).is_ok()
    }

    /// Has a listener answer who comes to it, and what it accepts from now on count as answers: one that another cgroup has made
    /// never passes the last gate, which knows that of others.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn answer(&self, listener: &impl AsRawFd) -> Result<(), BpfError> {
        self.maps().answering.insert(listener, 1_u32, 0).map_err(|source| map_error("inbound", source))
    }

    /// How many of a workload's connects are noted down and not handed over yet.
    pub fn waiting(&self, workload: Number) -> u64 {
        self.maps().waiting.get(&workload, 0).unwrap_or_default()
    }

    /// How many connects under way are noted down.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn under_way(&self) -> Result<usize, BpfError> {
        let map = MapData::from_pin(self.root.join("flows")).map_err(|source| map_error("flows", source))?;
        let map: HashMap<_, OriginKeyBytes, [u8; size_of::<RawFlow>()]> =
            HashMap::try_from(Map::HashMap(map)).map_err(|source| map_error("flows", source))?;
        Ok(map.keys().filter(Result::is_ok).count())
    }

    /// The kernel's side of the ledger.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn tallies(&self) -> Result<Vec<Tally>, BpfError> {
        let maps = self.maps();
        maps.tallies
            .iter()
            .map(|entry| {
                let (key, counts) = entry.map_err(|source| map_error("tallies", source))?;
                let (kind, fate) = (key.what & 0xffff, key.what >> 16);
                Ok(Tally { workload: key.workload, kind, fate, count: counts.iter().sum() })
            })
            .collect()
    }

    /// Forgets what was counted of a workload that was let go of: a new adoption of the same name begins with nothing. What is
    /// noted down and not handed over yet stays so, or it would be handed over to nobody's count.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn forget_counts(&self, workload: Number) -> Result<(), BpfError> {
        let mut maps = self.maps();
        let keys = maps.tallies.keys().collect::<Result<Vec<_>, _>>().map_err(|source| map_error("tallies", source))?;
        for key in keys.iter().filter(|key| key.workload == workload) {
            gone(maps.tallies.remove(key)).map_err(|source| map_error("tallies", source))?;
        }
        Ok(())
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Adopter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adopter").field("root", &self.root).finish_non_exhaustive()
    }
}

/// [`OriginKey`] as bytes: it is only counted here.
type OriginKeyBytes = [u8; size_of::<OriginKey>()];

/// At which level of the tree a path is; `/` is 0.
fn level(path: &str) -> Result<u32, BpfError> {
    let level = path.split('/').filter(|part| !part.is_empty()).count();
    u32::try_from(level).ok().filter(|level| (1..=DEEPEST_LEVEL).contains(level)).ok_or_else(|| {
        BpfError::Mount(format!("the cgroup `{path}` can't be governed: it has to be at level 1 to {DEEPEST_LEVEL}"))
    })
}

fn door_keys(netns: u64, place: Place) -> [DoorKey; 4] {
    let key =
        |port: u16, protocol: libc::c_int| DoorKey { netns, port: u32::from(port), protocol: protocol.cast_unsigned() };
    [
        key(place.tcp4, libc::IPPROTO_TCP),
        key(place.tcp6, libc::IPPROTO_TCP),
        key(place.dns4, libc::IPPROTO_UDP),
        key(place.dns6, libc::IPPROTO_UDP),
    ]
}

fn address(words: [u32; 4]) -> IpAddr {
    let mut octets = [0; 16];
    for (at, word) in words.iter().enumerate() {
        octets[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets).to_canonical()
}
