//! Sockets that are neither TCP nor UDP: raw ones, other protocols of IP, other families. Where one can be made it is used,
//! as far as that takes no more than an address.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};

use super::{BYTES, Row, World, be_patient, checked, ok, set_number, socket};

/// Protocols that libc doesn't name on every architecture (linux/in.h).
const MPTCP: i32 = 262;
const SMC: i32 = 256;
const L2TP: i32 = 115;

/// An ICMP echo request with its checksum, and room for the bytes of ours.
const ECHO: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
const ECHO6: [u8; 8] = [128, 0, 0, 0, 0, 0, 0, 0];

pub(super) const ROWS: &[Row] = &[
    ("raw ICMP", |w| send4(w, libc::SOCK_RAW, libc::IPPROTO_ICMP, &ECHO)),
    ("raw ICMPv6", |w| send6(w, libc::SOCK_RAW, libc::IPPROTO_ICMPV6, &ECHO6)),
    ("raw TCP", |w| send4(w, libc::SOCK_RAW, libc::IPPROTO_TCP, &[7; 20])),
    ("raw UDP", |w| send4(w, libc::SOCK_RAW, libc::IPPROTO_UDP, &[0, 9, 0, 9, 0, 8, 0, 0])),
    ("raw, a header of its own (RAW)", |w| send4(w, libc::SOCK_RAW, libc::IPPROTO_RAW, &header(w))),
    ("raw v6, a header of its own (RAW)", |w| send6(w, libc::SOCK_RAW, libc::IPPROTO_RAW, &[0x60; 40])),
    ("raw, a protocol without a name (253)", |w| send4(w, libc::SOCK_RAW, 253, BYTES)),
    ("raw v6, a protocol without a name (253)", |w| send6(w, libc::SOCK_RAW, 253, BYTES)),
    ("raw IP_HDRINCL", |w| {
        let one = socket(libc::AF_INET, libc::SOCK_RAW, 253)?;
        set_number(&one, libc::SOL_IP, libc::IP_HDRINCL, 1)?;
        sendto(one.as_raw_fd(), &header(w), &SockaddrStorage::from(w.far4(0)), MsgFlags::empty())?;
        ok()
    }),
    ("ping", |w| send4(w, libc::SOCK_DGRAM, libc::IPPROTO_ICMP, &ECHO)),
    ("ping v6", |w| send6(w, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6, &ECHO6)),
    ("ping to loopback", |_| {
        let one = socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)?;
        let own = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        sendto(one.as_raw_fd(), &ECHO, &SockaddrStorage::from(own), MsgFlags::empty())?;
        ok()
    }),
    ("packet SOCK_RAW", |w| packet(w, libc::SOCK_RAW)),
    ("packet SOCK_DGRAM", |w| packet(w, libc::SOCK_DGRAM)),
    ("SOCK_PACKET", |_| make(libc::AF_INET, 10, 0x0300)),
    ("sctp", |w| stream(w, libc::SOCK_STREAM, libc::IPPROTO_SCTP)),
    ("sctp seqpacket", |w| stream(w, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP)),
    ("seqpacket without a protocol", |w| stream(w, libc::SOCK_SEQPACKET, 0)),
    ("rdm without a protocol", |_| make(libc::AF_INET, libc::SOCK_RDM, 0)),
    ("dccp", |w| stream(w, libc::SOCK_DCCP, libc::IPPROTO_DCCP)),
    ("mptcp", |w| stream(w, libc::SOCK_STREAM, MPTCP)),
    ("mptcp v6", |w| {
        let one = socket(libc::AF_INET6, libc::SOCK_STREAM, MPTCP)?;
        be_patient(&one, w.patience)?;
        super::tcp::go(&one, w.far6(443))
    }),
    ("smc by protocol", |w| stream(w, libc::SOCK_STREAM, SMC)),
    ("l2tp", |w| send4(w, libc::SOCK_DGRAM, L2TP, BYTES)),
    ("ip-in-ip", |w| send4(w, libc::SOCK_RAW, libc::IPPROTO_IPIP, &header(w))),
    ("gre", |w| send4(w, libc::SOCK_RAW, libc::IPPROTO_GRE, &[0; 4])),
    ("xdp", |_| make(libc::AF_XDP, libc::SOCK_RAW, 0)),
    ("vsock stream", |w| vsock(w, libc::SOCK_STREAM)),
    ("vsock dgram", |w| vsock(w, libc::SOCK_DGRAM)),
    ("vsock seqpacket", |w| vsock(w, libc::SOCK_SEQPACKET)),
    ("alg", |_| make(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("key (IPsec)", |_| make(libc::AF_KEY, libc::SOCK_RAW, 2)),
    ("smc", |_| make(43, libc::SOCK_STREAM, 0)),
    ("tipc stream", |_| make(libc::AF_TIPC, libc::SOCK_STREAM, 0)),
    ("tipc dgram", |_| make(libc::AF_TIPC, libc::SOCK_DGRAM, 0)),
    ("tipc by a pair", |_| {
        let mut pair = [0; 2];
        // SAFETY: the pair has room for two descriptors.
        checked(unsafe { libc::socketpair(libc::AF_TIPC, libc::SOCK_SEQPACKET, 0, pair.as_mut_ptr()) })?;
        ok()
    }),
    ("rds", |_| make(libc::AF_RDS, libc::SOCK_SEQPACKET, 0)),
    ("can raw", |_| make(libc::AF_CAN, libc::SOCK_RAW, 1)),
    ("can bcm", |_| make(libc::AF_CAN, libc::SOCK_DGRAM, 2)),
    ("bluetooth l2cap", |_| make(libc::AF_BLUETOOTH, libc::SOCK_SEQPACKET, 0)),
    ("bluetooth hci", |_| make(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)),
    ("kcm", |_| make(41, libc::SOCK_DGRAM, 0)),
    ("qipcrtr", |_| make(42, libc::SOCK_DGRAM, 0)),
    ("x25", |_| make(libc::AF_X25, libc::SOCK_SEQPACKET, 0)),
    ("ax25", |_| make(libc::AF_AX25, libc::SOCK_DGRAM, 0)),
    ("netrom", |_| make(libc::AF_NETROM, libc::SOCK_SEQPACKET, 0)),
    ("rose", |_| make(libc::AF_ROSE, libc::SOCK_SEQPACKET, 0)),
    ("ipx", |_| make(libc::AF_IPX, libc::SOCK_DGRAM, 0)),
    ("appletalk", |_| make(libc::AF_APPLETALK, libc::SOCK_DGRAM, 0)),
    ("llc", |_| make(libc::AF_LLC, libc::SOCK_DGRAM, 0)),
    ("atm", |_| make(libc::AF_ATMPVC, libc::SOCK_DGRAM, 0)),
    ("pppox", |_| make(libc::AF_PPPOX, libc::SOCK_STREAM, 0)),
    ("phonet", |_| make(libc::AF_PHONET, libc::SOCK_DGRAM, 0)),
    ("ieee802154", |_| make(libc::AF_IEEE802154, libc::SOCK_DGRAM, 0)),
    ("caif", |_| make(libc::AF_CAIF, libc::SOCK_SEQPACKET, 0)),
    ("nfc", |_| make(libc::AF_NFC, libc::SOCK_SEQPACKET, 0)),
    ("rxrpc", |_| make(libc::AF_RXRPC, libc::SOCK_DGRAM, libc::AF_INET)),
    ("mctp", |_| make(45, libc::SOCK_DGRAM, 0)),
];

fn make(family: i32, kind: i32, protocol: i32) -> io::Result<String> {
    socket(family, kind, protocol)?;
    ok()
}

fn send4(world: &World, kind: i32, protocol: i32, bytes: &[u8]) -> io::Result<String> {
    let one = socket(libc::AF_INET, kind, protocol)?;
    sendto(one.as_raw_fd(), bytes, &SockaddrStorage::from(world.far4(0)), MsgFlags::empty())?;
    ok()
}

fn send6(world: &World, kind: i32, protocol: i32, bytes: &[u8]) -> io::Result<String> {
    let one = socket(libc::AF_INET6, kind, protocol)?;
    sendto(one.as_raw_fd(), bytes, &SockaddrStorage::from(world.far6(0)), MsgFlags::empty())?;
    ok()
}

fn stream(world: &World, kind: i32, protocol: i32) -> io::Result<String> {
    let one = socket(libc::AF_INET, kind, protocol)?;
    be_patient(&one, world.patience)?;
    super::tcp::go(&one, world.far4(443))
}

/// A header of IPv4 for the address outside, of protocol 253; the kernel fills in the checksum and the source.
fn header(world: &World) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0];
    bytes.extend(world.v4.octets());
    bytes
}

/// A frame on the interface that leads outside.
fn packet(world: &World, kind: i32) -> io::Result<String> {
    let one: OwnedFd = socket(libc::AF_PACKET, kind, 0)?;
    // SAFETY: plain data, for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = world.index().cast_signed();
    address.sll_protocol = 0x0800_u16.to_be();
    address.sll_halen = 6;
    let frame = [&[2; 12][..], &[8, 0], &header(world)].concat();
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the frame and the address live until the call returns, and have the lengths that are given.
    let sent = unsafe {
        libc::sendto(one.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const address).cast(), length)
    };
    checked(sent as i64)?;
    ok()
}

/// To this machine itself.
fn vsock(world: &World, kind: i32) -> io::Result<String> {
    let one = socket(libc::AF_VSOCK, kind, 0)?;
    be_patient(&one, world.patience)?;
    // SAFETY: plain data, for which zeros are valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as u16;
    // To itself: VMADDR_CID_LOCAL, so that nothing of this machine's host is asked.
    address.svm_cid = 1;
    address.svm_port = 9;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the address lives until the call returns, and has the length that is given.
    checked(unsafe { libc::connect(one.as_raw_fd(), (&raw const address).cast(), length) })?;
    ok()
}
