//! The ways to a destination that a socket has, besides a plain connect. Each is followed by bytes of no protocol and a
//! read, so that what becomes of the connection shows: `ok` would be an answer.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, listen, sendto, setsockopt,
    socket, sockopt,
};

/// Neither TLS nor HTTP.
const BYTES: &[u8] = b"\0stray\0";
/// Longer than the proxy gives a client to speak.
const PATIENCE: Duration = Duration::from_secs(20);

/// By UDP: what the first packet met, the next call on the connected socket tells (udp(7)).
pub(crate) fn udp(to: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind((any(to.is_ipv4()), 0))?;
    socket.connect(to)?;
    socket.send(BYTES)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.recv(&mut [0; 16])?;
    super::done()
}

/// One datagram, of which nobody is told what it met.
pub(crate) fn udp_to(to: SocketAddr) -> io::Result<String> {
    UdpSocket::bind((any(to.is_ipv4()), 0))?.send_to(BYTES, to)?;
    super::done()
}

/// One datagram to a socket of its own, on the loopback.
pub(crate) fn udp_own() -> io::Result<String> {
    let own = UdpSocket::bind((loopback(true), 0))?;
    own.set_read_timeout(Some(PATIENCE))?;
    UdpSocket::bind((loopback(true), 0))?.send_to(BYTES, own.local_addr()?)?;
    own.recv(&mut [0; 16])?;
    super::done()
}

/// Takes an address by `tcp` or `udp`, with all that lets a socket share one.
pub(crate) fn bind_at(way: &str, at: SocketAddr) -> io::Result<String> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = if way == "udp" { SockType::Datagram } else { SockType::Stream };
    let one = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&one, sockopt::ReuseAddr, &true)?;
    setsockopt(&one, sockopt::ReusePort, &true)?;
    bind(one.as_raw_fd(), &SockaddrStorage::from(at))?;
    if kind == SockType::Stream {
        listen(&one, Backlog::new(1)?)?;
    }
    super::done()
}

/// By TCP, in one of these ways.
pub(crate) fn tcp(way: &str, to: SocketAddr) -> io::Result<String> {
    let address = SockaddrStorage::from(to);
    let new = || -> io::Result<OwnedFd> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
    };
    match way {
        "plain" => {
            let socket = new()?;
            connect(socket.as_raw_fd(), &address)?;
            see(socket)
        }
        "bound" => {
            let socket = new()?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any(to.is_ipv4()), 33_333)))?;
            connect(socket.as_raw_fd(), &address)?;
            see(socket)
        }
        // As the destination itself: every address is local inside.
        "bound-to-it" => {
            let socket = new()?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to.ip(), 33_334)))?;
            connect(socket.as_raw_fd(), &address)?;
            see(socket)
        }
        "device" => {
            let socket = new()?;
            setsockopt(&socket, sockopt::BindToDevice, &"lo".into())?;
            connect(socket.as_raw_fd(), &address)?;
            see(socket)
        }
        "fast-open" => {
            let socket = new()?;
            sendto(socket.as_raw_fd(), BYTES, &address, MsgFlags::from_bits_retain(libc::MSG_FASTOPEN))?;
            see(socket)
        }
        "fast-open-connect" => {
            let socket = new()?;
            setsockopt(&socket, sockopt::TcpFastOpenConnect, &true)?;
            connect(socket.as_raw_fd(), &address)?;
            see(socket)
        }
        // To loopback first, where it may go, then elsewhere with the same socket.
        "again" => {
            let own = TcpListener::bind((loopback(to.is_ipv4()), 0))?;
            let socket = new()?;
            connect(socket.as_raw_fd(), &SockaddrStorage::from(own.local_addr()?))?;
            disconnect(&socket)?;
            connect(socket.as_raw_fd(), &address)?;
            see(socket)
        }
        // While a listener of our own waits on that very address, and on all addresses.
        "squatted" => {
            let everywhere = TcpListener::bind((any(to.is_ipv4()), to.port()));
            let there = TcpListener::bind(to);
            if everywhere.is_err() && there.is_err() {
                return Err(io::Error::other("there is no squatter"));
            }
            tcp("plain", to)
        }
        _ => Err(io::Error::other(format!("unknown way `{way}`"))),
    }
}

/// By UDP on a socket that is connected now, and used when there is something to read.
pub(crate) fn later(to: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind((any(to.is_ipv4()), 0))?;
    socket.connect(to)?;
    writeln!(io::stdout(), "ready")?;
    let _count = io::stdin().read(&mut [0])?;
    socket.send(BYTES)?;
    super::done()
}

/// Asks a DNS server, with a socket that is `connected`, or `mapped` (of IPv6, whatever the address), or `plain`. Says whom
/// the answer is from.
pub(crate) fn dns(way: &str, server: SocketAddr) -> io::Result<String> {
    let server = match server {
        SocketAddr::V4(v4) if way == "mapped" => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        other => other,
    };
    let socket = UdpSocket::bind((any(server.is_ipv4()), 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // A look-up of `stray.test`, A (RFC 1035).
    let question = b"\x07\x07\x01\0\0\x01\0\0\0\0\0\0\x05stray\x04test\0\0\x01\0\x01";
    if way == "connected" {
        socket.connect(server)?;
        socket.send(question)?;
    } else {
        socket.send_to(question, server)?;
    }
    let mut answer = [0; 512];
    let (length, from) = socket.recv_from(&mut answer)?;
    if length < 12 || answer[..2] != question[..2] {
        return Err(io::Error::other("that is no answer"));
    }
    Ok(format!("answered by {from}"))
}

/// With the socket that is the standard input, which somebody outside has made.
pub(crate) fn on_input(way: &str, to: SocketAddr) -> io::Result<String> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let address = SockaddrStorage::from(to);
    match way {
        "tcp" => {
            connect(socket.as_raw_fd(), &address)?;
            see(socket)
        }
        "udp" => {
            sendto(socket.as_raw_fd(), BYTES, &address, MsgFlags::empty())?;
            super::done()
        }
        "udp-connected" => {
            connect(socket.as_raw_fd(), &address)?;
            nix::sys::socket::send(socket.as_raw_fd(), BYTES, MsgFlags::empty())?;
            super::done()
        }
        _ => Err(io::Error::other(format!("unknown way `{way}`"))),
    }
}

/// What an established connection is good for.
fn see(socket: OwnedFd) -> io::Result<String> {
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(BYTES)?;
    match stream.read(&mut [0; 64])? {
        0 => Ok("end".into()),
        _ => super::done(),
    }
}

/// Dissolves the association (connect(2): AF_UNSPEC).
fn disconnect(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: a sockaddr that is all zero has the family AF_UNSPEC.
    let unspec: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of_val(&unspec)).map_err(io::Error::other)?;
    // SAFETY: the address lives until the call returns, and has the length that is given.
    let returned = unsafe { libc::connect(socket.as_raw_fd(), &raw const unspec, length) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn any(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn loopback(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}
