//! Ways to other processes of the host: unix sockets, netlink, descriptors that are handed over.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, SockType, UnixAddr, connect,
    recvmsg, send, sendmsg, sendto, socketpair,
};
use nix::unistd::{ForkResult, fork};

use super::tcp::{new, see};
use super::{BYTES, Row, World, call, ok, socket};

/// NETLINK_USERSOCK and others (linux/netlink.h).
const USERSOCK: i32 = 2;
const SOCK_DIAG: i32 = 4;
const NETFILTER: i32 = 12;
const KOBJECT_UEVENT: i32 = 15;
const GENERIC: i32 = 16;
const AUDIT: i32 = 9;
const XFRM: i32 = 6;

pub(super) const ROWS: &[Row] = &[
    ("unix stream", |w| path(w, "stream", libc::SOCK_STREAM)),
    ("unix dgram", |w| path(w, "dgram", libc::SOCK_DGRAM)),
    ("unix seqpacket", |w| path(w, "seqpacket", libc::SOCK_SEQPACKET)),
    ("unix dgram by sendto", |w| {
        let one = socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
        sendto(one.as_raw_fd(), BYTES, &UnixAddr::new(&w.folder.join("dgram"))?, MsgFlags::empty())?;
        ok()
    }),
    ("unix dgram by sendmsg", |w| {
        let one = socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
        let to = UnixAddr::new(&w.folder.join("dgram"))?;
        sendmsg(one.as_raw_fd(), &[IoSlice::new(BYTES)], &[], MsgFlags::empty(), Some(&to))?;
        ok()
    }),
    ("unix dgram, bound", |w| {
        let own = std::env::temp_dir().join(format!("stray-{}", std::process::id()));
        let one = UnixDatagram::bind(&own).or_else(|_| UnixDatagram::unbound())?;
        let sent = one.send_to(BYTES, w.folder.join("dgram"));
        let _ = std::fs::remove_file(own);
        sent?;
        ok()
    }),
    ("unix by a descriptor of its path", |w| {
        let opened = File::options().read(true).custom_flags(libc::O_PATH).open(w.folder.join("stream"))?;
        let one = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
        let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
        reach(&one, &UnixAddr::new(Path::new(&link))?)
    }),
    ("unix by a relative path", |w| {
        std::env::set_current_dir(&w.folder)?;
        let one = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
        reach(&one, &UnixAddr::new("./../sinks/stream")?)
    }),
    ("abstract unix stream", |w| hidden(w, "stream", libc::SOCK_STREAM)),
    ("abstract unix dgram", |w| hidden(w, "dgram", libc::SOCK_DGRAM)),
    ("abstract unix seqpacket", |w| hidden(w, "seqpacket", libc::SOCK_SEQPACKET)),
    ("abstract unix dgram by sendto", |w| {
        let one = socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
        let to = UnixAddr::new_abstract(format!("{}-dgram", w.name).as_bytes())?;
        sendto(one.as_raw_fd(), BYTES, &to, MsgFlags::empty())?;
        ok()
    }),
    ("the daemon's control socket", |w| {
        let one = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
        reach(&one, &UnixAddr::new(&w.run.join("control.sock"))?)
    }),
    ("the daemon's metrics socket", |w| {
        let one = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
        reach(&one, &UnixAddr::new(&w.run.join("metrics.sock"))?)
    }),
    ("netlink route", |_| make(0)),
    ("netlink to another process", |w| {
        let one = socket(libc::AF_NETLINK, libc::SOCK_RAW, USERSOCK)?;
        sendto(one.as_raw_fd(), BYTES, &NetlinkAddr::new(w.netlink, 0), MsgFlags::MSG_DONTWAIT)?;
        ok()
    }),
    ("netlink to a group of processes", |_| {
        let one = socket(libc::AF_NETLINK, libc::SOCK_RAW, USERSOCK)?;
        sendto(one.as_raw_fd(), BYTES, &NetlinkAddr::new(0, 1), MsgFlags::MSG_DONTWAIT)?;
        ok()
    }),
    ("netlink of the kind of another, to a process", |w| {
        let one = socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)?;
        sendto(one.as_raw_fd(), BYTES, &NetlinkAddr::new(w.netlink, 0), MsgFlags::MSG_DONTWAIT)?;
        ok()
    }),
    ("netlink sock_diag", |_| make(SOCK_DIAG)),
    ("netlink netfilter", |_| make(NETFILTER)),
    ("netlink xfrm", |_| make(XFRM)),
    ("netlink audit", |_| make(AUDIT)),
    ("netlink uevent", |_| make(KOBJECT_UEVENT)),
    ("netlink generic", |_| make(GENERIC)),
    ("a new route by netlink", |w| {
        let one = socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)?;
        let [a, b, c, d] = w.v4.octets();
        // nlmsghdr: RTM_NEWROUTE, REQUEST|ACK|CREATE; rtmsg: AF_INET, /32; RTA_DST.
        let mut message = vec![36, 0, 0, 0, 24, 0, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0];
        message.extend([2, 32, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, a, b, c, d]);
        sendto(one.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 64];
        nix::sys::socket::recv(one.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        if error == 0 { ok() } else { Err(io::Error::from_raw_os_error(-error)) }
    }),
    ("a connection that a child hands over", |w| {
        let pair = pair()?;
        let one = by_child(&pair, || {
            let one = new(w, true)?;
            connect(one.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(w.far4(443)))?;
            Ok(one)
        })?;
        see(&one)
    }),
    ("a udp socket that a child hands over", |w| {
        let pair = pair()?;
        let one = by_child(&pair, || socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?;
        let to = nix::sys::socket::SockaddrStorage::from(w.far4(9));
        sendto(one.as_raw_fd(), BYTES, &to, MsgFlags::empty())?;
        ok()
    }),
    ("a descriptor of a process outside", |w| {
        let process = call(libc::SYS_pidfd_open, [w.outside.into(), 0, 0, 0, 0, 0])?;
        call(libc::SYS_pidfd_getfd, [process, 0, 0, 0, 0, 0])?;
        ok()
    }),
];

fn make(protocol: i32) -> io::Result<String> {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
    ok()
}

fn reach(one: &OwnedFd, to: &UnixAddr) -> io::Result<String> {
    connect(one.as_raw_fd(), to)?;
    send(one.as_raw_fd(), BYTES, MsgFlags::MSG_NOSIGNAL)?;
    ok()
}

fn path(world: &World, file: &str, kind: i32) -> io::Result<String> {
    reach(&socket(libc::AF_UNIX, kind, 0)?, &UnixAddr::new(&world.folder.join(file))?)
}

fn hidden(world: &World, name: &str, kind: i32) -> io::Result<String> {
    let to = UnixAddr::new_abstract(format!("{}-{name}", world.name).as_bytes())?;
    reach(&socket(libc::AF_UNIX, kind, 0)?, &to)
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A child makes a socket and hands it over, with the errno where it can't.
fn by_child(pair: &(OwnedFd, OwnedFd), make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    // SAFETY: this process has one thread.
    if let ForkResult::Child = unsafe { fork() }? {
        let made = make();
        let error = made.as_ref().err().and_then(io::Error::raw_os_error).unwrap_or(0);
        let descriptors: Vec<RawFd> = made.iter().map(AsRawFd::as_raw_fd).collect();
        let message = [ControlMessage::ScmRights(&descriptors)];
        let with = if descriptors.is_empty() { &[][..] } else { &message[..] };
        let bytes = error.to_ne_bytes();
        let _ = sendmsg::<()>(pair.0.as_raw_fd(), &[IoSlice::new(&bytes)], with, MsgFlags::empty(), None);
        // SAFETY: ends the process without running what its parent's copy will run.
        unsafe { libc::_exit(0) }
    }
    let mut bytes = [0; 4];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut vectors = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(pair.1.as_raw_fd(), &mut vectors, Some(&mut control), MsgFlags::empty())?;
    let received = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    match received {
        // SAFETY: it was just received, and nobody else has it.
        Some(descriptor) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        None => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(bytes))),
    }
}
