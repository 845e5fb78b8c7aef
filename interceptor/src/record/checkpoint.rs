//! Signed checkpoints: lines of a file beside the database that say which hash the chain had at which event and when,
//! signed with a key of their own. Who has a copy of the file, or of the public key, can tell a chain that was made anew.
//! They are no events: one would make another one due, and say nothing that its line doesn't.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::chain::Head;
use crate::keyfile;

mod follow;

pub use follow::{Signed, follow};

/// How many events at most come between two checkpoints, also where a batch brings more at once.
pub(super) const EVENTS: u64 = 1_000;

/// The first line of what is signed: what a signature can't be confused with.
const CONTEXT: &str = "interceptor record v1 checkpoint";

/// What is read of the file's end at a start: some lines, whatever the file's size.
const TAIL: u64 = 4096;

/// The public key that checkpoints are verified with; 64 hex digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = blake3::Hash::from_hex(text.trim()).map_err(|_| "a public key has 64 hex digits")?;
        Ok(Self(*bytes.as_bytes()))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The event.
    pub seq: u64,
    /// The chain's hash there, in hex.
    pub hash: String,
    /// When it was signed.
    pub at: Timestamp,
    /// BLAKE3 of the line before, without its end, in hex; zeros in the first.
    pub previous: String,
    /// The key that it is signed with.
    pub key: PublicKey,
    /// The signature (Ed25519), in hex.
    pub signature: String,
}

impl Checkpoint {
    /// Reads a line, and checks its signature.
    fn read(line: &str) -> Result<Self, String> {
        let checkpoint: Self = serde_json::from_str(line).map_err(|error| format!("isn't one: {error}"))?;
        if !checkpoint.is_signed() {
            return Err("isn't signed by the key that it names: it was changed".into());
        }
        Ok(checkpoint)
    }

    /// What is signed: a line each of the context and the fields.
    fn signed(&self) -> String {
        format!("{CONTEXT}\n{}\n{}\n{}\n{}\n{}\n", self.seq, self.hash, self.at, self.previous, self.key)
    }

    fn is_signed(&self) -> bool {
        let Some(signature) = super::payload::unhex(&self.signature) else { return false };
        UnparsedPublicKey::new(&ED25519, self.key.0).verify(self.signed().as_bytes(), &signature).is_ok()
    }
}

fn digest(line: &str) -> String {
    blake3::hash(line.as_bytes()).to_hex().to_string()
}

/// The checkpoints of a file, whose signatures and order are sound.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoints {
    pub(super) all: Vec<Checkpoint>,
    /// Bytes at the end that are no whole line: the daemon was killed while it wrote.
    pub(super) torn: usize,
    /// BLAKE3 of the last line; zeros if there is none.
    last: String,
}

impl Checkpoints {
    /// Reads a file and checks all that it says by itself; `key` is whose signatures count, none: the one that the last
    /// line names.
    pub(super) fn read(text: &[u8], key: Option<PublicKey>) -> Result<Self, String> {
        let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let torn = text.len() - end;
        let whole = std::str::from_utf8(&text[..end]).map_err(|_| "the checkpoints aren't text".to_owned())?;
        let mut found = Self { all: Vec::new(), torn, last: Head::default().hex() };
        for (number, line) in (1..).zip(whole.lines()) {
            let wrong = |what: &str| format!("the checkpoint in line {number} {what}");
            let checkpoint = Checkpoint::read(line).map_err(|what| wrong(&what))?;
            if checkpoint.previous != found.last {
                return Err(wrong("doesn't follow the line before: one is missing, or was put in"));
            }
            if found.all.last().is_some_and(|before| before.seq >= checkpoint.seq) {
                return Err(wrong("is of no later event than the one before"));
            }
            found.last = digest(line);
            found.all.push(checkpoint);
        }
        let key = key.or_else(|| found.all.last().map(|last| last.key));
        if let Some((number, other)) = (1..).zip(&found.all).find(|(_, checkpoint)| Some(checkpoint.key) != key) {
            return Err(format!("the checkpoint in line {number} is signed with another key: {}", other.key));
        }
        Ok(found)
    }
}

/// Signs checkpoints and appends them to their file.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
    path: PathBuf,
    last: String,
    seq: u64,
    /// Since when events wait for a checkpoint.
    since: Option<Instant>,
    /// How long at most they do.
    patience: Duration,
}

/// Where the record's signing key is, beside the database.
pub(super) fn key_file(database: &Path) -> PathBuf {
    database.with_file_name("checkpoint.key")
}

/// Where the checkpoints are, beside the database: under the name of one that was moved aside, else in `checkpoints`.
pub(super) fn file(database: &Path) -> PathBuf {
    let own = database.with_extension("checkpoints");
    if own.exists() { own } else { database.with_file_name("checkpoints") }
}

fn pair(path: &Path) -> Result<Ed25519KeyPair, RecordError> {
    let seed = keyfile::open(path)?;
    Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_rejected| RecordError::Unsealed)
}

fn public(pair: &Ed25519KeyPair) -> PublicKey {
    let mut key = [0; 32];
    key.copy_from_slice(pair.public_key().as_ref());
    PublicKey(key)
}

/// The public key of the record beside `database`, if its signing key is there and may be read.
pub(super) fn public_key(database: &Path) -> Option<PublicKey> {
    let path = key_file(database);
    path.exists().then(|| pair(&path).ok()).flatten().as_ref().map(public)
}

impl Signer {
    /// Opens the key and the file beside `database`, and cuts off what a killed daemon left of a line. Also gives its last
    /// checkpoint, or what is wrong with that. The rest of the file is for `verify` to look at: it grows for ever. An event
    /// waits for its checkpoint for `patience` at most.
    pub(super) fn open(
        database: &Path,
        patience: Duration,
    ) -> Result<(Self, Result<Option<Head>, String>), RecordError> {
        let path = file(database);
        let using = |source| RecordError::File { doing: "use", path: path.clone(), source };
        let pair = pair(&key_file(database))?;
        let (tail, length) = tail(&path).map_err(using)?;
        let (line, end) = last_whole(&tail);
        let line = String::from_utf8_lossy(line);
        let read = match line.is_empty() {
            // A file that has no line in this much is none of checkpoints.
            true if length >= TAIL => Err("isn't one: it is too long".to_owned()),
            true => Ok(None),
            false => Checkpoint::read(&line).map(Some),
        };
        let torn = tail.len() - end;
        if read.is_ok() && torn > 0 {
            let file = OpenOptions::new().write(true).open(&path).map_err(using)?;
            file.set_len(length - torn as u64).map_err(using)?;
        }
        // What is wrong with the file is reported, not mended: the next line follows whatever stands there.
        let last = if line.is_empty() { Head::default().hex() } else { digest(&line) };
        let end = read.map_err(|what| format!("the last checkpoint {what}")).map(|checkpoint| {
            let checkpoint = checkpoint?;
            Some(Head { seq: checkpoint.seq, hash: *blake3::Hash::from_hex(&checkpoint.hash).ok()?.as_bytes() })
        });
        let seq = end.as_ref().ok().copied().flatten().map_or(0, |head| head.seq);
        Ok((Self { pair, path, last, seq, since: None, patience }, end))
    }

    /// The event of the last checkpoint; 0 before the first.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Takes note of the end of the chain. Gives since when events wait for a checkpoint and when it is due; none if all
    /// have one.
    pub(super) fn due(&mut self, head: Head, now: Instant) -> Option<(Instant, Instant)> {
        if head.seq <= self.seq {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        Some((since, if head.seq - self.seq >= EVENTS { now } else { since + self.patience }))
    }

    /// Signs links of the chain, in its order and all of them on the disk, and appends them: all or none.
    pub(super) fn sign(&mut self, links: &[Head], at: Timestamp) -> io::Result<()> {
        let (mut last, mut seq, mut lines) = (self.last.clone(), self.seq, String::new());
        for link in links {
            let line = self.line(*link, at, last)?;
            lines.push_str(&line);
            lines.push('\n');
            (last, seq) = (digest(&line), link.seq);
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let length = file.metadata()?.len();
        if let Err(error) = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()) {
            // Half a line would spoil the next one.
            let _cut = file.set_len(length);
            return Err(error);
        }
        (self.last, self.seq, self.since) = (last, seq, None);
        Ok(())
    }

    /// The line of a link, behind the line with the digest `previous`.
    fn line(&self, link: Head, at: Timestamp, previous: String) -> io::Result<String> {
        let (hash, key) = (link.hex(), public(&self.pair));
        let mut checkpoint = Checkpoint { seq: link.seq, hash, at, previous, key, signature: String::new() };
        let signature = self.pair.sign(checkpoint.signed().as_bytes());
        checkpoint.signature = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        serde_json::to_string(&checkpoint).map_err(io::Error::other)
    }
}

/// BLAKE3 of the last whole line of a file of checkpoints, in hex: each line has that of the one before, so it is one of all of
/// them. None where there is none.
pub(super) fn last_line(path: &Path) -> io::Result<Option<String>> {
    let (tail, _) = tail(path)?;
    let (line, _) = last_whole(&tail);
    Ok((!line.is_empty()).then(|| digest(&String::from_utf8_lossy(line))))
}

/// The last whole line, without its end, and where the next one begins.
fn last_whole(tail: &[u8]) -> (&[u8], usize) {
    let end = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    (tail[..end].trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default(), end)
}

/// The end of a file, at most [`TAIL`] bytes of it, and the size of all of it; nothing where there is no file.
fn tail(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok((tail, length))
}

/// Writes what SQLite wrote ahead to the disk, so that a checkpoint never knows more than the disk does.
pub(super) fn settle(database: &Path) -> io::Result<()> {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    match File::open(wal) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
