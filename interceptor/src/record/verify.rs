//! Checking the record without trusting what is derived: the chain is computed again from the events, the tables are
//! made again from them and compared. What this proves, and what it can't, is in `docs/record.md`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::chain::{self, Head};
use super::checkpoint::{self, Checkpoint, Checkpoints, PublicKey};
use super::event::{self, Begun, Hashed, What};
use super::payload;
use super::projection::{self, SCHEMA, TABLES};
use super::store;
use super::{retention, rotate, search};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether everything is as it was written.
    pub ok: bool,
    /// How many events were checked.
    pub events: u64,
    /// The last hash of the chain, in hex.
    pub hash: String,
    /// The first thing that is wrong; none if all is well.
    pub fault: Option<Fault>,
    /// Damage that the record itself reports (`record.damaged`), the first 100.
    pub damage: Vec<Damage>,
    /// The checkpoints that the chain was compared with; none if there are none.
    #[serde(default)]
    pub checkpoints: Option<Anchored>,
    /// The first and the last event that no checkpoint covers; none if all are covered.
    #[serde(default)]
    pub uncovered: Option<(u64, u64)>,
    /// What could not be checked, and why.
    pub notes: Vec<String>,
}

/// What signed checkpoints say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchored {
    /// How many there are.
    pub count: usize,
    /// The event of the last one.
    pub seq: u64,
    /// When that was signed.
    pub at: Timestamp,
    /// The key that they are signed with.
    pub key: PublicKey,
    /// As [`Report::uncovered`].
    pub uncovered: Option<(u64, u64)>,
}

/// What is known from elsewhere, and the record is compared with.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// A file of checkpoints; none: the one beside the database.
    pub checkpoints: Option<PathBuf>,
    /// Whose signatures count; none: those of the key beside the database, else of the one that the last checkpoint names.
    pub key: Option<PublicKey>,
    /// The database that it follows; none: that isn't looked at.
    pub previous: Option<PathBuf>,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The first event that it concerns, where that is known.
    pub seq: Option<u64>,
    /// What it is.
    pub what: String,
}

/// Damage that was noticed while the record was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The event that reports it.
    pub seq: u64,
    /// The file.
    pub place: String,
    /// What was found there.
    pub detail: String,
}

/// Checks the database `path` against `record.head` and the checkpoints beside it. Reads only; works beside a running
/// daemon.
///
/// # Errors
/// When the database can't be read at all. What is wrong in it is in the report.
pub fn verify(path: &Path) -> Result<Report, RecordError> {
    verify_with(path, &Evidence::default())
}

/// As [`verify`], against checkpoints and a key from elsewhere.
///
/// # Errors
/// When the database or the named checkpoints can't be read at all.
pub fn verify_with(path: &Path, evidence: &Evidence) -> Result<Report, RecordError> {
    // Read before the database: a daemon at work may only make the database longer than this says.
    let head = Head::load(&chain::head_file(path));
    let (checkpoints, unreadable) = signed(path, evidence)?;
    let db = store::open_read_only(path)?;
    let schema = store::schema_of(&db, path, store::known_schema())?;
    let again = Connection::open("")?;
    SCHEMA.iter().try_for_each(|step| again.execute_batch(step))?;
    let mut report = Report {
        ok: false,
        events: 0,
        hash: Head::default().hex(),
        fault: None,
        damage: Vec::new(),
        checkpoints: None,
        uncovered: None,
        notes: Vec::new(),
    };
    if schema < store::known_schema() {
        report.notes.push(format!("it has schema {schema}: what later ones derive besides isn't in it"));
    }
    // One transaction, so that events and tables are of the same moment.
    let reading = db.unchecked_transaction()?;
    report.fault = match follow(&reading, &again, &head, &checkpoints.all, &mut report)? {
        Some(fault) => Some(fault),
        None => match tables(&reading, &again)? {
            Some(fault) => Some(fault),
            None => match search::check(&reading, &again)? {
                Some(fault) => Some(fault),
                None => match payload::check(&reading, path, &mut report.notes)? {
                    Some(fault) => Some(fault),
                    None => match retention::check(&reading, &mut report.notes)? {
                        Some(fault) => Some(fault),
                        None => structure(&reading)?,
                    },
                },
            },
        },
    };
    match head {
        Ok(Some(_)) => {}
        Ok(None) => report.notes.push("`record.head` isn't beside the database: a cut-off end would not show".into()),
        Err(error) => report.notes.push(format!("`record.head` can't be read ({error}): a cut-off end would not show")),
    }
    report.fault = report.fault.or(unreadable.map(|what| Fault { seq: None, what }));
    if let Some(previous) = &evidence.previous
        && report.fault.is_none()
    {
        report.fault = rotate::check(path, previous, &mut report.notes)?;
    }
    anchored(path, evidence, &checkpoints, &mut report);
    report.ok = report.fault.is_none();
    Ok(report)
}

/// Reads the checkpoints. What is wrong with them is a fault, but the chain is looked at first.
fn signed(path: &Path, evidence: &Evidence) -> Result<(Checkpoints, Option<String>), RecordError> {
    let file = evidence.checkpoints.clone().unwrap_or_else(|| checkpoint::file(path));
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if evidence.checkpoints.is_none() && error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(RecordError::File { doing: "read", path: file, source }),
    };
    let key = evidence.key.or_else(|| checkpoint::public_key(path));
    Ok(match Checkpoints::read(&text, key) {
        Ok(checkpoints) => (checkpoints, None),
        Err(what) => (Checkpoints::default(), Some(what)),
    })
}

/// Says in the report what the checkpoints cover, and what they can't prove.
fn anchored(path: &Path, evidence: &Evidence, checkpoints: &Checkpoints, report: &mut Report) {
    if checkpoints.torn > 0 {
        report.notes.push("the last line of the checkpoints was cut off while it was written".into());
    }
    let last = checkpoints.all.last();
    let covered = last.map_or(0, |last| last.seq);
    report.uncovered = (covered < report.events).then_some((covered + 1, report.events));
    let Some(last) = last else {
        return report.notes.push("there are no checkpoints: a chain that was made anew would not show".into());
    };
    if evidence.key.is_none() && checkpoint::public_key(path).is_none() {
        let note = "the checkpoints' key is the one that they name themselves; give the one you kept with `--key`";
        report.notes.push(note.into());
    }
    report.checkpoints = Some(Anchored {
        count: checkpoints.all.len(),
        seq: last.seq,
        at: last.at,
        key: last.key,
        uncovered: report.uncovered,
    });
}

/// Follows the chain, and carries each event over into `again`.
fn follow(
    db: &Connection,
    again: &Connection,
    expected: &std::io::Result<Option<Head>>,
    checkpoints: &[Checkpoint],
    report: &mut Report,
) -> Result<Option<Fault>, RecordError> {
    let expected = expected.as_ref().ok().copied().flatten().filter(|head| head.seq > 0);
    let mut checkpoints = checkpoints.iter().peekable();
    let mut head = Head::default();
    let fault = |seq: u64, what: &str| Ok(Some(Fault { seq: Some(seq), what: what.into() }));
    let filling = again.unchecked_transaction()?;
    // The database before, as long as no event has the hash of its file, and why it has none.
    let mut unhashed: Option<(String, Option<String>)> = None;
    let mut statement = db.prepare("SELECT seq, at, kind, hash, body FROM events ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let seq = row.get::<_, i64>(0)?.cast_unsigned();
        if seq != head.seq + 1 {
            return fault(head.seq + 1, "the event is missing");
        }
        let body = bytes(row, 4)?;
        head = head.next(body);
        if bytes(row, 3)? != head.hash {
            return fault(seq, "the hash isn't that of the event and its predecessors: one of them was changed");
        }
        let Some((stamp, event)) = std::str::from_utf8(body).ok().and_then(event::read) else {
            return fault(seq, "the body isn't an event");
        };
        if bytes(row, 1)? != stamp.at.to_string().as_bytes() || bytes(row, 2)? != stamp.kind.as_bytes() {
            return fault(seq, "the time or the kind isn't that of the body");
        }
        if expected.is_some_and(|expected| expected.seq == seq && expected.hash != head.hash) {
            return fault(seq, "the event isn't the one that `record.head` knows: the chain was made anew");
        }
        if let Some(checkpoint) = checkpoints.next_if(|checkpoint| checkpoint.seq == seq)
            && checkpoint.hash != head.hex()
        {
            return fault(
                seq,
                &format!("the event isn't the one that was signed {}: the chain was made anew", checkpoint.at),
            );
        }
        if let Some(event) = event {
            projection::apply(&filling, seq, &event)?;
            match event.what {
                What::RecordDamaged { place, detail } if report.damage.len() < 100 => {
                    report.damage.push(Damage { seq, place, detail });
                }
                What::RecordBegun(Begun { previous, digest: None, .. }) => unhashed = Some((previous, None)),
                What::RecordHashed(Hashed { previous, digest, failed })
                    if unhashed.as_ref().is_some_and(|(name, _)| *name == previous) =>
                {
                    unhashed = digest.is_none().then_some((previous, failed));
                }
                _ => {}
            }
        }
        report.events = seq;
        report.hash = head.hex();
    }
    filling.commit()?;
    if let Some((previous, why)) = unhashed {
        let why = why.map_or_else(|| "not yet".into(), |why| format!("it can't be read: {why}"));
        report.notes.push(format!("the hash of `{previous}` isn't recorded ({why}): `--previous` goes by its events"));
    }
    match expected {
        Some(expected) if expected.seq > head.seq => {
            let what = format!("the events from here on are missing: `record.head` knows {}", expected.seq);
            Ok(Some(Fault { seq: Some(head.seq + 1), what }))
        }
        _ => Ok(checkpoints.last().map(|last| {
            let what = format!("the events from here on are missing: {} was signed {}", last.seq, last.at);
            Fault { seq: Some(head.seq + 1), what }
        })),
    }
}

/// Compares each table with the one that was made again. A database of an earlier schema, as one that was moved aside is, has
/// fewer columns.
fn tables(db: &Connection, again: &Connection) -> Result<Option<Fault>, RecordError> {
    for (table, key) in TABLES {
        let there = columns(db, table)?;
        let mut both = columns(again, table)?;
        both.retain(|column| there.contains(column));
        if both.is_empty() {
            continue;
        }
        let columns = both.join(", ");
        let sql = format!("SELECT {key}, seq, {columns} FROM {table} ORDER BY {key}");
        let (mut there, mut made) = (db.prepare(&sql)?, again.prepare(&sql)?);
        let width = made.column_count();
        let (mut there, mut made) = (there.query([])?, made.query([])?);
        loop {
            let (one, other) = (there.next()?, made.next()?);
            let fault = |row: &Row<'_>, what: &str| {
                let key = String::from_utf8_lossy(bytes(row, 0)?).into_owned();
                let seq = row.get::<_, i64>(1).ok().map(i64::cast_unsigned);
                Ok(Some(Fault { seq, what: format!("{what} `{key}` in `{table}`") }))
            };
            match (one, other) {
                (None, None) => break,
                (Some(row), None) => return fault(row, "no event made the row"),
                (None, Some(row)) => return fault(row, "the events made a row that is missing:"),
                (Some(row), Some(from_events)) => {
                    let order = bytes(row, 0)?.cmp(bytes(from_events, 0)?);
                    if order.is_lt() {
                        return fault(row, "no event made the row");
                    }
                    if order.is_gt() {
                        return fault(from_events, "the events made a row that is missing:");
                    }
                    for column in 0..width {
                        if row.get_ref(column)? != from_events.get_ref(column)? {
                            return fault(from_events, "the events say something else than the row");
                        }
                    }
                }
            }
        }
    }
    Ok(None)
}

/// Looks whether the database's pages and indexes are sound, and whether its tables, indexes and triggers are those that
/// this version makes for the schema that it has: what is recorded could be whole, and a query still be answered wrongly.
fn structure(db: &Connection) -> Result<Option<Fault>, RecordError> {
    let fault = |what: String| Ok(Some(Fault { seq: None, what }));
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return fault(format!("the database's file is damaged: {found}"));
    }
    let new = store::empty(store::schema_of(db, Path::new(""), store::known_schema())?)?;
    let sql = "SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_master ORDER BY 1";
    let all = |db: &Connection| -> rusqlite::Result<Vec<(String, String)>> {
        db.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let (there, made) = (all(db)?, all(&new)?);
    let differs = |one: &[(String, String)], other: &[(String, String)]| {
        one.iter().find(|item| !other.contains(item)).map(|(name, _)| name.clone())
    };
    match differs(&made, &there).or_else(|| differs(&there, &made)) {
        Some(name) => fault(format!("the schema isn't what this version makes: {name}")),
        None => Ok(None),
    }
}

fn columns(db: &Connection, table: &str) -> Result<Vec<String>, RecordError> {
    let mut statement = db.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// The bytes of a text or a blob; none of anything else.
fn bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    })
}
