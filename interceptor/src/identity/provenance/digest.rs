//! The keyed digest of a token, and its key: 32 random bytes in a file that is the daemon's alone. Without the key a
//! digest can't be compared with a token, so a stolen record doesn't tell whose a stolen token is.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The name of the key's file in the state folder.
const FILE: &str = "provenance.key";

/// What went wrong with the key's file.
#[derive(Debug, thiserror::Error)]
pub enum DigestKeyError {
    /// It couldn't be read or written.
    #[error("couldn't use `{}`, the key of provenance", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the daemon could read or replace it.
    #[error("`{}` {problem}; make it the daemon's own and take all rights from group and others", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It isn't 32 bytes.
    #[error("`{}` isn't a key of 32 bytes; move it away to have a new one made: tokens that were issued until now are then unknown", .0.display())]
    Malformed(PathBuf),
    /// The system has no random bytes.
    #[error("couldn't make the key of provenance: no random bytes")]
    Random,
}

/// BLAKE3 of a token, under the daemon's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that isn't 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token's digest is 64 hexadecimal digits")]
pub struct DigestError;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        blake3::Hash::from_hex(text).map(|hash| Digest(*hash.as_bytes())).map_err(|_| DigestError)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// The key under which tokens are digested.
pub struct DigestKey(Zeroizing<[u8; 32]>);

impl DigestKey {
    /// Loads the key from the state folder, or makes it at the first start (mode 0600). Two that start at once end up
    /// with the same one.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(state: &Path) -> Result<DigestKey, DigestKeyError> {
        let path = state.join(FILE);
        if let Some(key) = read(&path)? {
            return Ok(key);
        }
        create(&path)?;
        read(&path)?.ok_or(DigestKeyError::Malformed(path))
    }

    /// The digest of a token.
    pub fn digest(&self, token: &str) -> Digest {
        Digest(*blake3::keyed_hash(&self.0, token.as_bytes()).as_bytes())
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(…)")
    }
}

fn read(path: &Path) -> Result<Option<DigestKey>, DigestKeyError> {
    let io_at = |source| DigestKeyError::Io { path: path.to_owned(), source };
    let exposed = |problem| DigestKeyError::Exposed { path: path.to_owned(), problem };
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
        return Err(DigestKeyError::Malformed(path.to_owned()));
    }
    let mut key = Zeroizing::new([0; 32]);
    file.read_exact(key.as_mut()).map_err(io_at)?;
    Ok(Some(DigestKey(key)))
}

/// Writes a new key so that it is there as a whole or not at all, also after a loss of power. One that is already there
/// stays.
fn create(path: &Path) -> Result<(), DigestKeyError> {
    let io_at = |source| DigestKeyError::Io { path: path.to_owned(), source };
    let mut key = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(key.as_mut()).map_err(|_| DigestKeyError::Random)?;
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
