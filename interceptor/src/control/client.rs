//! The client's side of the control socket: one call, one answer. Blocks; no runtime.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::protocol::{Request, Response};
use super::wire::{self, RESPONSE_DESCRIPTORS, WireError};

/// Why a call got no answer, or none that helps. What is printed says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "the daemon isn't running: nobody answers on `{}`; start it (`interceptor daemon` \
         as root), or name its socket with `--socket`",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket may not be used.
    #[error("`{}` may not be used by this user; every user may connect to the daemon's own socket", .0.display())]
    Forbidden(PathBuf),
    /// The daemon said no.
    #[error("{message} ({code}); {next}")]
    Refused {
        /// The stable code.
        code: String,
        /// What stood in the way.
        message: String,
        /// What to do next.
        next: String,
    },
    /// It listens and doesn't answer.
    #[error("the daemon doesn't answer within {} seconds; look at its log", .0.as_secs())]
    Silent(Duration),
    /// It answered something else.
    #[error("the daemon answered what this version doesn't understand: {0}; use an `interceptor` of its version")]
    Garbled(String),
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}; look at its log")]
    Broken(#[from] WireError),
}

/// An answer in the shape that the request has.
///
/// # Errors
/// It has another.
pub fn decoded<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|error| ClientError::Garbled(error.to_string()))
}

/// Asks the daemon at `socket`; the value's shape is the request's.
///
/// # Errors
///
/// See [`ClientError`].
pub fn call(socket: &Path, request: &Request) -> Result<Value, ClientError> {
    call_with(socket, request, &[]).map(|(value, _)| value)
}

/// As [`call`], with descriptors to go along and those that came back.
///
/// # Errors
///
/// See [`ClientError`].
pub fn call_with(
    socket: &Path,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(Value, Vec<OwnedFd>), ClientError> {
    let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(socket.to_path_buf()),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(socket.to_path_buf()),
        _ => ClientError::Broken(error.into()),
    })?;
    // A record of years takes its time to be verified.
    let patience = if matches!(request, Request::SessionsVerify) { None } else { Some(PATIENCE) };
    let timed = stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    timed.map_err(WireError::Io)?;
    let payload = serde_json::to_vec(request).map_err(|error| ClientError::Garbled(error.to_string()))?;
    if let Err(error) = wire::send(&stream, &payload, descriptors) {
        // It may have been refused before it was read: then the answer is there all the same.
        let refused = wire::receive(&stream, RESPONSE_DESCRIPTORS).ok().and_then(|frame| understand(frame).err());
        return Err(refused.unwrap_or(ClientError::Broken(error)));
    }
    match wire::receive(&stream, RESPONSE_DESCRIPTORS) {
        Ok(frame) => understand(frame),
        Err(WireError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(ClientError::Silent(PATIENCE)),
        Err(error) => Err(ClientError::Broken(error)),
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

fn understand((payload, descriptors): wire::Frame) -> Result<(Value, Vec<OwnedFd>), ClientError> {
    match serde_json::from_slice(&payload) {
        Ok(Response::Done(value)) => Ok((value, descriptors)),
        Ok(Response::Refused { code, message, next }) => Err(ClientError::Refused { code, message, next }),
        Err(error) => Err(ClientError::Garbled(error.to_string())),
    }
}
