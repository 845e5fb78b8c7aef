//! Asking the kernel whether a socket is still there (sock_diag(7)): by both of its addresses and its cookie, in the network
//! namespace that the question's own socket was opened in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `SOCK_DIAG_BY_FAMILY` of include/uapi/linux/sock_diag.h.
const BY_FAMILY: u16 = 20;

const HEADER: usize = 16;

/// `INET_DIAG_NOCOOKIE`, twice: whatever its cookie.
const ANY: u64 = u64::MAX;

/// Where `idiag_uid` is in `struct inet_diag_msg`; `idiag_inode` follows.
const UID: usize = 64;

/// A socket for questions.
#[derive(Debug)]
pub struct Diagnosis {
    socket: OwnedFd,
}

impl Diagnosis {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkSockDiag;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, Some(protocol))?;
        Ok(Self { socket })
    }

    /// Whether a TCP socket with this cookie has `own` as its address and `peer` as its peer's.
    ///
    /// # Errors
    /// The kernel can't be asked (CONFIG_INET_DIAG).
    pub fn has(&self, own: SocketAddr, peer: SocketAddr, cookie: u64) -> io::Result<bool> {
        Ok(read(&self.ask(own, peer, cookie)?)?.is_some())
    }

    /// Whose the TCP socket is that has `own` as its address and `peer` as its peer's. None if there is none, or one
    /// that its process has closed: what is left of that is nobody's, and shown as root's.
    ///
    /// # Errors
    /// The kernel can't be asked (CONFIG_INET_DIAG).
    pub fn owner(&self, own: SocketAddr, peer: SocketAddr) -> io::Result<Option<Owner>> {
        let found = read(&self.ask(own, peer, ANY)?)?;
        Ok(found.filter(|socket| socket.inode != 0))
    }

    fn ask(&self, own: SocketAddr, peer: SocketAddr, cookie: u64) -> io::Result<Vec<u8>> {
        send(self.socket.as_raw_fd(), &question(own, peer, cookie), MsgFlags::empty())?;
        let mut answer = vec![0_u8; 1024];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// Whose a socket is: the end of `struct inet_diag_msg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The uid of who made it.
    pub uid: u32,
    /// What it is known by in `/proc/PID/fd`; 0 of one that is closed.
    pub inode: u32,
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (include/uapi/linux/inet_diag.h).
fn question(own: SocketAddr, peer: SocketAddr, cookie: u64) -> Vec<u8> {
    let (family, source, destination) = match (own.ip(), peer.ip()) {
        (IpAddr::V4(own), IpAddr::V4(peer)) => (libc::AF_INET, padded(&own.octets()), padded(&peer.octets())),
        (own, peer) => (libc::AF_INET6, padded(&v6(own)), padded(&v6(peer))),
    };
    let mut body = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    // All states: one that is closing is there still.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(own.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    body.extend(source);
    body.extend(destination);
    body.extend(0_u32.to_ne_bytes());
    body.extend((cookie as u32).to_ne_bytes());
    body.extend(((cookie >> 32) as u32).to_ne_bytes());
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn padded(octets: &[u8]) -> [u8; 16] {
    let mut padded = [0; 16];
    padded[..octets.len()].copy_from_slice(octets);
    padded
}

/// The socket; none by the error that says so.
fn read(answer: &[u8]) -> io::Result<Option<Owner>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's sock_diag answer is none");
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]])).ok_or_else(malformed)?;
    if kind == BY_FAMILY {
        let word = |at: usize| {
            let (bytes, _) = answer.get(HEADER + at..)?.split_first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let (uid, inode) = word(UID).zip(word(UID + 4)).ok_or_else(malformed)?;
        return Ok(Some(Owner { uid, inode }));
    }
    let errno = answer.get(HEADER..HEADER + 4).filter(|_| kind == libc::NLMSG_ERROR as u16).ok_or_else(malformed)?;
    match -i32::from_ne_bytes([errno[0], errno[1], errno[2], errno[3]]) {
        libc::ENOENT | libc::ESTALE => Ok(None),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests;
