//! Key files: 32 random bytes that are the daemon's alone, made at the first start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A key; wiped when it is dropped.
pub type Key = Zeroizing<[u8; 32]>;

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It couldn't be read or written.
    #[error("can't use the key file `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the daemon could read or replace it.
    #[error("the key file `{}` {problem}; make it the daemon's own and take all rights from group and others", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It isn't 32 bytes.
    #[error("`{}` isn't a key of 32 bytes; put the right one back, or move it away to have a new one made, under which nothing of the old one is known", .0.display())]
    Malformed(PathBuf),
    /// The system has no random bytes.
    #[error("can't make a key: no random bytes")]
    Random,
}

/// Reads a key file, or makes it where there is none (mode 0600). Two that do so at once end up with the same key.
///
/// # Errors
/// What is wrong with the file.
pub fn open(path: &Path) -> Result<Key, KeyFileError> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    create(path)?;
    read(path)?.ok_or_else(|| KeyFileError::Malformed(path.to_owned()))
}

/// A new key.
///
/// # Errors
/// [`KeyFileError::Random`], which doesn't happen.
pub fn random() -> Result<Key, KeyFileError> {
    let mut key = Key::default();
    aws_lc_rs::rand::fill(key.as_mut()).map_err(|_unspecified| KeyFileError::Random)?;
    Ok(key)
}

fn read(path: &Path) -> Result<Option<Key>, KeyFileError> {
    let io_at = |source| KeyFileError::Io { path: path.to_owned(), source };
    let exposed = |problem| KeyFileError::Exposed { path: path.to_owned(), problem };
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_at(error)),
    };
    let metadata = file.metadata().map_err(io_at)?;
    if !metadata.is_file() {
        return Err(exposed("isn't a file"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(exposed("belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(exposed("is open to group or others"));
    }
    if metadata.len() != 32 {
        return Err(KeyFileError::Malformed(path.to_owned()));
    }
    let mut key = Key::default();
    file.read_exact(key.as_mut()).map_err(io_at)?;
    Ok(Some(key))
}

/// Writes a new key so that it is there as a whole or not at all, also after a loss of power. One that is already there
/// stays.
fn create(path: &Path) -> Result<(), KeyFileError> {
    let io_at = |source| KeyFileError::Io { path: path.to_owned(), source };
    let key = random()?;
    let draft = path.with_extension(format!("new.{}", std::process::id()));
    let written = write_new(&draft, key.as_ref()).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&draft);
    let synced = path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all());
    written.and(removed).and(synced).map_err(io_at)
}

fn write_new(path: &Path, key: &[u8]) -> io::Result<()> {
    // What a crash left behind under this name is nobody's.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
