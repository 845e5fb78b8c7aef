//! Entries of connects under way, as nobody but the kernel half should write them, and connections that have one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, socket};

/// Where a connection was to go, by the entries that are made here.
pub(super) const ORIGINAL: &str = "198.51.100.9:9";

/// `BPF_OBJ_GET`, `BPF_MAP_UPDATE_ELEM` (include/uapi/linux/bpf.h).
const GET: i64 = 7;
const UPDATE: i64 = 2;

/// The map of connects under way.
pub(super) struct Flows(OwnedFd);

impl Flows {
    pub(super) fn open(pin: &Path) -> io::Result<Self> {
        let path = std::ffi::CString::new(pin.as_os_str().as_bytes())?;
        let made = bpf(GET, &[path.as_ptr() as u64, 0])?;
        let made = i32::try_from(made).map_err(io::Error::other)?;
        // SAFETY: it was just made, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(made) }))
    }

    /// Says that the socket with this cookie, connecting from `local` to `remote`, is the workload's.
    pub(super) fn insert(
        &self,
        netns: u64,
        local: SocketAddr,
        remote: SocketAddr,
        workload: u32,
        cookie: u64,
    ) -> io::Result<()> {
        // `OriginKey` and `Flow` of interceptor-common.
        let ports = [local.port(), remote.port()].map(|port| u32::from(port).to_ne_bytes());
        let key = [&netns.to_ne_bytes()[..], &mapped(local), &mapped(remote), &ports[0], &ports[1]].concat();
        let to = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 9), 9));
        let numbers = [u32::from(to.port()), workload].map(u32::to_ne_bytes);
        let origin = [0; 32];
        let value = [&origin[..], &mapped(to), &numbers[0], &numbers[1], &cookie.to_ne_bytes()].concat();
        let map = u64::try_from(self.0.as_raw_fd()).map_err(io::Error::other)?;
        bpf(UPDATE, &[map, key.as_ptr() as u64, value.as_ptr() as u64, 0]).map(drop)
    }
}

/// Connects, after `prepare` was told the socket's own address and its cookie.
pub(super) fn dial(to: SocketAddr, prepare: impl FnOnce(SocketAddr, u64) -> io::Result<()>) -> io::Result<TcpStream> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    let own: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = own.as_sockaddr_in().ok_or(io::ErrorKind::AddrNotAvailable)?.port();
    prepare((Ipv4Addr::LOCALHOST, port).into(), cookie(&socket)?)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

fn cookie(socket: &OwnedFd) -> io::Result<u64> {
    let (mut cookie, mut length) = (0_u64, 8);
    // SAFETY: the value has room for the length that is given, and both live until the call returns.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// In network order; IPv4 as `::ffff:a.b.c.d`.
fn mapped(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn bpf(command: i64, attributes: &[u64]) -> io::Result<i64> {
    // SAFETY: the attributes, and what they point to, live until the call returns, and have the length that is given.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
