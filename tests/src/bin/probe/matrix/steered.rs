//! Calls that the hooks send to the daemon, on sockets that were told another way out: a device, a source route. Where the
//! packets go isn't their destination's matter alone then.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, SockaddrStorage, connect, recv, send, sendto};

use super::tcp::{go, new, open_fast};
use super::{Row, World, be_patient, ok, set, set_number, socket};

/// IPV6_RTHDR (linux/in6.h), which libc doesn't name here.
const ROUTING_HEADER: i32 = 57;

/// Options of a source route: loose, strict (RFC 791).
const LOOSE: u8 = 131;
const STRICT: u8 = 137;

type Told = fn(&World, &OwnedFd) -> io::Result<()>;

pub(super) const ROWS: &[Row] = &[
    ("tcp bound to lo", |w| tcp(w, w.far4(443), |_, one| device(one, "lo"))),
    ("tcp bound to a device", |w| tcp(w, w.far4(443), outside)),
    ("tcp v6 bound to a device", |w| tcp(w, w.far6(443), outside)),
    ("tcp bound to a device, to loopback", |w| tcp(w, ([127, 0, 0, 1], w.port).into(), outside)),
    ("tcp bound to a device, fast open", |w| {
        let one = new(w, true)?;
        outside(w, &one)?;
        open_fast(&one, w.far4(443))
    }),
    ("tcp bound to a device afterwards", |w| {
        let one = new(w, true)?;
        connect(one.as_raw_fd(), &SockaddrStorage::from(w.far4(443)))?;
        outside(w, &one)?;
        super::tcp::see(&one)
    }),
    ("tcp IP_UNICAST_IF", |w| tcp(w, w.far4(443), unicast4)),
    ("tcp IPV6_UNICAST_IF", |w| tcp(w, w.far6(443), unicast6)),
    ("tcp loose source route", |w| tcp(w, w.far4(443), |w, one| source_route(w, one, LOOSE))),
    ("tcp strict source route", |w| tcp(w, w.far4(443), |w, one| source_route(w, one, STRICT))),
    ("tcp source route, fast open", |w| {
        let one = new(w, true)?;
        source_route(w, &one, LOOSE)?;
        open_fast(&one, w.far4(443))
    }),
    ("tcp source route afterwards", |w| {
        let one = new(w, true)?;
        connect(one.as_raw_fd(), &SockaddrStorage::from(w.far4(443)))?;
        source_route(w, &one, LOOSE)?;
        super::tcp::see(&one)
    }),
    ("tcp v4-mapped, source route", |w| {
        let one = new(w, false)?;
        source_route(w, &one, LOOSE)?;
        go(&one, (w.v4.to_ipv6_mapped(), 443).into())
    }),
    ("tcp v6 segment routing", |w| tcp(w, w.far6(443), segments)),
    ("tcp v6 segment routing afterwards", |w| {
        let one = new(w, false)?;
        connect(one.as_raw_fd(), &SockaddrStorage::from(w.far6(443)))?;
        segments(w, &one)?;
        super::tcp::see(&one)
    }),
    ("tcp v6 routing header of type 2", |w| tcp(w, w.far6(443), type_2)),
    ("dns", |w| dns(w, w.far4(53), |_, _| Ok(()))),
    ("dns v6", |w| dns(w, w.far6(53), |_, _| Ok(()))),
    ("dns to loopback", |w| dns(w, ([127, 0, 0, 1], 53).into(), |_, _| Ok(()))),
    ("dns bound to a device", |w| dns(w, w.far4(53), outside)),
    ("dns v6 bound to a device", |w| dns(w, w.far6(53), outside)),
    ("dns bound to a device, connected", |w| connected_dns(w, w.far4(53), outside)),
    ("dns IP_UNICAST_IF", |w| dns(w, w.far4(53), unicast4)),
    ("dns IPV6_UNICAST_IF", |w| dns(w, w.far6(53), unicast6)),
    ("dns by a device of IP_PKTINFO", |w| {
        let one = datagram(w, true)?;
        let mut info = [0; 12];
        info[..4].copy_from_slice(&w.index().to_ne_bytes());
        super::udp::send_with(&one, w.far4(53), &question(), libc::SOL_IP, libc::IP_PKTINFO, &info)?;
        answer(&one)
    }),
    ("dns by a device of IPV6_PKTINFO", |w| {
        let one = datagram(w, false)?;
        let mut info = [0; 20];
        info[16..].copy_from_slice(&w.index().to_ne_bytes());
        super::udp::send_with(&one, w.far6(53), &question(), libc::SOL_IPV6, libc::IPV6_PKTINFO, &info)?;
        answer(&one)
    }),
    ("dns by the scope of a link-local server", |w| {
        let scoped = std::net::SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7), 53, 0, w.index());
        dns(w, scoped.into(), |_, _| Ok(()))
    }),
    ("dns loose source route", |w| dns(w, w.far4(53), |w, one| source_route(w, one, LOOSE))),
    ("dns source route, connected", |w| connected_dns(w, w.far4(53), |w, one| source_route(w, one, LOOSE))),
    ("dns v6 segment routing", |w| dns(w, w.far6(53), segments)),
    ("dns v6 routing header of type 2", |w| dns(w, w.far6(53), type_2)),
    ("dns to a multicast group", |w| dns(w, ([239, 198, 51, 7], 53).into(), |_, _| Ok(()))),
    ("dns broadcast", |w| {
        dns(w, ([255, 255, 255, 255], 53).into(), |_, one| set_number(one, libc::SOL_SOCKET, libc::SO_BROADCAST, 1))
    }),
    ("dns SO_DONTROUTE", |w| dns(w, w.far4(53), |_, one| set_number(one, libc::SOL_SOCKET, libc::SO_DONTROUTE, 1))),
];

fn tcp(world: &World, to: SocketAddr, told: Told) -> io::Result<String> {
    let one = new(world, to.is_ipv4())?;
    told(world, &one)?;
    go(&one, to)
}

fn datagram(world: &World, v4: bool) -> io::Result<OwnedFd> {
    let one = socket(if v4 { libc::AF_INET } else { libc::AF_INET6 }, libc::SOCK_DGRAM, 0)?;
    be_patient(&one, world.patience.min(std::time::Duration::from_millis(300)))?;
    Ok(one)
}

fn dns(world: &World, to: SocketAddr, told: Told) -> io::Result<String> {
    let one = datagram(world, to.is_ipv4())?;
    told(world, &one)?;
    sendto(one.as_raw_fd(), &question(), &SockaddrStorage::from(to), MsgFlags::empty())?;
    answer(&one)
}

fn connected_dns(world: &World, to: SocketAddr, told: Told) -> io::Result<String> {
    let one = datagram(world, to.is_ipv4())?;
    told(world, &one)?;
    connect(one.as_raw_fd(), &SockaddrStorage::from(to))?;
    send(one.as_raw_fd(), &question(), MsgFlags::empty())?;
    answer(&one)
}

fn answer(one: &OwnedFd) -> io::Result<String> {
    let length = recv(one.as_raw_fd(), &mut [0; 512], MsgFlags::empty())?;
    if length > 12 { Ok("answer".into()) } else { ok() }
}

/// A look-up of `stray.test`, A (RFC 1035).
pub(super) fn question() -> Vec<u8> {
    let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(b"\x05stray\x04test\0\0\x01\0\x01");
    bytes
}

fn outside(world: &World, one: &OwnedFd) -> io::Result<()> {
    device(one, &world.device)
}

fn device(one: &OwnedFd, name: &str) -> io::Result<()> {
    set(one, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_bytes())
}

fn unicast4(world: &World, one: &OwnedFd) -> io::Result<()> {
    set(one, libc::SOL_IP, libc::IP_UNICAST_IF, &world.index().to_be_bytes())
}

fn unicast6(world: &World, one: &OwnedFd) -> io::Result<()> {
    set(one, libc::SOL_IPV6, libc::IPV6_UNICAST_IF, &world.index().to_be_bytes())
}

/// By way of the address outside; the place after it is for where it goes in the end.
fn source_route(world: &World, one: &OwnedFd, kind: u8) -> io::Result<()> {
    let [a, b, c, d] = world.v4.octets();
    set(one, libc::SOL_IP, libc::IP_OPTIONS, &[kind, 7, 4, a, b, c, d, 0])
}

/// A segment routing header (RFC 8754) with the address outside as the first of two segments.
fn segments(world: &World, one: &OwnedFd) -> io::Result<()> {
    let mut header = vec![0, 4, 4, 1, 1, 0, 0, 0];
    header.extend([0; 16]);
    header.extend(world.v6.octets());
    set(one, libc::SOL_IPV6, ROUTING_HEADER, &header)
}

/// The routing header of mobile IPv6 (RFC 6275).
fn type_2(world: &World, one: &OwnedFd) -> io::Result<()> {
    let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
    header.extend(world.v6.octets());
    set(one, libc::SOL_IPV6, ROUTING_HEADER, &header)
}
