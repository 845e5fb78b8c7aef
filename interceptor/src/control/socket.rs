//! Sockets on the filesystem: made with their final mode before anybody can see them, replaced only when nobody answers.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why a socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("a daemon already answers on `{}`; end that one first", .0.display())]
    Answered(PathBuf),
    /// Something else has its name.
    #[error("`{}` is in the way and isn't a socket; move it away", .0.display())]
    NotASocket(PathBuf),
    /// It can't be made.
    #[error("can't listen on `{}`: {why}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

/// Listens on `path` with `mode`, and with `group` if there is one. The folder is made, with mode 0755, if it isn't
/// there; a socket that a dead daemon left is replaced.
///
/// # Errors
///
/// Somebody answers there, something else is there, or the kernel refuses.
pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<UnixListener, SocketError> {
    let failed = |why| SocketError::Failed { path: path.to_path_buf(), why };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_path_buf())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // A full backlog is an answer as well.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(failed(error)),
            _ => return Err(SocketError::Answered(path.to_path_buf())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(failed)?;
    if group.is_some() {
        chown(&new, None, group).map_err(failed)?;
    }
    fs::set_permissions(&new, Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    Ok(listener)
}
