//! The hash chain over the events, and the file that keeps its end apart from the database.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The key derivation context of the chain (BLAKE3's `derive_key` mode): what a link's hash can't be confused with.
const CONTEXT: &str = "interceptor record v1 event chain";

/// The end of the chain: the last event and its hash. Before the first event: 0 and zeros.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: [u8; 32],
}

/// Where the end of the chain is kept: beside a database that was moved aside under its name, else in `record.head`.
pub(super) fn head_file(database: &Path) -> PathBuf {
    let own = database.with_extension("head");
    if own.exists() { own } else { database.with_file_name("record.head") }
}

impl Head {
    /// The end of the chain after one more event.
    pub(super) fn next(&self, body: &[u8]) -> Self {
        let seq = self.seq + 1;
        // Making one hashes the context first.
        static BEGUN: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key(CONTEXT));
        let mut hasher = BEGUN.clone();
        hasher.update(&self.hash).update(&seq.to_be_bytes()).update(body);
        Self { seq, hash: *hasher.finalize().as_bytes() }
    }

    /// The hash in hex.
    pub(super) fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex().to_string()
    }

    /// Reads the file; none if it isn't there.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it isn't of the form `SEQ HASH`.
    pub(super) fn load(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let parsed = text.trim_end().split_once(' ').and_then(|(seq, hash)| {
            Some(Self { seq: seq.parse().ok()?, hash: *blake3::Hash::from_hex(hash).ok()?.as_bytes() })
        });
        parsed.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it isn't `SEQ HASH`"))
    }

    /// Writes the file anew, as a whole or not at all.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("head.new");
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        writeln!(file, "{self}")?;
        fs::rename(&new, path)
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seq, self.hex())
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
