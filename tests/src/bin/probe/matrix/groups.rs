//! Groups of multicast: who joins one has the kernel tell the network so, and chooses what is told by the group.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use super::{Row, World, ok, set, socket};

/// A multicast group that only these rows join.
pub(super) const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 198, 51, 7);
/// The same of IPv6.
pub(super) const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x5374, 0x7261);

pub(super) const ROWS: &[Row] = &[
    ("joining a group (IGMP)", |w| joined(&udp(true)?, libc::SOL_IP, libc::IP_ADD_MEMBERSHIP, &request(w, GROUP4))),
    ("joining a group from a source (IGMPv3)", |w| {
        // struct ip_mreq_source: the group, the interface's address, the source.
        let request = [GROUP4.octets(), [198, 51, 100, 1], w.v4.octets()].concat();
        joined(&udp(true)?, libc::SOL_IP, libc::IP_ADD_SOURCE_MEMBERSHIP, &request)
    }),
    ("joining a group (MCAST_JOIN_GROUP)", |w| {
        joined(&udp(true)?, libc::SOL_IP, libc::MCAST_JOIN_GROUP, &protocol_independent(w, (GROUP4, 0).into()))
    }),
    ("joining a group with a tcp socket", |w| {
        let one = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        joined(&one, libc::SOL_IP, libc::IP_ADD_MEMBERSHIP, &request(w, GROUP4))
    }),
    ("joining a v6 group (MLD)", |w| {
        let request = [&GROUP6.octets()[..], &w.index().to_ne_bytes()].concat();
        joined(&udp(false)?, libc::SOL_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
    }),
    ("joining a v6 group (MCAST_JOIN_GROUP)", |w| {
        joined(&udp(false)?, libc::SOL_IPV6, libc::MCAST_JOIN_GROUP, &protocol_independent(w, (GROUP6, 0).into()))
    }),
    ("joining an anycast group", |w| {
        // IPV6_JOIN_ANYCAST (linux/in6.h).
        let request = [&w.v6.octets()[..], &w.index().to_ne_bytes()].concat();
        joined(&udp(false)?, libc::SOL_IPV6, 27, &request)
    }),
];

fn udp(v4: bool) -> io::Result<OwnedFd> {
    socket(if v4 { libc::AF_INET } else { libc::AF_INET6 }, libc::SOCK_DGRAM, 0)
}

/// The kernel's report goes out a moment later.
fn joined(one: &OwnedFd, level: i32, option: i32, request: &[u8]) -> io::Result<String> {
    set(one, level, option, request)?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    ok()
}

/// `struct ip_mreqn` with the interface that leads outside.
pub(super) fn request(world: &World, group: Ipv4Addr) -> Vec<u8> {
    [&group.octets()[..], &[0; 4], &world.index().to_ne_bytes()].concat()
}

/// `struct group_req`: the interface, and the group as a `sockaddr_storage` of 128 bytes (RFC 3678).
fn protocol_independent(world: &World, group: SocketAddr) -> Vec<u8> {
    let address = SockaddrStorage::from(group);
    let mut bytes = vec![0; 136];
    bytes[..4].copy_from_slice(&world.index().to_ne_bytes());
    let length = address.len() as usize;
    // SAFETY: the address is plain data of the length that it says, which is less than 128.
    let from = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), length) };
    bytes[8..8 + length].copy_from_slice(from);
    bytes
}
