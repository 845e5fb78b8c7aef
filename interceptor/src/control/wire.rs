//! Frames on the control socket: a length of 4 bytes (big endian), then that many bytes of JSON. Descriptors travel
//! with the length (SCM_RIGHTS, unix(7)), and are close-on-exec from the moment they arrive. What is declared costs
//! nothing: memory grows with what was really sent.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;

/// The longest frame, in bytes.
pub const FRAME: usize = 4 << 20;

/// The most descriptors that come with a request: standard input, output and error.
pub const REQUEST_DESCRIPTORS: usize = 3;

/// The most descriptors that come with a response: the channel to process 1.
pub const RESPONSE_DESCRIPTORS: usize = 1;

/// Why a frame didn't pass.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer closed before the frame was whole.
    #[error("the other end closed the connection")]
    Closed,
    /// The frame is longer than [`FRAME`].
    #[error("a message of {0} bytes is too long; {FRAME} are allowed")]
    TooLong(usize),
    /// More descriptors came than are allowed, or some were lost on the way.
    #[error("more than {0} descriptors came along")]
    Descriptors(usize),
    /// The socket failed, or a time-out of it passed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A whole frame: its bytes and the descriptors that came along.
pub type Frame = (Vec<u8>, Vec<OwnedFd>);

/// Sends one frame; blocks.
///
/// # Errors
///
/// The payload is too long, or the socket fails.
pub fn send(socket: &UnixStream, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
    let mut outgoing = Outgoing::new(payload, descriptors)?;
    loop {
        match outgoing.step(socket.as_fd()) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one frame with at most `limit` descriptors; blocks.
///
/// # Errors
///
/// The frame isn't whole, is too long, brings too many descriptors (all of them are closed), or the socket fails.
pub fn receive(socket: &UnixStream, limit: usize) -> Result<Frame, WireError> {
    let mut incoming = Incoming::new(limit);
    loop {
        match incoming.step(socket.as_fd()) {
            Ok(Ok(true)) => return Ok((incoming.body, incoming.descriptors)),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// As [`send`], on the runtime. When it is cancelled, the connection is of no more use.
///
/// # Errors
///
/// As [`send`].
pub async fn send_async(
    socket: &tokio::net::UnixStream,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    let mut outgoing = Outgoing::new(payload, descriptors)?;
    while !socket.async_io(Interest::WRITABLE, || outgoing.step(socket.as_fd())).await? {}
    Ok(())
}

/// As [`receive`], on the runtime. When it is cancelled, the connection is of no more use.
///
/// # Errors
///
/// As [`receive`].
pub async fn receive_async(socket: &tokio::net::UnixStream, limit: usize) -> Result<Frame, WireError> {
    let mut incoming = Incoming::new(limit);
    while !socket.async_io(Interest::READABLE, || incoming.step(socket.as_fd())).await?? {}
    Ok((incoming.body, incoming.descriptors))
}

/// Descriptors that one message can carry (SCM_MAX_FD). There is room for all of them, so that what a hostile peer
/// sends is received whole and closed, never half.
const CARRIED: usize = 253;

/// Read at once.
const CHUNK: usize = 64 << 10;

struct Incoming {
    header: Vec<u8>,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    limit: usize,
}

impl Incoming {
    fn new(limit: usize) -> Self {
        Self { header: Vec::with_capacity(4), body: Vec::new(), descriptors: Vec::new(), limit }
    }

    /// The bytes that are missing from the header, or else from the body; none once the frame is whole.
    fn missing(&self) -> Result<usize, WireError> {
        let Ok(header) = <[u8; 4]>::try_from(self.header.as_slice()) else { return Ok(4 - self.header.len()) };
        let length = u32::from_be_bytes(header) as usize;
        if length > FRAME { Err(WireError::TooLong(length)) } else { Ok(length - self.body.len()) }
    }

    /// Receives once; true when the frame is whole.
    fn step(&mut self, socket: BorrowedFd<'_>) -> io::Result<Result<bool, WireError>> {
        let missing = match self.missing() {
            Ok(missing) => missing,
            Err(error) => return Ok(Err(error)),
        };
        let part = if self.header.len() < 4 { &mut self.header } else { &mut self.body };
        let before = part.len();
        part.resize(before + missing.min(CHUNK), 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CARRIED))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(socket, &mut [IoSliceMut::new(&mut part[before..])], &mut control, RecvFlags::CMSG_CLOEXEC);
        part.truncate(before + received.as_ref().map_or(0, |received| received.bytes));
        let received = received?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || self.descriptors.len() > self.limit {
            self.descriptors.clear();
            return Ok(Err(WireError::Descriptors(self.limit)));
        }
        if received.bytes == 0 {
            return Ok(Err(WireError::Closed));
        }
        Ok(self.missing().map(|missing| missing == 0 && self.header.len() == 4))
    }
}

struct Outgoing<'a> {
    frame: Vec<u8>,
    sent: usize,
    descriptors: &'a [BorrowedFd<'a>],
}

impl<'a> Outgoing<'a> {
    fn new(payload: &[u8], descriptors: &'a [BorrowedFd<'a>]) -> Result<Self, WireError> {
        let length = u32::try_from(payload.len()).ok().filter(|length| *length as usize <= FRAME);
        let Some(length) = length else { return Err(WireError::TooLong(payload.len())) };
        let mut frame = Vec::with_capacity(4 + payload.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        Ok(Self { frame, sent: 0, descriptors })
    }

    /// Sends once; true when the frame is out.
    fn step(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CARRIED))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if self.sent == 0
            && !self.descriptors.is_empty()
            && !control.push(SendAncillaryMessage::ScmRights(self.descriptors))
        {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let rest = [IoSlice::new(&self.frame[self.sent..])];
        self.sent += sendmsg(socket, &rest, &mut control, SendFlags::NOSIGNAL)?;
        Ok(self.sent == self.frame.len())
    }
}

#[cfg(test)]
mod tests;
