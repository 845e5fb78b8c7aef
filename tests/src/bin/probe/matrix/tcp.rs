//! TCP: what a socket can be told before it connects, and special destinations. Each connects, sends, and waits for what
//! comes back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, SockaddrStorage, bind, connect, recv, send, sendto};

use super::{BYTES, Row, World, be_patient, checked, ok, set, set_number, socket};

pub(super) const ROWS: &[Row] = &[
    ("tcp", |w| plain(w, w.far4(443))),
    ("tcp v6", |w| plain(w, w.far6(443))),
    ("tcp to port 53", |w| {
        let one = new(w, true)?;
        connect(one.as_raw_fd(), &SockaddrStorage::from(w.far4(53)))?;
        let question = super::steered::question();
        // The length goes before it (RFC 1035, 4.2.2).
        let framed = [&[0, u8::try_from(question.len()).map_err(io::Error::other)?][..], &question].concat();
        send(one.as_raw_fd(), &framed, MsgFlags::MSG_NOSIGNAL)?;
        match recv(one.as_raw_fd(), &mut [0; 512], MsgFlags::empty())? {
            0 => Ok("end".into()),
            _ => Ok("answer".into()),
        }
    }),
    ("tcp bound to a port", |w| bound(w, w.far4(443), any(true), 33_331)),
    ("tcp v6 bound to a port", |w| bound(w, w.far6(443), any(false), 33_332)),
    ("tcp bound to the destination (FREEBIND)", |w| {
        let one = new(w, true)?;
        set_number(&one, libc::SOL_IP, libc::IP_FREEBIND, 1)?;
        bind(one.as_raw_fd(), &SockaddrStorage::from(w.far4(33_333)))?;
        go(&one, w.far4(443))
    }),
    ("tcp of SO_REUSEPORT", |w| with(w, w.far4(443), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)),
    ("tcp that doesn't wait", nonblocking),
    ("tcp fast open by sendto", |w| fast_open(w, w.far4(443))),
    ("tcp v6 fast open by sendto", |w| fast_open(w, w.far6(443))),
    ("tcp fast open by connect", |w| with(w, w.far4(443), libc::SOL_TCP, libc::TCP_FASTOPEN_CONNECT, 1)),
    ("tcp fast open without a cookie", |w| {
        // TCP_FASTOPEN_NO_COOKIE, which libc doesn't name (linux/tcp.h).
        let one = new(w, true)?;
        set_number(&one, libc::SOL_TCP, 34, 1)?;
        open_fast(&one, w.far4(443))
    }),
    ("tcp after AF_UNSPEC", |w| again(w, w.far4(443))),
    ("tcp v6 after AF_UNSPEC", |w| again(w, w.far6(443))),
    ("tcp IP_TRANSPARENT", |w| with(w, w.far4(443), libc::SOL_IP, libc::IP_TRANSPARENT, 1)),
    ("tcp SO_MARK", |w| with(w, w.far4(443), libc::SOL_SOCKET, libc::SO_MARK, 7)),
    ("tcp TCP_REPAIR", repaired),
    ("tcp SO_DONTROUTE", |w| with(w, w.far4(443), libc::SOL_SOCKET, libc::SO_DONTROUTE, 1)),
    ("tcp v4-mapped", |w| plain(w, (w.v4.to_ipv6_mapped(), 443).into())),
    ("tcp v4-mapped, IPV6_V6ONLY off, bound", |w| {
        let one = new(w, false)?;
        set_number(&one, libc::SOL_IPV6, libc::IPV6_V6ONLY, 0)?;
        bind(one.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any(false), 33_334)))?;
        go(&one, (w.v4.to_ipv6_mapped(), 443).into())
    }),
    ("tcp turned into IPv4 (IPV6_ADDRFORM)", |w| {
        let one = new(w, false)?;
        connect(one.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(w.v4.to_ipv6_mapped().into(), 443)))?;
        set_number(&one, libc::SOL_IPV6, libc::IPV6_ADDRFORM, libc::AF_INET)?;
        see(&one)
    }),
    ("tcp to a link-local address", |w| plain(w, (Ipv4Addr::new(169, 254, 7, 7), 80).into())),
    ("tcp to a link-local v6 address", |w| {
        plain(w, SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7), 80, 0, w.index()).into())
    }),
    ("tcp to the metadata address", |w| plain(w, (Ipv4Addr::new(169, 254, 169, 254), 80).into())),
    ("tcp to a private address", |w| plain(w, (Ipv4Addr::new(10, 0, 0, 1), 5432).into())),
    ("tcp to 0.0.0.0", |w| plain(w, (Ipv4Addr::UNSPECIFIED, w.port).into())),
    ("tcp to ::", |w| plain(w, (Ipv6Addr::UNSPECIFIED, w.port).into())),
    ("tcp to 127.0.0.1", |w| plain(w, (Ipv4Addr::LOCALHOST, w.port).into())),
    ("tcp to 127.9.9.9", |w| plain(w, (Ipv4Addr::new(127, 9, 9, 9), w.port).into())),
    ("tcp to ::1", |w| plain(w, (Ipv6Addr::LOCALHOST, w.port).into())),
    ("tcp to ::ffff:127.0.0.1", |w| plain(w, (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), w.port).into())),
    ("tcp to the broadcast address", |w| plain(w, (Ipv4Addr::BROADCAST, 443).into())),
    ("tcp to a multicast address", |w| plain(w, (Ipv4Addr::new(224, 0, 0, 251), 443).into())),
    ("tcp to a port of the daemon's", |w| plain(w, (Ipv4Addr::LOCALHOST, w.door).into())),
    ("binding a port of the daemon's", |w| {
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, w.door)).map(drop)?;
        ok()
    }),
    ("binding port 53", |_| {
        std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 53)).map(drop)?;
        ok()
    }),
];

pub(super) fn any(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

pub(super) fn new(world: &World, v4: bool) -> io::Result<OwnedFd> {
    let one = socket(if v4 { libc::AF_INET } else { libc::AF_INET6 }, libc::SOCK_STREAM, 0)?;
    be_patient(&one, world.patience)?;
    Ok(one)
}

/// Connects, and sees.
pub(super) fn go(one: &OwnedFd, to: SocketAddr) -> io::Result<String> {
    connect(one.as_raw_fd(), &SockaddrStorage::from(to))?;
    see(one)
}

/// What an established connection is good for: `ok` is an answer.
pub(super) fn see(one: &OwnedFd) -> io::Result<String> {
    send(one.as_raw_fd(), BYTES, MsgFlags::MSG_NOSIGNAL)?;
    match recv(one.as_raw_fd(), &mut [0; 64], MsgFlags::empty())? {
        0 => Ok("end".into()),
        _ => ok(),
    }
}

pub(super) fn plain(world: &World, to: SocketAddr) -> io::Result<String> {
    go(&new(world, to.is_ipv4())?, to)
}

/// With an option that is a number.
fn with(world: &World, to: SocketAddr, level: i32, option: i32, value: i32) -> io::Result<String> {
    let one = new(world, to.is_ipv4())?;
    set_number(&one, level, option, value)?;
    go(&one, to)
}

fn bound(world: &World, to: SocketAddr, from: IpAddr, port: u16) -> io::Result<String> {
    let one = new(world, to.is_ipv4())?;
    set_number(&one, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    bind(one.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, port)))?;
    go(&one, to)
}

fn nonblocking(world: &World) -> io::Result<String> {
    let one = new(world, true)?;
    set_blocking(&one, false)?;
    match connect(one.as_raw_fd(), &SockaddrStorage::from(world.far4(443))) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    set_blocking(&one, true)?;
    see(&one)
}

fn set_blocking(one: &OwnedFd, blocking: bool) -> io::Result<()> {
    let flags = if blocking { 0 } else { libc::O_NONBLOCK };
    // SAFETY: no pointers.
    checked(unsafe { libc::fcntl(one.as_raw_fd(), libc::F_SETFL, flags) })?;
    Ok(())
}

fn fast_open(world: &World, to: SocketAddr) -> io::Result<String> {
    open_fast(&new(world, to.is_ipv4())?, to)
}

pub(super) fn open_fast(one: &OwnedFd, to: SocketAddr) -> io::Result<String> {
    sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(to), MsgFlags::from_bits_retain(libc::MSG_FASTOPEN))?;
    see(one)
}

/// To a listener of its own first, then elsewhere with the same socket.
fn again(world: &World, to: SocketAddr) -> io::Result<String> {
    let loopback: IpAddr = if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let own = std::net::TcpListener::bind((loopback, 0))?;
    let one = new(world, to.is_ipv4())?;
    connect(one.as_raw_fd(), &SockaddrStorage::from(own.local_addr()?))?;
    dissolve(&one)?;
    go(&one, to)
}

/// connect(2) with AF_UNSPEC.
pub(super) fn dissolve(one: &OwnedFd) -> io::Result<()> {
    // SAFETY: a sockaddr that is all zero has the family AF_UNSPEC.
    let unspec: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of_val(&unspec)).map_err(io::Error::other)?;
    // SAFETY: the address lives until the call returns, and has the length that is given.
    checked(unsafe { libc::connect(one.as_raw_fd(), &raw const unspec, length) })?;
    Ok(())
}

/// A connection that is established by declaring it so (CRIU's way).
fn repaired(world: &World) -> io::Result<String> {
    let one = new(world, true)?;
    set_number(&one, libc::SOL_TCP, libc::TCP_REPAIR, 1)?;
    bind(one.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any(true), 33_335)))?;
    connect(one.as_raw_fd(), &SockaddrStorage::from(world.far4(443)))?;
    set(&one, libc::SOL_TCP, libc::TCP_REPAIR, &0_i32.to_ne_bytes())?;
    see(&one)
}
