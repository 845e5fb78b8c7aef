//! The three rtnetlink(7) requests that set a namespace up, by hand: process 1 of a workload makes them before anything
//! else, and needs no runtime and no program for it.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// Don't look for duplicates: nobody else is there, and an address that is looked into can't be used yet.
const IFA_F_NODAD: u8 = 0x02;

const HEADER: usize = 16;

/// A socket to the kernel's routing tables of the namespace that it was opened in.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::NetlinkRoute))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// `ip link set lo up`, which gives it 127.0.0.1/8 and ::1/128.
    pub(super) fn raise_loopback(&mut self) -> io::Result<()> {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        // struct ifinfomsg: family, padding, type, index, flags, which flags change.
        let body = [[0; 4], LOOPBACK.to_ne_bytes(), up, up].concat();
        self.request(libc::RTM_NEWLINK, 0, body)
    }

    /// `ip address add ADDRESS dev lo nodad`, as a single address.
    pub(super) fn add_address(&mut self, address: IpAddr) -> io::Result<()> {
        let (family, octets) = parts(address);
        let bits = (octets.len() * 8) as u8;
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let mut body = vec![family, bits, IFA_F_NODAD, libc::RT_SCOPE_UNIVERSE];
        body.extend(LOOPBACK.to_ne_bytes());
        attribute(&mut body, libc::IFA_LOCAL, &octets);
        attribute(&mut body, libc::IFA_ADDRESS, &octets);
        self.request(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, body)
    }

    /// `ip route add local default dev lo src ADDRESS`: every address of its family is this host.
    pub(super) fn add_local_default(&mut self, source: IpAddr) -> io::Result<()> {
        let (family, octets) = parts(source);
        // struct rtmsg: family, destination and source lengths, TOS, table, protocol, scope, type, flags.
        let mut body =
            vec![family, 0, 0, 0, libc::RT_TABLE_LOCAL, libc::RTPROT_STATIC, libc::RT_SCOPE_HOST, libc::RTN_LOCAL];
        body.extend([0; 4]);
        attribute(&mut body, libc::RTA_OIF, &LOOPBACK.to_ne_bytes());
        attribute(&mut body, libc::RTA_PREFSRC, &octets);
        self.request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, body)
    }

    /// Sends one request and waits for the kernel's word on it.
    fn request(&mut self, kind: u16, flags: i32, body: Vec<u8>) -> io::Result<()> {
        self.sequence += 1;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        // struct nlmsghdr: length, type, flags, sequence, port.
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;

        let mut answer = [0_u8; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // The answer to a request with NLM_F_ACK is NLMSG_ERROR: a header, and the negative errno or 0.
        match answer.get(HEADER..HEADER + 4).filter(|_| length >= HEADER + 4) {
            Some(&[a, b, c, d]) if answer[4..6] == (libc::NLMSG_ERROR as u16).to_ne_bytes() => {
                match i32::from_ne_bytes([a, b, c, d]) {
                    0 => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                }
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel's rtnetlink answer is not an acknowledgement",
            )),
        }
    }
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (libc::AF_INET as u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets().to_vec()),
    }
}

/// Appends a `struct rtattr`; all values here are multiples of four bytes, so none needs padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}
