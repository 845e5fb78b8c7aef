//! Sealing a database and beginning a new one: the old file is moved aside with what belongs to it, and the first event
//! of the new one names it, by what is known of it at once: how its chain ends, and how its checkpoints do. The hash of the whole
//! file follows (`rotate/hash.rs`). Also when the old one is damaged and can't be sealed. Not here: when the writer does it
//! (`writer/rotate_now.rs`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};

use super::backlog::Backlog;
use super::chain::{self, Head};
use super::event::{Begun, Event, What};
use super::query::{QueryError, Reader};
use super::store::{Entry, Store};
use super::verify::Fault;
use super::writer::Writer;
use super::{RecordError, checkpoint};
use crate::clock::Clock;
use crate::config::{Durability, RecordSettings};

mod hash;

pub(super) use hash::{Hasher, Hashing, digest};

/// Who asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The uid.
    pub uid: u32,
    /// The pid.
    pub pid: u32,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The old database's file, beside the new one.
    pub previous: String,
    /// The last event of it, as far as is known.
    pub seq: Option<u64>,
    /// The hash of that, in hex.
    pub hash: Option<String>,
    /// BLAKE3 of the file, in hex; none while that isn't known.
    #[serde(default)]
    pub digest: Option<String>,
    /// Whether it ends with an event that says so; not where it is damaged.
    pub sealed: bool,
}

/// What is carried over into the new database.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// The end of the old chain.
    pub(super) end: Option<Head>,
    /// Events of what is still under way.
    pub(super) entries: Vec<Entry>,
    /// How far each segment of the journals is in.
    pub(super) positions: Vec<(String, u64)>,
}

/// Rotates the record in the state folder `dir` while no daemon has it open. What is left in its journals is moved first.
///
/// # Errors
/// When a daemon has it open, and when files can't be moved; the old database is then where it was.
pub fn rotate(
    dir: &Path,
    settings: &RecordSettings,
    clock: &Arc<dyn Clock>,
    by: Asker,
) -> Result<Rotated, RecordError> {
    let database = dir.join("record.db");
    let _lock = super::lock(&dir.join("record.lock"))?;
    settle(&database)?;
    fs::metadata(&database).map_err(|source| RecordError::File { doing: "open", path: database.clone(), source })?;
    // What a killed daemon didn't come to belongs into the one that is sealed now.
    match hash::enter(&database, settings.durability, clock) {
        Err(error) if !is_damage(&error) => return Err(error),
        _ => {}
    }
    let backlog = Arc::new(Backlog::new(settings, database.clone()));
    let rotated = match Writer::recover(dir, &dir.join("journal"), settings, backlog, Arc::clone(clock)) {
        Ok(mut writer) => writer.rotate(by)?,
        Err(error) if is_damage(&error) => {
            tracing::warn!(%error, "the old database can't be sealed");
            let end = Head::load(&chain::head_file(&database)).ok().flatten();
            let positions = Store::open(&database, settings.durability).and_then(|store| store.positions());
            let positions = positions.unwrap_or_default().into_iter().collect();
            let carried = Carried { end, entries: Vec::new(), positions };
            begin(&database, settings.durability, clock.now(), by, carried, false)?
        }
        Err(error) => return Err(error),
    };
    // It was begun all the same: what fails here is made up for at the next start.
    let digest = hash::enter(&database, settings.durability, clock).unwrap_or_else(|error| {
        tracing::warn!(%error, "the hash of the old database can't be entered yet");
        None
    });
    Ok(Rotated { digest, ..rotated })
}

/// Whether an error says that the database itself is broken, and not that it can't be used at the moment.
pub(super) fn is_damage(error: &RecordError) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    match error {
        RecordError::Database(rusqlite::Error::SqliteFailure(failure, _)) => !matches!(
            failure.code,
            CannotOpen
                | DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure
        ),
        RecordError::Database(_) => true,
        _ => false,
    }
}

/// Moves the closed database aside and puts a new one in its place. The new one is made first and moved last, so that
/// after a crash either the old one is still there, or [`settle`] finishes it.
pub(super) fn begin(
    database: &Path,
    durability: Durability,
    at: Timestamp,
    by: Asker,
    carried: Carried,
    sealed: bool,
) -> Result<Rotated, RecordError> {
    let using = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| RecordError::File { doing, path, source }
    };
    let aside = free_name(database, at);
    // What can't be read proves nothing, and isn't in the way either.
    let checkpoint = checkpoint::last_line(&checkpoint::file(database)).ok().flatten();
    let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let rotated = Rotated {
        previous: name,
        seq: carried.end.map(|end| end.seq),
        hash: carried.end.map(|end| end.hex()),
        digest: None,
        sealed,
    };
    let new = draft(database);
    remove(&new).map_err(using("replace", &new))?;
    let what = What::RecordBegun(Begun {
        previous: rotated.previous.clone(),
        seq: rotated.seq,
        hash: rotated.hash.clone(),
        checkpoint,
        digest: None,
        sealed,
        // What of a damaged one comes again from the journals isn't known.
        carried: sealed.then_some(carried.entries.len() as u64),
        uid: by.uid,
        pid: by.pid,
    });
    let mut entries = vec![Entry::of(&Event { at, what })?];
    entries.extend(carried.entries);
    let mut store = Store::open(&new, durability)?;
    store.append(&entries, &[], &carried.positions)?;
    store.truncate()?;
    drop(store);
    File::open(&new).and_then(|file| file.sync_all()).map_err(using("write", &new))?;

    // What belongs to the old one first: without it, it is only less well proved.
    for (from, extension) in [(chain::head_file(database), "head"), (checkpoint::file(database), "checkpoints")] {
        let to = aside.with_extension(extension);
        match fs::rename(&from, &to) {
            // A file of its own, so that it isn't compared with the new one's.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let nothing =
                    if extension == "head" { format!("{}\n", carried.end.unwrap_or_default()) } else { String::new() };
                let made = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&to);
                made.and_then(|mut file| file.write_all(nothing.as_bytes())).map_err(using("write", &to))?;
            }
            other => other.map_err(using("move", &from))?,
        }
    }
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (with_suffix(database, suffix), with_suffix(&aside, suffix));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
            other => other.map_err(using("move", &from))?,
        }
    }
    settle(database)?;
    Ok(rotated)
}

/// Finishes what a crash left of a rotation: a new database takes the place of one that is moved already; one whose
/// predecessor is still there is nobody's.
pub(super) fn settle(database: &Path) -> Result<(), RecordError> {
    let new = draft(database);
    let failed = |source| RecordError::File { doing: "move", path: new.clone(), source };
    if !new.exists() {
        return Ok(());
    }
    if database.exists() {
        return remove(&new).map_err(failed);
    }
    fs::rename(&new, database).map_err(failed)?;
    database.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()).map_err(failed)
}

fn draft(database: &Path) -> PathBuf {
    database.with_extension("db.new")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn remove(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// `record-TIME.db` beside the database, with a number where that is taken.
fn free_name(database: &Path, at: Timestamp) -> PathBuf {
    let stem = format!("record-{}", at.strftime("%Y%m%dT%H%M%SZ"));
    let name = |number: u32| match number {
        1 => format!("{stem}.db"),
        number => format!("{stem}-{number}.db"),
    };
    let is_free = |name: &String| !database.with_file_name(name).exists();
    let free = (1..1_000).map(name).find(is_free).unwrap_or_else(|| name(1_000));
    database.with_file_name(free)
}

impl Reader {
    /// What the first event says of an earlier record; none if this is the first one.
    ///
    /// # Errors
    /// When the database fails.
    pub fn begun(&self) -> Result<Option<Begun>, QueryError> {
        let first = self.links(0, 1, 1)?;
        let event = first.first().and_then(|link| serde_json::from_str::<Event>(&link.body).ok());
        Ok(match event.map(|event| event.what) {
            Some(What::RecordBegun(begun)) => Some(begun),
            _ => None,
        })
    }

    /// The hash of the file of an earlier record, where an event of its own tells it.
    fn hashed(&self, previous: &str) -> Result<Option<String>, QueryError> {
        let sql = "SELECT body ->> 'digest' FROM events WHERE kind = 'record.hashed' AND body ->> 'previous' = ?1
                   AND body ->> 'digest' IS NOT NULL ORDER BY seq LIMIT 1";
        Ok(self.db.query_row(sql, [previous], |row| row.get(0)).optional()?)
    }
}

/// Checks that the database `path` follows the one in `previous`: that the file has the hash that was recorded of it, ends with
/// the event that the first one here names, and has the checkpoints that it had. The hash of a file is made some time after it was
/// moved aside, so the chain in it is followed to its end as well. Notes what can't be compared.
pub(super) fn check(path: &Path, previous: &Path, notes: &mut Vec<String>) -> Result<Option<Fault>, RecordError> {
    let fault = |what: String| Ok(Some(Fault { seq: Some(1), what }));
    let told = Reader::open(path).and_then(|reader| {
        let begun = reader.begun()?;
        let later = match &begun {
            Some(Begun { previous, digest: None, .. }) => reader.hashed(previous)?,
            _ => None,
        };
        Ok((begun, later))
    });
    let (begun, later) = match told {
        Ok((Some(begun), later)) => (begun, later),
        Ok((None, _)) => return fault("the first event names no earlier record".into()),
        Err(error) => return fault(format!("what it says of an earlier record can't be read: {error}")),
    };
    let was_hashed_at_once = begun.digest.is_some();
    let expected = begun.digest.or(later);
    let file = |source| RecordError::File { doing: "read", path: previous.to_owned(), source };
    if expected.is_some() && digest(previous, &AtomicBool::new(false)).map_err(file)? != expected {
        return fault(format!("it follows `{}`, and the file given isn't that, or was changed", begun.previous));
    }
    if let Some(checkpoint) = &begun.checkpoint {
        match checkpoint::last_line(&previous.with_extension("checkpoints")) {
            Ok(Some(last)) if last == *checkpoint => {}
            Ok(Some(_)) => return fault("the checkpoints beside the earlier record aren't those that it had".into()),
            Ok(None) => notes.push("the checkpoints of the earlier record aren't beside it".into()),
            Err(error) => notes.push(format!("the checkpoints of the earlier record can't be read: {error}")),
        }
    }
    let (Some(seq), Some(hash)) = (begun.seq, begun.hash) else {
        notes.push("the end of the earlier record wasn't known when it was moved aside".into());
        return Ok(None);
    };
    let end = blake3::Hash::from_hex(&hash).ok().map(|hash| Head { seq, hash: *hash.as_bytes() });
    // What was damaged already is as it was where its hash says so.
    let is_followed = !was_hashed_at_once && (begun.sealed || expected.is_none());
    let ends = Reader::open(previous).and_then(|reader| {
        let is_last = reader.last_seq()? == seq && reader.has_link(seq, &hash)?;
        Ok(is_last && (!is_followed || end.map_or(Ok(false), |end| reader.leads_to(end))?))
    });
    match ends {
        Ok(true) => Ok(None),
        Ok(false) => fault(format!("the earlier record doesn't end with event {seq}, or doesn't lead to it")),
        Err(error) if expected.is_some() => {
            notes.push(format!("the earlier record is the file that it was, but can't be read: {error}"));
            Ok(None)
        }
        Err(error) => fault(format!("the earlier record can't be read, and the hash of its file isn't known: {error}")),
    }
}

#[cfg(test)]
mod tests;
