//! The record: what happened, tamper-evident and searchable. A [`Journal`] takes events at once and survives kill -9;
//! one writer moves them into SQLite; [`query`] and [`verify()`] read from there.
//!
//! On disk, in the state directory: `journal/` (segments that wait for the writer), `record.db`, `record.head` (the end
//! of the chain, kept apart), `checkpoints` and `checkpoint.key` (the chain, signed), `payload.key` (wraps the keys of
//! sessions) and `record.lock` (one daemon at a time). The formats are described in `docs/record.md`.

pub mod approval;
mod backlog;
pub mod break_glass;
mod chain;
pub mod checkpoint;
pub mod event;
mod journal;
mod keys;
pub mod ledger;
mod link;
mod outage;
pub mod payload;
mod projection;
pub mod query;
mod reserve;
mod retention;
mod rotate;
pub mod search;
mod segment;
mod source;
mod store;
mod verify;
mod waiting;
mod writer;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use backlog::Health;
pub use event::Event;
pub use journal::{Journal, Recorded};
pub use keys::Keys;
pub use link::{Link, Placed};
pub use payload::{Content, SessionKey};
pub use query::{QueryError, Reader, Unfinished};
pub use rotate::{Asker, Rotated, rotate};
pub use verify::{Anchored, Damage, Evidence, Fault, Report, verify, verify_with};
pub use waiting::Waiting;

use crate::clock::Clock;
use crate::config::RecordSettings;
use crate::ids;
use crate::keyfile::KeyFileError;
use backlog::Backlog;
use rotate::Hasher;
use writer::Writer;

/// Why something could not be recorded, or the record not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file of the record could not be used.
    #[error("can't {doing} `{path}`; check the disk and the directory's owner and mode", path = path.display())]
    File {
        /// What was tried, as in `open`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("the record's database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// The database was written by a newer version.
    #[error(
        "`{path}` has schema {found}, this version knows up to {known}; run the newer version, or move the file away to \
         begin a new record",
        path = path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// Another daemon has the record open.
    #[error("`{path}` is locked: another daemon keeps its record there; stop it, or set another state directory", path = path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// Somebody has the database open that is to be moved aside.
    #[error("somebody has the database open, so it can't be moved aside; try again when nobody does")]
    InTheWay,
    /// The database before is read still, so that this one has its hash before it is sealed.
    #[error("`{previous}` is still being read, so that its hash is known; begin another database when it is")]
    Hashing {
        /// Its file.
        previous: String,
    },
    /// Another file is where the database was, or none is.
    #[error(
        "`{path}` isn't the database that it was; put that back, or restart the daemon to go on with what is there",
        path = path.display()
    )]
    Replaced {
        /// The database.
        path: PathBuf,
    },
    /// Too much waits for the writer.
    #[error("{waiting} bytes of journal wait for the database, {limit} may; see `interceptor status`")]
    Full {
        /// The bytes that wait.
        waiting: u64,
        /// The bound.
        limit: u64,
    },
    /// The writer is too far behind.
    #[error("the database is {behind:?} behind the journal, {limit:?} is the bound; see `interceptor status`")]
    Lagging {
        /// The age of the oldest entry that waits.
        behind: Duration,
        /// The bound.
        limit: Duration,
    },
    /// No sink outside the host knows what was recorded, and one has to.
    #[error(
        "no sink outside the host has a checkpoint of what was recorded {minutes} minutes ago; see `interceptor status`"
    )]
    Unanchored {
        /// How old the oldest such event is.
        minutes: i64,
    },
    /// The disk is full: what is left is for denials.
    #[error("the disk of the record is full; make room")]
    NoRoom,
    /// An entry could not be written to the journal.
    #[error("the journal can't be written; check the disk")]
    Failed(#[source] io::Error),
    /// The key that payloads are sealed under can't be used; without it none can be read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A payload could not be sealed.
    #[error("a payload can't be sealed")]
    Unsealed,
    /// An event is longer than any entry may be.
    #[error("an event of {bytes} bytes is too long to record; the bound is 16 MiB")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl RecordError {
    /// Whether denials and ends can be recorded all the same: it is what is allowed that may not go on.
    pub fn leaves_denials(&self) -> bool {
        matches!(self, RecordError::Unanchored { .. } | RecordError::NoRoom | RecordError::Lagging { .. })
    }
}

/// The record of one daemon: its journals, its writer, its database.
#[derive(Debug)]
pub struct Record {
    backlog: Arc<Backlog>,
    folder: PathBuf,
    settings: RecordSettings,
    keys: Arc<Keys>,
    writer: Option<JoinHandle<()>>,
    /// One at a time.
    rotating: Mutex<()>,
    _lock: File,
}

impl Record {
    /// Opens the record in the state directory `dir`, moves what an earlier daemon left in its journals into the
    /// database, and starts the writer. Made if it isn't there. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When another daemon has it open, when the database is of a newer version, and when files or SQLite fail.
    pub fn open(dir: &Path, settings: &RecordSettings, clock: Arc<dyn Clock>) -> Result<Self, RecordError> {
        Self::open_with(dir, settings, clock, Arc::new(rotate::digest))
    }

    /// The same, with what hashes the file of a database that was moved aside.
    fn open_with(
        dir: &Path,
        settings: &RecordSettings,
        clock: Arc<dyn Clock>,
        hasher: Hasher,
    ) -> Result<Self, RecordError> {
        make_folder(dir)?;
        let folder = dir.join("journal");
        make_folder(&folder)?;
        let lock = lock(&dir.join("record.lock"))?;
        let keys = Arc::new(Keys::open(&dir.join("payload.key"))?);
        let backlog = Arc::new(Backlog::new(settings, dir.join("record.db")));
        rotate::settle(backlog.database())?;
        let mut writer = Writer::recover(dir, &folder, settings, backlog.clone(), clock)?;
        writer.hasher = hasher;
        // A daemon that was killed may not have come to it.
        writer.hash_before();
        let thread = std::thread::Builder::new()
            .name("record".into())
            .spawn(move || writer.run())
            .map_err(|source| RecordError::File { doing: "start a thread for", path: dir.into(), source })?;
        Ok(Self {
            backlog,
            folder,
            settings: settings.clone(),
            keys,
            writer: Some(thread),
            rotating: Mutex::default(),
            _lock: lock,
        })
    }

    /// A journal of its own for one thread. `name` appears in the names of its files: 1 to 32 letters, digits and `-`.
    ///
    /// # Errors
    /// When its first segment can't be made.
    pub fn journal(&self, name: &str) -> Result<Journal, RecordError> {
        Journal::open(&self.folder, name, &self.settings, self.backlog.clone())
    }

    /// Waits until everything that was appended before this call is in the database. Blocks: not for a worker's thread.
    ///
    /// # Errors
    /// [`RecordError::Lagging`] when that takes longer than `within`.
    pub fn flush(&self, within: Duration) -> Result<(), RecordError> {
        self.backlog.flush(within)
    }

    /// Seals the database, moves it aside and begins a new one. How long that takes doesn't depend on how large it is: the file
    /// is hashed after that, while the record goes on, and [`hash_of`](Self::hash_of) waits for it.
    ///
    /// # Errors
    /// When that takes longer than `within`, when somebody reads the database for long, when the one before is being hashed
    /// for so long, and when files can't be moved.
    pub fn rotate(&self, by: Asker, within: Duration) -> Result<Rotated, RecordError> {
        let _one = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        self.backlog.rotate(by, within)
    }

    /// BLAKE3 of the file `previous` that was moved aside last, in hex. Blocks until that is in the database, at most for
    /// `within`; none where it takes longer, and where the file can't be read.
    pub fn hash_of(&self, previous: &str, within: Duration) -> Option<String> {
        self.backlog.hash_of(previous, within)
    }

    /// How the record is doing, for `status`.
    pub fn health(&self) -> Health {
        self.backlog.health()
    }

    /// Whether there is no disk space for what has to be recorded when the disk is full, though some is wanted: there was no
    /// room for it, or it is in use.
    pub fn lacks_reserve(&self) -> bool {
        self.backlog.lacks_reserve()
    }

    /// A connection of its own for queries. Call [`flush`](Self::flush) first to see what was just appended.
    ///
    /// # Errors
    /// When the database can't be opened.
    pub fn reader(&self) -> Result<Reader, QueryError> {
        Reader::open(self.backlog.database())
    }

    /// Takes note that a sink outside the host has a signed checkpoint of event `seq`, and of all before it; 0 for none. Of the
    /// database that was the newest after so many `renewals` ([`Health::renewals`]): what a sink has of another one says
    /// nothing of the newest.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn anchored(&self, seq: u64, renewals: u64) -> Result<(), QueryError> {
        if self.backlog.is_anchor_required() {
            let next = self.reader()?.links(seq, 1, 1)?;
            let next = next.first().and_then(|link| serde_json::from_str(&link.body).ok());
            self.backlog.anchored(seq, renewals, next.map(|event: event::Stamp| event.at));
        }
        Ok(())
    }

    /// The keys that payloads are sealed under.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }

    /// What an operation sent and got; none where nothing was kept. Whoever shows it records
    /// [`event::What::PayloadRead`] first.
    ///
    /// # Errors
    /// When its key was erased, or the database can't be read.
    pub fn content(&self, operation: ids::OperationId) -> Result<Option<Content>, QueryError> {
        self.reader()?.content(operation, &self.keys)
    }

    /// The database's file, for [`verify()`].
    pub fn database(&self) -> &Path {
        self.backlog.database()
    }
}

impl Drop for Record {
    /// Moves what waits (once; what fails then stays in the journals) and ends the writer.
    fn drop(&mut self) {
        self.backlog.stop();
        if let Some(thread) = self.writer.take()
            && thread.join().is_err()
        {
            tracing::error!("the record's writer panicked; the journals are kept and read again at the next start");
        }
    }
}

/// Enters an event while no daemon has the record in `dir` open, and waits until it is in the database, at most for `within`.
/// Nothing is made where there is no record, and nothing that is in it is pruned.
///
/// # Errors
/// When there is none, when a daemon has it open, and when it can't be written.
pub fn enter(
    dir: &Path,
    settings: &RecordSettings,
    clock: Arc<dyn Clock>,
    what: event::What,
    within: Duration,
) -> Result<(), RecordError> {
    let database = dir.join("record.db");
    std::fs::metadata(&database).map_err(|source| RecordError::File { doing: "open", path: database, source })?;
    let settings = RecordSettings { keep_payloads: None, keep_payloads_of: BTreeMap::new(), ..settings.clone() };
    let event = Event { at: clock.now(), what };
    let record = Record::open(dir, &settings, clock)?;
    let _recorded = record.journal("command")?.append(&event)?;
    record.flush(within)
}

fn make_folder(path: &Path) -> Result<(), RecordError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| RecordError::File {
        doing: "make",
        path: path.into(),
        source,
    })
}

fn lock(path: &Path) -> Result<File, RecordError> {
    let failed = |source| RecordError::File { doing: "lock", path: path.into(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RecordError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests;
