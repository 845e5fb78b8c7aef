//! Steering of one launch: the `sk_lookup` program of its network namespace, the listeners that it hands connections
//! to, and the loopback ports that it takes too.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use aya::maps::{HashMap, Map, MapData, SockMap};
use interceptor_common::{LISTENER_V4, LISTENER_V6};

use super::{BpfError, Kernel, STEER, inode, io_error, load_program, map_error, pin, sys, unix};
use crate::ids::LaunchId;

/// The listeners that take a namespace's connections; both were opened inside it.
#[derive(Debug, Clone, Copy)]
pub struct Listeners<'a> {
    /// For IPv4.
    pub v4: &'a TcpListener,
    /// For IPv6 only.
    pub v6: &'a TcpListener,
}

impl Kernel {
    /// Steers every TCP connect in the network namespace `netns` to `listeners`, loopback excepted but for DNS and
    /// `loopback_ports`. Called again for a launch (after a restart), it takes over without a gap. Returns the
    /// namespace's cookie.
    pub fn steer(
        &self,
        launch: LaunchId,
        netns: BorrowedFd<'_>,
        listeners: &Listeners<'_>,
        loopback_ports: &[u16],
    ) -> Result<u64, BpfError> {
        let folder = self.folder(launch);
        pin::make_folder(&folder)?;
        let (sockets, ports) = (folder.join("listeners"), folder.join("ports"));
        pin::check_map(&sockets, sys::MAP_SOCKMAP, 4, 4)?;
        pin::check_map(&ports, sys::MAP_HASH, 2, 1)?;
        let mut object = self
            .steering()
            .map_pin_path("LISTENERS", sockets.clone())
            .map_pin_path("PORTS", ports)
            .load(STEER)
            .map_err(|source| BpfError::Load { what: "steer", source: Box::new(source) })?;

        let cookie = sys::netns_cookie(listeners.v4.as_fd())
            .map_err(|source| io_error("reading the netns cookie".into(), source))?;
        set_listeners(&sockets, listeners)?;
        self.set_loopback_ports(launch, loopback_ports)?;

        let id = inode(netns).map_err(|source| io_error("looking at the network namespace".into(), source))?;
        let program = load_program(&mut object, "steer")?;
        let target = pin::Target { fd: netns, kind: pin::Kind::Netns, id };
        let program = pin::attach(&folder.join("link"), program.as_fd(), &target, sys::ATTACH_SK_LOOKUP)?;
        self.steers.lock().unwrap_or_else(PoisonError::into_inner).insert(launch, program);
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner).insert(launch, cookie);
        Ok(cookie)
    }

    /// Replaces the loopback ports that are steered in this launch's namespace.
    pub fn set_loopback_ports(&self, launch: LaunchId, ports: &[u16]) -> Result<(), BpfError> {
        let failed = |source| map_error("ports", source);
        let map = MapData::from_pin(self.folder(launch).join("ports")).map_err(failed)?;
        let mut map: HashMap<_, u16, u8> = HashMap::try_from(Map::HashMap(map)).map_err(failed)?;
        for port in ports {
            map.insert(port, 1, 0).map_err(failed)?;
        }
        let steered = map.keys().collect::<Result<Vec<u16>, _>>().map_err(failed)?;
        for port in steered.iter().filter(|port| !ports.contains(port)) {
            map.remove(port).map_err(failed)?;
        }
        Ok(())
    }

    /// Lets go of a launch that has ended: its pins, and with them its steering, and the unix sockets that it was allowed.
    /// Nothing left of it is not an error.
    pub fn release(&self, launch: LaunchId) -> Result<(), BpfError> {
        let cookie = self.cookies.lock().unwrap_or_else(PoisonError::into_inner).remove(&launch);
        if let Some(cookie) = cookie {
            self.allow_unix(cookie, &[])?;
            self.forget_connects(cookie);
        }
        self.steers.lock().unwrap_or_else(PoisonError::into_inner).remove(&launch);
        let folder = self.folder(launch);
        for name in ["link", "listeners", "ports"] {
            gone(fs::remove_file(folder.join(name)), &folder.join(name))?;
        }
        gone(fs::remove_dir(&folder), &folder)
    }

    /// The launches that have pins: what an earlier daemon left.
    pub fn launches(&self) -> Result<Vec<LaunchId>, BpfError> {
        let failed = |source| io_error(format!("reading `{}`", self.root.display()), source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<LaunchId>().ok()));
        }
        Ok(found)
    }

    /// Replaces the pathname unix sockets that the network namespace with this cookie may connect to; none when it has
    /// ended. Paths are compared byte for byte with what is passed to connect(2).
    pub fn allow_unix(&self, netns_cookie: u64, paths: &[PathBuf]) -> Result<(), BpfError> {
        unix::replace(&mut self.allowed.lock().unwrap_or_else(PoisonError::into_inner), netns_cookie, paths)?;
        self.make_room(netns_cookie)
    }
}

fn set_listeners(path: &Path, listeners: &Listeners<'_>) -> Result<(), BpfError> {
    let failed = |source| map_error("listeners", source);
    let map = MapData::from_pin(path).map_err(failed)?;
    let mut map = SockMap::try_from(Map::SockMap(map)).map_err(failed)?;
    map.set(LISTENER_V4, listeners.v4, 0).map_err(failed)?;
    map.set(LISTENER_V6, listeners.v6, 0).map_err(failed)
}

fn gone(result: io::Result<()>, path: &Path) -> Result<(), BpfError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(io_error(format!("removing `{}`", path.display()), source))
        }
        _ => Ok(()),
    }
}
