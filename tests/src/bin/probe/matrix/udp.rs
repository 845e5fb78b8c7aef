//! UDP that is no question to a DNS server.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, SockaddrStorage, bind, connect, recv, send, sendmsg, sendto};

use super::groups::{GROUP4, GROUP6, request};
use super::steered::question;
use super::tcp::dissolve;
use super::{BYTES, Row, World, be_patient, checked, ok, set, set_number, socket};

pub(super) const ROWS: &[Row] = &[
    ("udp sendto", |w| to(w.far4(9))),
    ("udp v6 sendto", |w| to(w.far6(9))),
    ("udp to port 443", |w| to(w.far4(443))),
    ("udp v6 to port 443", |w| to(w.far6(443))),
    ("udp connected", |w| connected(w, w.far4(9))),
    ("udp v6 connected", |w| connected(w, w.far6(9))),
    ("udp sendmsg", |w| {
        let one = new(true)?;
        let to = SockaddrStorage::from(w.far4(9));
        sendmsg(one.as_raw_fd(), &[IoSlice::new(BYTES)], &[], MsgFlags::empty(), Some(&to))?;
        ok()
    }),
    ("udp sendmmsg", many),
    ("udp v4-mapped", |w| to((w.v4.to_ipv6_mapped(), 9).into())),
    ("udp v4-mapped connected", |w| connected(w, (w.v4.to_ipv6_mapped(), 9).into())),
    ("udp v6 socket, v4 address", |w| {
        sendto(new(false)?.as_raw_fd(), BYTES, &SockaddrStorage::from(w.far4(9)), MsgFlags::empty())?;
        ok()
    }),
    ("udp v6 socket, v4 address, connected", |w| {
        let one = new(false)?;
        connect(one.as_raw_fd(), &SockaddrStorage::from(w.far4(9)))?;
        send(one.as_raw_fd(), BYTES, MsgFlags::empty())?;
        ok()
    }),
    ("udp segmented by the kernel (GSO)", |w| {
        let one = new(true)?;
        set_number(&one, libc::SOL_UDP, libc::UDP_SEGMENT, 4)?;
        sendto(one.as_raw_fd(), &[7; 64], &SockaddrStorage::from(w.far4(9)), MsgFlags::empty())?;
        ok()
    }),
    ("udp corked, elsewhere with what follows", |w| {
        let one = new(true)?;
        sendto(
            one.as_raw_fd(),
            &question(),
            &SockaddrStorage::from(w.far4(53)),
            MsgFlags::from_bits_retain(libc::MSG_MORE),
        )?;
        sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(w.far4(9)), MsgFlags::empty())?;
        ok()
    }),
    ("udp connected to port 53, sent elsewhere", |w| {
        let one = new(true)?;
        connect(one.as_raw_fd(), &SockaddrStorage::from(w.far4(53)))?;
        sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(w.far4(9)), MsgFlags::empty())?;
        ok()
    }),
    ("udp connected to port 53, then AF_UNSPEC", |w| {
        let one = new(true)?;
        connect(one.as_raw_fd(), &SockaddrStorage::from(w.far4(53)))?;
        dissolve(&one)?;
        sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(w.far4(9)), MsgFlags::empty())?;
        ok()
    }),
    ("udp bound to a device", |w| {
        let one = new(true)?;
        set(&one, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, w.device.as_bytes())?;
        sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(w.far4(9)), MsgFlags::empty())?;
        ok()
    }),
    ("udp from a foreign address (FREEBIND)", |w| {
        let one = new(true)?;
        set_number(&one, libc::SOL_IP, libc::IP_FREEBIND, 1)?;
        bind(one.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from(([198, 51, 100, 9], 0))))?;
        sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(w.far4(9)), MsgFlags::empty())?;
        ok()
    }),
    ("udp SO_MARK", |w| {
        let one = new(true)?;
        set_number(&one, libc::SOL_SOCKET, libc::SO_MARK, 7)?;
        sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(w.far4(9)), MsgFlags::empty())?;
        ok()
    }),
    ("udp multicast", |w| {
        let one = new(true)?;
        set(&one, libc::SOL_IP, libc::IP_MULTICAST_IF, &request(w, Ipv4Addr::UNSPECIFIED))?;
        sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(SocketAddr::from((GROUP4, 9))), MsgFlags::empty())?;
        ok()
    }),
    ("udp v6 multicast", |w| to(SocketAddrV6::new(GROUP6, 9, 0, w.index()).into())),
    ("udp broadcast", |_| {
        let one = new(true)?;
        set_number(&one, libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
        let all = SocketAddr::from((Ipv4Addr::BROADCAST, 9));
        sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(all), MsgFlags::empty())?;
        ok()
    }),
    ("udp to the metadata address", |_| to(([169, 254, 169, 254], 80).into())),
    ("udp to 127.0.0.1", |w| to(([127, 0, 0, 1], w.port).into())),
    ("udp to 127.9.9.9", |w| to(([127, 9, 9, 9], w.port).into())),
    ("udp to 0.0.0.0", |w| to(([0, 0, 0, 0], w.port).into())),
    ("udp to ::1", |w| to((Ipv6Addr::LOCALHOST, w.port).into())),
    ("udp to ::ffff:127.0.0.1", |w| to((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), w.port).into())),
    ("udp, the answer to who asked", answered),
    ("udp-lite", |w| by_protocol(w.far4(9), libc::IPPROTO_UDPLITE)),
    ("udp-lite v6", |w| by_protocol(w.far6(9), libc::IPPROTO_UDPLITE)),
];

fn new(v4: bool) -> io::Result<OwnedFd> {
    socket(if v4 { libc::AF_INET } else { libc::AF_INET6 }, libc::SOCK_DGRAM, 0)
}

fn to(address: SocketAddr) -> io::Result<String> {
    sendto(new(address.is_ipv4())?.as_raw_fd(), BYTES, &SockaddrStorage::from(address), MsgFlags::empty())?;
    ok()
}

/// What the first packet met, the next call on a connected socket tells (udp(7)).
fn connected(world: &World, to: SocketAddr) -> io::Result<String> {
    let one = new(to.is_ipv4())?;
    be_patient(&one, world.patience.min(Duration::from_millis(300)))?;
    connect(one.as_raw_fd(), &SockaddrStorage::from(to))?;
    send(one.as_raw_fd(), BYTES, MsgFlags::empty())?;
    recv(one.as_raw_fd(), &mut [0; 16], MsgFlags::empty())?;
    ok()
}

fn by_protocol(to: SocketAddr, protocol: i32) -> io::Result<String> {
    let one = socket(if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }, libc::SOCK_DGRAM, protocol)?;
    sendto(one.as_raw_fd(), BYTES, &SockaddrStorage::from(to), MsgFlags::empty())?;
    ok()
}

/// Two at once; the first to the resolver, so that a hook that only looks at the first shows.
fn many(world: &World) -> io::Result<String> {
    let one = new(true)?;
    let mut addresses = [SockaddrStorage::from(world.far4(53)), SockaddrStorage::from(world.far4(9))];
    let mut vectors = [libc::iovec { iov_base: BYTES.as_ptr().cast_mut().cast(), iov_len: BYTES.len() }; 2];
    let mut messages: Vec<libc::mmsghdr> = Vec::new();
    for (address, vector) in addresses.iter_mut().zip(&mut vectors) {
        // SAFETY: plain data, for which zeros are valid.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
        message.msg_hdr.msg_namelen = 16;
        message.msg_hdr.msg_iov = std::ptr::from_mut(vector);
        message.msg_hdr.msg_iovlen = 1;
        messages.push(message);
    }
    // SAFETY: the messages and what they point to live until the call returns.
    let sent = checked(unsafe { libc::sendmmsg(one.as_raw_fd(), messages.as_mut_ptr(), 2, 0) })?;
    Ok(format!("{sent} of 2"))
}

/// One message with a control message.
pub(super) fn send_with(
    one: &OwnedFd,
    to: SocketAddr,
    bytes: &[u8],
    level: i32,
    kind: i32,
    data: &[u8],
) -> io::Result<()> {
    let mut address = SockaddrStorage::from(to);
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // Of words, for the alignment of the header.
    let mut control = [0_u64; 8];
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    // SAFETY: plain data, for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = if to.is_ipv4() { 16 } else { 28 };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the control buffer has room for the data of every caller: 64 bytes for 16 and at most 20.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(length) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(length) as usize;
        std::ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(header), data.len());
    }
    // SAFETY: the message and what it points to live until the call returns.
    checked(unsafe { libc::sendmsg(one.as_raw_fd(), &raw const message, 0) } as i64)?;
    Ok(())
}

/// Somebody outside asks until he is answered.
fn answered(world: &World) -> io::Result<String> {
    let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, world.inbound))?;
    own.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (_, from) = own.recv_from(&mut [0; 16])?;
    own.send_to(BYTES, from)?;
    ok()
}
