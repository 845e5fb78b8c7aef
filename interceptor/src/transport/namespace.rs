//! A workload's network namespace: [`configure`] sets it up from inside, [`open`] opens the daemon's sockets in it.
//!
//! The namespace has only `lo`, one address per family on it besides loopback (so that `getaddrinfo` asks for both
//! families), and local default routes: every address is local, nothing has a way out. Where a connect goes is up to the
//! `sk_lookup` program; see `bpf`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, listen, setsockopt,
    socket, sockopt,
};

use super::diagnosis::Diagnosis;

mod netlink;

/// The namespace's own IPv4 address: what the workload's connects come from.
pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The namespace's own IPv6 address.
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// The port of all of the daemon's sockets in the namespace. Below 1024, so that no process of the workload can hold it,
/// and so that no port of the workload's own is taken.
const PORT: u16 = interceptor_common::DNS_PORT;

/// Connections that may wait to be accepted, as far as `net.core.somaxconn` lets them.
const BACKLOG: i32 = 4096;

/// Why a namespace isn't ready.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// It couldn't be entered.
    #[error("entering the workload's network namespace failed")]
    Enter(#[source] io::Error),
    /// A socket couldn't be opened in it.
    #[error("opening the {0} in the workload's network namespace failed")]
    Socket(&'static str, #[source] io::Error),
    /// The thread that should do it couldn't be made, or died.
    #[error("the thread for the workload's network namespace failed")]
    Thread(#[source] io::Error),
}

/// The daemon's sockets in a workload's namespace: non-blocking, closed on exec.
#[derive(Debug)]
pub struct Sockets {
    /// Takes the IPv4 connections.
    pub tcp4: TcpListener,
    /// Takes the IPv6 connections.
    pub tcp6: TcpListener,
    /// Takes DNS questions to any IPv4 address; `IP_PKTINFO` tells which.
    pub dns4: UdpSocket,
    /// Takes DNS questions to any IPv6 address; `IPV6_RECVPKTINFO` tells which.
    pub dns6: UdpSocket,
}

/// What each of the sockets is called where a service manager keeps them.
pub const PARTS: [&str; 4] = ["tcp4", "tcp6", "dns4", "dns6"];

impl Sockets {
    /// The sockets with their names, for a service manager that keeps them while no daemon runs.
    pub fn parts(&self) -> [(&'static str, BorrowedFd<'_>); 4] {
        let [tcp4, tcp6, dns4, dns6] = PARTS;
        [(tcp4, self.tcp4.as_fd()), (tcp6, self.tcp6.as_fd()), (dns4, self.dns4.as_fd()), (dns6, self.dns6.as_fd())]
    }

    /// The sockets that were kept, found by their names; none if one is missing.
    pub fn kept(mut find: impl FnMut(&str) -> Option<OwnedFd>) -> Option<Self> {
        let [tcp4, tcp6, dns4, dns6] = PARTS.map(&mut find);
        Some(Self { tcp4: tcp4?.into(), tcp6: tcp6?.into(), dns4: dns4?.into(), dns6: dns6?.into() })
    }
}

/// The descriptors that a service manager kept and passed on (sd_listen_fds_with_names(3)), by their names. To be called once.
///
/// # Errors
/// What was passed on isn't as the manager says.
pub fn inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    use std::os::fd::FromRawFd;

    let passed = sd_notify::listen_fds_with_names(false)?;
    // SAFETY: the manager made these for this process alone, and nobody else has asked for them.
    Ok(passed.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect())
}

/// Opens the daemon's sockets in the namespace of a launched workload, on a thread of its own: the caller's stays where
/// it is.
pub fn open(netns: BorrowedFd<'_>) -> Result<Sockets, NamespaceError> {
    open_at(netns, Place::Everywhere)
}

/// Opens them in a namespace that others made, for an adopted workload: on its loopback, at ports that are free. With them
/// comes what asks after the sockets there.
pub fn open_beside(netns: BorrowedFd<'_>) -> Result<(Sockets, Diagnosis), NamespaceError> {
    Ok((open_at(netns, Place::Loopback)?, diagnose(netns)?))
}

/// Opens what asks after the sockets of a namespace.
pub fn diagnose(netns: BorrowedFd<'_>) -> Result<Diagnosis, NamespaceError> {
    std::thread::scope(|scope| {
        let inside = || {
            setns(netns, CloneFlags::CLONE_NEWNET).map_err(|error| NamespaceError::Enter(error.into()))?;
            Diagnosis::open().map_err(|error| NamespaceError::Socket("socket for diagnosis", error))
        };
        scope.spawn(inside).join().unwrap_or_else(|_| Err(NamespaceError::Thread(io::Error::other("it panicked"))))
    })
}

/// Connects from inside the namespace to the first of these addresses that answers, on a thread of its own. Blocks.
///
/// # Errors
/// The namespace can't be entered, or nobody answers.
pub fn dial(netns: BorrowedFd<'_>, addresses: &[SocketAddr], patience: Duration) -> io::Result<TcpStream> {
    std::thread::scope(|scope| {
        let inside = || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
            for address in addresses {
                match TcpStream::connect_timeout(address, patience) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    })
}

/// Where the daemon's sockets are in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At all addresses, and the one port.
    Everywhere,
    /// At 127.0.0.1 and ::1, and any port; at 127.0.0.1 alone where there is no IPv6.
    Loopback,
}

fn open_at(netns: BorrowedFd<'_>, place: Place) -> Result<Sockets, NamespaceError> {
    std::thread::scope(|scope| {
        let inside = || {
            setns(netns, CloneFlags::CLONE_NEWNET).map_err(|error| NamespaceError::Enter(error.into()))?;
            let failed = |what| move |error| NamespaceError::Socket(what, error);
            // Where there is no IPv6 these are sockets that nobody is sent to: a connect by IPv6 looks for one at ::1, finds
            // none, and is refused.
            let or_nobodys = |opened: io::Result<OwnedFd>, open: Open| match opened {
                Err(error) if place == Place::Loopback && is_without_ipv6(&error) => open(AddressFamily::Inet, place),
                other => other,
            };
            let (tcp6, dns6) = (tcp(AddressFamily::Inet6, place), udp(AddressFamily::Inet6, place));
            Ok(Sockets {
                tcp4: tcp(AddressFamily::Inet, place).map_err(failed("IPv4 listener"))?.into(),
                tcp6: or_nobodys(tcp6, tcp).map_err(failed("IPv6 listener"))?.into(),
                dns4: udp(AddressFamily::Inet, place).map_err(failed("IPv4 DNS socket"))?.into(),
                dns6: or_nobodys(dns6, udp).map_err(failed("IPv6 DNS socket"))?.into(),
            })
        };
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, inside);
        let thread = thread.map_err(NamespaceError::Thread)?;
        thread.join().unwrap_or_else(|_| Err(NamespaceError::Thread(io::Error::other("it panicked"))))
    })
}

/// How a socket is opened.
type Open = fn(AddressFamily, Place) -> io::Result<OwnedFd>;

/// Whether a socket couldn't be opened because IPv6 is switched off: on the loopback (`net.ipv6.conf.all.disable_ipv6`), or in
/// the kernel (`ipv6.disable`).
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Sets the caller's network namespace up: `lo` and its addresses, and the local default routes. For a namespace that was
/// just made; needs CAP_NET_ADMIN in it. Uses nothing but blocking system calls.
pub fn configure() -> io::Result<()> {
    let mut netlink = netlink::Netlink::open()?;
    netlink.raise_loopback()?;
    for address in [ADDRESS_V4.into(), ADDRESS_V6.into()] {
        netlink.add_address(address)?;
        netlink.add_local_default(address)?;
    }
    Ok(())
}

fn tcp(family: AddressFamily, place: Place) -> io::Result<OwnedFd> {
    let socket = unbound(family, SockType::Stream)?;
    if place == Place::Everywhere {
        // A restarted daemon finds connections of the one before it on the port.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind_at(&socket, family, place)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

fn udp(family: AddressFamily, place: Place) -> io::Result<OwnedFd> {
    let socket = unbound(family, SockType::Datagram)?;
    if family == AddressFamily::Inet {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        // To answer from an address that a local route makes local, but no interface has: IPv6 refuses that else, IPv4
        // doesn't. The option is of both families, whatever its level.
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
    }
    bind_at(&socket, family, place)?;
    Ok(socket)
}

fn unbound(family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
    let socket = socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(socket)
}

fn bind_at(socket: &OwnedFd, family: AddressFamily, place: Place) -> io::Result<()> {
    let bind_to = |address: &dyn SockaddrLike| -> io::Result<()> { Ok(bind(socket.as_raw_fd(), address)?) };
    let (v4, v6, port) = match place {
        Place::Everywhere => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, PORT),
        Place::Loopback => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 0),
    };
    if family == AddressFamily::Inet {
        bind_to(&SockaddrIn::from(SocketAddrV4::new(v4, port)))
    } else {
        bind_to(&SockaddrIn6::from(SocketAddrV6::new(v6, port, 0, 0)))
    }
}
