//! The channel between `interceptor run` and process 1 of its workload: a pair of SOCK_SEQPACKET sockets, one small JSON
//! message a packet. The daemon makes the pair and hands one end to each, so that the channel works, and tells of the
//! client's death, also while the daemon is down.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use super::sys::{die_of, set_terminal_size, terminal_size};

/// The longest message, in bytes. One that is longer is an error, not cut.
const MESSAGE_BYTES: usize = 8192;

/// What `interceptor run` tells process 1. Its end of the channel closing means that it died: all get SIGTERM, and
/// five seconds later SIGKILL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToInit {
    /// Pass a signal on, by its number. INT, QUIT, HUP, WINCH go to the command's process group, as a terminal would send
    /// them, TERM, USR1 and USR2 to the command; TSTP and CONT stop and continue the group. Others are ignored.
    Signal(i32),
}

/// What process 1 tells `interceptor run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToClient {
    /// The master of the workload's terminal comes along (only if one was asked for; before `Started`).
    Pty,
    /// The command runs.
    Started,
    /// The command ended with this status; nothing of the workload lives on.
    Exited(u8),
    /// The command was killed by this signal; nothing of the workload lives on.
    Signaled(i32),
    /// The command could not be started.
    Failed {
        /// The exit status: 127 not found, 126 found but not executable, 125 anything before that.
        status: u8,
        /// What stood in the way.
        message: String,
        /// What to do next.
        next: String,
    },
}

/// A new channel: process 1's end, and the client's.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a message, with a descriptor if one is given. Never waits: a peer that doesn't read loses it.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send<M: Serialize>(channel: impl AsFd, message: &M, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let raw: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(channel.as_fd().as_raw_fd(), &[IoSlice::new(&bytes)], rights, flags, None)?;
    Ok(())
}

/// What came in.
#[derive(Debug)]
pub enum Received<M> {
    /// A message, and the descriptor that came with it.
    Message(M, Option<OwnedFd>),
    /// A packet that isn't a message, to be ignored.
    Nonsense,
    /// The peer is gone.
    End,
}

/// Receives one message; waits for it unless the channel is non-blocking.
///
/// # Errors
/// Those of recvmsg(2), WouldBlock among them.
pub fn receive<M: DeserializeOwned>(channel: impl AsFd) -> io::Result<Received<M>> {
    let (bytes, descriptor) = match receive_bytes(channel.as_fd()) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(Received::End),
        other => other?,
    };
    if bytes.is_empty() {
        return Ok(Received::End);
    }
    Ok(match serde_json::from_slice(&bytes) {
        Ok(message) => Received::Message(message, descriptor),
        Err(_) => Received::Nonsense,
    })
}

/// Receives one packet; empty means that the peer is gone.
pub(super) fn receive_bytes(channel: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_BYTES];
    let mut room = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = loop {
        match recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let length = received.bytes;
    let mut descriptor = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            for fd in fds {
                descriptor = Some(super::sys::received(fd));
            }
        }
    }
    bytes.truncate(length);
    Ok((bytes, descriptor))
}
