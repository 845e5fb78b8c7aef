//! The hash of the file of a database that was moved aside. It takes as long as the file is large: a thread computes it
//! while the new database is in use already, and its event follows. What a killed daemon didn't come to is made up for at the
//! next start. Not here: who enters it while the record is open (`writer/hash_before.rs`).

use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::setpriority_process;

use super::super::RecordError;
use super::super::backlog::Backlog;
use super::super::event::{Event, Hashed, What};
use super::super::store::{Entry, Store};
use crate::clock::Clock;
use crate::config::Durability;

/// Hashes a file: in hex, or none when it is told to stop.
pub(in crate::record) type Hasher = Arc<dyn Fn(&Path, &AtomicBool) -> io::Result<Option<String>> + Send + Sync>;

/// How many bytes are read between two looks whether to stop.
const PIECE: usize = 1 << 20;

/// The priority of the thread (sched(7), nice): everything else comes first.
const LOW: i32 = 10;

/// A thread that hashes a file. It ends when this is dropped.
pub(in crate::record) struct Hashing {
    stop: Arc<AtomicBool>,
}

impl Hashing {
    /// Begins with `previous` at the path `aside`, and tells `backlog` what came of it.
    pub(in crate::record) fn start(
        aside: PathBuf,
        previous: String,
        hasher: Hasher,
        backlog: Arc<Backlog>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let work = move || {
            if let Err(error) = setpriority_process(None, LOW) {
                tracing::debug!(%error, "the thread that hashes a database can't yield");
            }
            // Who waits for it has to be told in any case.
            let read = catch_unwind(AssertUnwindSafe(|| hasher(&aside, &seen)))
                .unwrap_or_else(|_panicked| Err(io::Error::other("the thread that read it panicked")));
            if let Some(hashed) = told(previous, read) {
                backlog.hashed(hashed);
            }
        };
        let _detached = std::thread::Builder::new().name("record-hash".into()).spawn(work)?;
        Ok(Self { stop })
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// BLAKE3 of a file, in hex; none when it is told to stop.
pub(in crate::record) fn digest(path: &Path, stop: &AtomicBool) -> io::Result<Option<String>> {
    let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
    let mut piece = vec![0; PIECE];
    while !stop.load(Ordering::Relaxed) {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Some(hasher.finalize().to_hex().to_string())),
            Ok(read) => {
                hasher.update(&piece[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Enters the hash of the file before into the database `database`, which nobody has open, where it isn't in there yet. Gives
/// it where it was made now.
///
/// # Errors
/// When the database can't be written. A file that can't be read is entered as such.
pub(super) fn enter(
    database: &Path,
    durability: Durability,
    clock: &Arc<dyn Clock>,
) -> Result<Option<String>, RecordError> {
    let mut store = Store::open(database, durability)?;
    let Some(previous) = store.unhashed()? else { return Ok(None) };
    let aside = database.with_file_name(&previous);
    let Some(hashed) = told(previous, digest(&aside, &AtomicBool::new(false))) else { return Ok(None) };
    let made = hashed.digest.clone();
    store.append(&[Entry::of(&Event { at: clock.now(), what: What::RecordHashed(hashed) })?], &[], &[])?;
    Ok(made)
}

/// What is told of a file; nothing where reading it was stopped.
fn told(previous: String, read: io::Result<Option<String>>) -> Option<Hashed> {
    match read {
        Ok(None) => None,
        Ok(digest) => Some(Hashed { previous, digest, failed: None }),
        Err(error) => {
            tracing::error!(previous, %error, "the file of the database before can't be hashed");
            Some(Hashed { previous, digest: None, failed: Some(error.to_string()) })
        }
    }
}
