//! The database, as the writer has it: schema, migrations, appending a batch. Queries are in [`super::query`].

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::RecordError;
use super::chain::Head;
use super::event::{self, Begun, Event, Stamp, What};
use super::payload::{self, Parcel};
use super::projection::{self, Rows, integer};
use super::{approval, break_glass, ledger, retention, search};
use crate::config::Durability;
use file::Found;

mod file;

pub(super) use file::FileId;

/// Each brings the schema from the version of its index to the next. Never changed once released; only added to.
const MIGRATIONS: &[&[&str]] = &[
    &[EVENTS, projection::FIRST],
    &[projection::IDENTITIES, projection::CONTENTS, payload::SCHEMA],
    &[projection::MASKED],
    &[search::SCHEMA, retention::SCHEMA],
    &[approval::SCHEMA, break_glass::SCHEMA, retention::SCOPES],
    &[ledger::SCHEMA],
    &[projection::operations::SCHEMA, payload::LEAN],
    &[projection::operations::KEPT],
    &[projection::LAUNCHERS, STATES, projection::operations::SPENT, projection::operations::FILL_SPENT],
    &[projection::CUT, projection::FILL_CUT, projection::OPEN, HASHED],
];

const EVENTS: &str = "
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, hash BLOB NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE INDEX events_loads ON events (seq) WHERE kind = 'snapshot.loaded';
CREATE TRIGGER events_append BEFORE INSERT ON events
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
BEGIN SELECT RAISE(ABORT, 'events are appended, one after the other'); END;
CREATE TRIGGER events_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TABLE journal (segment TEXT PRIMARY KEY, moved INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// The events that say what has become of something: few, and found without reading all when a new database is begun.
const STATES: &str = "
CREATE INDEX events_held ON events (seq) WHERE kind = 'session.held';
CREATE INDEX events_erased ON events (seq) WHERE kind = 'session.erased';
CREATE INDEX events_answered ON events (seq) WHERE kind = 'approval.answered';
CREATE INDEX events_mended ON events (seq) WHERE kind = 'break-glass.ended';
";

/// The way to the hash of the file of the database before.
const HASHED: &str = "
CREATE INDEX events_hashed ON events (seq) WHERE kind = 'record.hashed';
";

/// The events of what is under way at `?1`. None of it reads all events, or all sessions, which would hold everything up.
const UNDER_WAY: &str = "SELECT body FROM events WHERE seq IN (
        SELECT max(seq) FROM events WHERE kind = 'snapshot.loaded'
        UNION SELECT seq FROM workloads WHERE ended_at IS NULL
        UNION SELECT seq FROM sessions INDEXED BY sessions_open WHERE closed_at IS NULL
        UNION SELECT seq FROM operations WHERE finished_at IS NULL
            AND session IN (SELECT session FROM sessions INDEXED BY sessions_open WHERE closed_at IS NULL)
        UNION SELECT seq FROM tokens WHERE expires_at > ?1 AND reason IS NULL
        UNION SELECT seq FROM events INDEXED BY events_held WHERE kind = 'session.held'
            AND body ->> 'session' IN (SELECT session FROM sessions INDEXED BY sessions_open WHERE closed_at IS NULL)
        UNION SELECT seq FROM events INDEXED BY events_erased WHERE kind = 'session.erased'
            AND body ->> 'session' IN (SELECT session FROM sessions INDEXED BY sessions_open WHERE closed_at IS NULL)
        UNION SELECT seq FROM approvals WHERE closed_at IS NULL
        UNION SELECT seq FROM events INDEXED BY events_answered WHERE kind = 'approval.answered'
            AND body ->> 'approval' IN (SELECT approval FROM approvals WHERE closed_at IS NULL)
        UNION SELECT seq FROM break_glass WHERE closed_at IS NULL
        UNION SELECT seq FROM events INDEXED BY events_mended WHERE kind = 'break-glass.ended'
            AND body ->> 'id' IN (SELECT id FROM break_glass WHERE closed_at IS NULL)
    ) ORDER BY seq";

/// Pages that are written ahead before they go into the database's file: 12 MiB.
const WAL_PAGES: i64 = 3_072;
/// The pages that the writer keeps in memory: as many as a large batch changes.
const CACHE_KIB: i64 = 8_192;

/// An event on its way into the database.
#[derive(Debug)]
pub(super) struct Entry {
    at: Timestamp,
    kind: String,
    body: String,
    event: Option<Event>,
}

impl Entry {
    /// Reads the body of a frame; none if no version of this program can have written it.
    pub(super) fn new(body: Vec<u8>) -> Option<Self> {
        let body = String::from_utf8(body).ok()?;
        let (Stamp { at, kind }, event) = event::read(&body)?;
        Some(Self { at, kind, body, event })
    }

    /// An event that the writer itself makes.
    pub(super) fn of(event: &Event) -> Result<Self, RecordError> {
        let body = serde_json::to_vec(event).map_err(|error| RecordError::Failed(error.into()))?;
        Self::new(body).ok_or_else(|| RecordError::Failed(io::ErrorKind::InvalidData.into()))
    }

    /// Whether it asks for something to be destroyed.
    pub(super) fn destroys(&self) -> bool {
        self.event.as_ref().is_some_and(retention::destroys)
    }

    /// When it happened.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }
}

/// The writer's connection, and the end of the chain.
#[derive(Debug)]
pub(super) struct Store {
    db: Connection,
    head: Head,
    destroys: bool,
    path: PathBuf,
    /// The file, as this connection left it.
    file: Found,
}

impl Store {
    /// Opens the database, makes it if it isn't there, and brings its schema up to date.
    pub(super) fn open(path: &Path, durability: Durability) -> Result<Self, RecordError> {
        // SQLite gives its -wal and -shm files the mode of this one.
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| RecordError::File { doing: "open", path: path.into(), source })?;
        let mut db =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        db.busy_timeout(Duration::from_millis(250))?;
        db.set_prepared_statement_cache_capacity(64);
        migrate(&mut db, path, MIGRATIONS)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "journal_size_limit", 16 << 20)?;
        // Batch after batch changes the same pages; they go into the database's file once for all of these.
        db.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        overwrite(&db, false)?;
        let synchronous = match durability {
            Durability::Process => "normal",
            Durability::PowerLoss => "full",
        };
        db.pragma_update(None, "synchronous", synchronous)?;
        let last = db
            .query_row("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?))
            })
            .optional()?;
        let head = last.map_or_else(Head::default, |(seq, hash)| Head { seq: seq.cast_unsigned(), hash });
        let file = Found::at(path).map_err(|source| RecordError::File { doing: "open", path: path.into(), source })?;
        Ok(Self { db, head, destroys: false, path: path.into(), file })
    }

    /// The file that is open.
    pub(super) fn file(&self) -> FileId {
        self.file.id
    }

    /// Whether somebody else has written into that file since this connection did.
    pub(super) fn is_overwritten(&self) -> bool {
        Found::at(&self.path).is_ok_and(|found| found.id == self.file.id && found != self.file)
    }

    /// Closes it. Gives the end of the chain, and whether the file was overwritten: what is written ahead then stays in the log,
    /// because the file isn't the one any more that it goes with.
    pub(super) fn close(self) -> (Head, bool) {
        let overwritten = self.is_overwritten();
        if overwritten && let Err(error) = self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::warn!(%error, "the log of an overwritten database may not be kept");
        }
        (self.head, overwritten)
    }

    /// Does what may write into the file, where nobody else has.
    fn alone<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, RecordError>) -> Result<T, RecordError> {
        if self.is_overwritten() {
            return Err(RecordError::Replaced { path: self.path.clone() });
        }
        let done = work(self)?;
        if let Ok(found) = Found::at(&self.path)
            && found.id == self.file.id
        {
            self.file = found;
        }
        Ok(done)
    }

    /// The end of the chain.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Whether the chain has this link.
    pub(super) fn has(&self, link: Head) -> Result<bool, RecordError> {
        let hash = self
            .db
            .query_row("SELECT hash FROM events WHERE seq = ?1", [integer(link.seq)], |row| row.get::<_, [u8; 32]>(0))
            .optional()?;
        Ok(link.seq == 0 || hash == Some(link.hash))
    }

    /// Links of the chain behind event `after`: each `step`th from there, and the last one; at most `count`. One that isn't
    /// there any more is left out.
    pub(super) fn links(&self, after: u64, step: u64, count: usize) -> Result<Vec<Head>, RecordError> {
        let mut statement = self.db.prepare_cached("SELECT hash FROM events WHERE seq = ?1")?;
        let mut links = Vec::new();
        let mut seq = after + step;
        while seq < self.head.seq && links.len() < count {
            let hash = statement.query_row([integer(seq)], |row| row.get(0)).optional()?;
            links.extend(hash.map(|hash| Head { seq, hash }));
            seq += step;
        }
        if links.len() < count && after < self.head.seq {
            links.push(self.head);
        }
        Ok(links)
    }

    /// How far each segment is in the database already.
    pub(super) fn positions(&self) -> Result<HashMap<String, u64>, RecordError> {
        let mut statement = self.db.prepare_cached("SELECT segment, moved FROM journal")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The events of what is under way at `at`: the policies in force, launches, sessions and operations without an end,
    /// tokens that are accepted.
    pub(super) fn under_way(&self, at: Timestamp) -> Result<Vec<Entry>, RecordError> {
        let mut statement = self.db.prepare(UNDER_WAY)?;
        let bodies = statement.query_map([at.to_string()], |row| row.get::<_, String>(0))?;
        let bodies = bodies.collect::<Result<Vec<_>, _>>()?;
        let mut entries: Vec<_> = bodies.into_iter().filter_map(|body| Entry::new(body.into_bytes())).collect();
        for left in approval::left(&self.db).map_err(|error| RecordError::Failed(io::Error::other(error)))? {
            entries.push(Entry::of(&left)?);
        }
        Ok(entries)
    }

    /// The file of the database before, where its hash isn't in this one, though the first event leaves that to a later one.
    pub(super) fn unhashed(&self) -> Result<Option<String>, RecordError> {
        let first = "SELECT body FROM events WHERE seq = 1 AND kind = 'record.begun'";
        let first: Option<String> = self.db.query_row(first, [], |row| row.get(0)).optional()?;
        let Some((_, Some(event))) = first.as_deref().and_then(event::read) else { return Ok(None) };
        let What::RecordBegun(Begun { previous, digest: None, .. }) = event.what else { return Ok(None) };
        let told = "SELECT EXISTS (SELECT 1 FROM events INDEXED BY events_hashed
                    WHERE kind = 'record.hashed' AND body ->> 'previous' = ?1 AND body ->> 'digest' IS NOT NULL)";
        let told: bool = self.db.query_row(told, [&previous], |row| row.get(0))?;
        Ok((!told).then_some(previous))
    }

    /// Drops the positions of segments that are gone.
    pub(super) fn forget(&mut self, gone: &[String]) -> Result<(), RecordError> {
        self.alone(|store| {
            let transaction = store.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for segment in gone {
                transaction.execute("DELETE FROM journal WHERE segment = ?1", [segment])?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Whether what is deleted from now on is overwritten wherever it is. Not always, because the full-text index deletes much.
    fn destroy(&mut self, destroys: bool) -> Result<(), RecordError> {
        if self.destroys != destroys {
            overwrite(&self.db, destroys)?;
            self.destroys = destroys;
        }
        Ok(())
    }

    /// Deletes a portion of what is to be pruned. Gives whether there was any.
    pub(super) fn prune(&mut self) -> Result<bool, RecordError> {
        if !retention::is_pruning(&self.db)? {
            return Ok(false);
        }
        self.destroy(true)?;
        self.alone(|store| {
            let transaction = store.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let gone = retention::prune(&transaction)?;
            transaction.commit()?;
            Ok(gone)
        })
    }

    /// Whether an event that asks for pruning would find anything.
    pub(super) fn finds(&self, what: &What) -> Result<bool, RecordError> {
        Ok(retention::finds(&self.db, what)?)
    }

    /// Gives back the pages that are kept for what comes next.
    pub(super) fn release_memory(&self) -> Result<(), RecordError> {
        Ok(self.db.execute_batch("PRAGMA shrink_memory")?)
    }

    /// Brings all that was written ahead into the database's file and empties the rest. Gives whether nobody was in the way.
    pub(super) fn truncate(&mut self) -> Result<bool, RecordError> {
        self.alone(Self::empty_log)
    }

    /// The same, wherever the file is by now.
    pub(super) fn empty_log(&mut self) -> Result<bool, RecordError> {
        Ok(self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))? == 0)
    }

    /// Leaves the write-ahead log, which is a file of its name: whoever had the database open when that is moved would remove,
    /// when he closes it, the log of the one that takes its place. Gives whether nobody else has it open.
    pub(super) fn leave_log(&mut self) -> Result<bool, RecordError> {
        self.alone(|store| {
            match store.db.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0)) {
                Ok(mode) => Ok(mode == "delete"),
                Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Appends events, keeps payloads, and says how far their segments are in now: all of it, or nothing. Gives whether
    /// something was destroyed of which the write-ahead log or the journals still have traces.
    ///
    /// # Errors
    /// [`RecordError::Replaced`] when the database isn't as this connection left it, besides what SQLite has against it.
    pub(super) fn append(
        &mut self,
        entries: &[Entry],
        payloads: &[Parcel],
        moved: &[(String, u64)],
    ) -> Result<bool, RecordError> {
        self.alone(|store| store.insert(entries, payloads, moved))
    }

    fn insert(&mut self, entries: &[Entry], payloads: &[Parcel], moved: &[(String, u64)]) -> Result<bool, RecordError> {
        let mut leaves_traces = entries.iter().any(Entry::destroys);
        self.destroy(leaves_traces)?;
        let mut head = self.head;
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // What replaces all of it by a transaction of its own (`.restore`) leaves the file to be written later.
        let last = transaction
            .prepare_cached("SELECT hash FROM events ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| row.get::<_, [u8; 32]>(0))
            .optional()?;
        if last.unwrap_or_default() != head.hash {
            return Err(RecordError::Replaced { path: self.path.clone() });
        }
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO events (seq, at, kind, hash, body) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            let mut rows = Rows::new(&transaction);
            for entry in entries {
                head = head.next(entry.body.as_bytes());
                insert.execute(params![integer(head.seq), entry.at.to_string(), entry.kind, head.hash, entry.body])?;
                if let Some(event) = &entry.event {
                    rows.apply(head.seq, event)?;
                    retention::enact(&transaction, integer(head.seq), event)?;
                }
            }
            rows.write()?;
            leaves_traces |= payload::keep(&transaction, payloads)?;
            let mut position = transaction.prepare_cached(
                "INSERT INTO journal (segment, moved) VALUES (?1, ?2)
                 ON CONFLICT (segment) DO UPDATE SET moved = excluded.moved",
            )?;
            for (segment, offset) in moved {
                position.execute(params![segment, integer(*offset)])?;
            }
        }
        transaction.commit()?;
        self.head = head;
        Ok(leaves_traces)
    }
}

/// Whether what is deleted is overwritten in pages that become free as well. In those that are written anyway it always is,
/// which costs nothing: dividing a page leaves copies of its rows behind, among them wrapped keys, and an erasure that comes
/// later doesn't find them.
fn overwrite(db: &Connection, also_free_pages: bool) -> rusqlite::Result<()> {
    db.pragma_update(None, "secure_delete", if also_free_pages { "on" } else { "fast" })
}

/// The newest schema that this version knows.
pub(super) fn known_schema() -> i64 {
    integer(MIGRATIONS.len() as u64)
}

/// An empty database of this schema, in memory. Of one that never was it has nothing.
pub(super) fn empty(schema: i64) -> Result<Connection, RecordError> {
    let mut db = Connection::open_in_memory()?;
    let steps = usize::try_from(schema).ok().and_then(|schema| MIGRATIONS.get(..schema));
    migrate(&mut db, Path::new(":memory:"), steps.unwrap_or_default())?;
    Ok(db)
}

/// Brings an empty database to an older schema.
#[cfg(test)]
pub(super) fn older(db: &mut Connection, version: usize) -> Result<(), RecordError> {
    migrate(db, Path::new(":memory:"), &MIGRATIONS[..version])
}

/// Refuses a schema that is newer than `known`; gives the version otherwise.
pub(super) fn schema_of(db: &Connection, path: &Path, known: i64) -> Result<i64, RecordError> {
    let found = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(RecordError::Newer { path: path.into(), found, known });
    }
    Ok(found)
}

/// Opens a database without ever writing to it; also one in a folder that can't be written, if it is a clean copy.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, RecordError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let missing = |source| RecordError::File { doing: "open", path: path.to_owned(), source };
    std::fs::metadata(path).map_err(missing)?;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(Duration::from_secs(2))?;
    db.pragma_update(None, "trusted_schema", false)?;
    let wal = Path::new(&format!("{}-wal", path.display())).exists();
    match db.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())) {
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == rusqlite::ErrorCode::CannotOpen && !wal => {
            let text = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let uri = format!("file:{text}?immutable=1");
            Ok(Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?)
        }
        other => Ok(other.map(|()| db)?),
    }
}

/// Applies what is missing of `migrations`, all of it or nothing.
fn migrate(db: &mut Connection, path: &Path, migrations: &[&[&str]]) -> Result<(), RecordError> {
    let known = integer(migrations.len() as u64);
    if schema_of(db, path, known)? == known {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = schema_of(&transaction, path, known)?;
    for step in migrations.iter().skip(usize::try_from(found).unwrap_or(0)).copied().flatten() {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests;
