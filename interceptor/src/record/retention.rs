//! How long what sessions sent and got is kept: pruning payloads by age, erasing the key of a session, holding a session
//! back from both. Each is asked for by an event; the writer does it after the event is in the chain, so nothing goes that
//! the record doesn't tell of. The chain itself is never shortened.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use rusqlite::{Connection, OptionalExtension, params};
use ulid::Ulid;

use super::backlog::Segment;
use super::event::{Event, What};
use super::query::{QueryError, Reader};
use super::segment::HEADER;
use super::verify::Fault;
use crate::config::RecordSettings;
use crate::ids::WorkloadName;

/// What schema 4 adds. `retention` and `prunes` are made from the events; `pruning` is what of that is still to be done.
pub(super) const SCHEMA: &str = "
CREATE TABLE retention (
    session TEXT PRIMARY KEY, seq INTEGER NOT NULL, held INTEGER NOT NULL, erased INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE prunes (seq INTEGER PRIMARY KEY, below TEXT NOT NULL) STRICT;
CREATE TABLE pruning (seq INTEGER PRIMARY KEY, below TEXT NOT NULL) STRICT;
";

/// What schema 5 adds: whose payloads. `workloads` is a JSON array, or null for all.
pub(super) const SCOPES: &str = "
ALTER TABLE prunes ADD COLUMN workloads TEXT;
ALTER TABLE prunes ADD COLUMN others INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pruning ADD COLUMN workloads TEXT;
ALTER TABLE pruning ADD COLUMN others INTEGER NOT NULL DEFAULT 0;
";

/// Payloads that are deleted in one transaction: as much as the writer can do between two batches.
const PORTION: u32 = 200;

/// How long payloads are kept, and whose.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) time: Duration,
    /// As [`What::RecordPruned`] has them.
    pub(super) workloads: Vec<WorkloadName>,
    pub(super) others: bool,
}

impl Keep {
    /// What the configuration says: a time for all, and other ones for some workloads.
    pub(super) fn of(settings: &RecordSettings) -> Vec<Self> {
        let of = &settings.keep_payloads_of;
        let times: BTreeSet<Duration> = of.values().copied().collect();
        let own = times.into_iter().map(|time| {
            let workloads = of.iter().filter(|(_, own)| **own == time).map(|(name, _)| name.clone()).collect();
            Self { time, workloads, others: false }
        });
        let workloads = || of.keys().cloned().collect();
        let all = settings.keep_payloads.map(|time| Self { time, workloads: workloads(), others: !of.is_empty() });
        own.chain(all).collect()
    }

    /// The event that asks for it at `now`.
    pub(super) fn event(&self, now: Timestamp) -> What {
        let time = SignedDuration::try_from(self.time).unwrap_or(SignedDuration::MAX);
        let before = now.checked_sub(time).unwrap_or(Timestamp::MIN);
        What::RecordPruned { before, workloads: self.workloads.clone(), others: self.others, uid: None, pid: None }
    }
}

/// The workloads as the tables have them.
fn scope(workloads: &[WorkloadName]) -> Option<String> {
    let names: Vec<&str> = workloads.iter().map(WorkloadName::as_str).collect();
    (!names.is_empty()).then(|| serde_json::json!(names).to_string())
}

/// Payloads older than `?1` that no hold keeps: of the workloads `?2`, or of the others (`?3`).
const PRUNABLE: &str = "FROM payloads p WHERE operation < ?1
    AND (?2 IS NULL OR coalesce((SELECT workload FROM operations o WHERE o.operation = p.operation)
        IN (SELECT value FROM json_each(?2)), 0) <> ?3)
    AND NOT EXISTS (SELECT 1 FROM retention r WHERE r.session = p.session AND r.held = 1)";

/// The id that every operation since `at` has behind it: ids begin with their time, to the millisecond.
fn below(at: Timestamp) -> String {
    let ulid = Ulid::from_parts(u64::try_from(at.as_millisecond()).unwrap_or(0), 0);
    format!("op_{}", ulid.to_string().to_ascii_lowercase())
}

/// Carries an event over into what is derived from the events.
pub(super) fn apply(db: &Connection, seq: i64, what: &What) -> rusqlite::Result<usize> {
    match what {
        What::RecordPruned { before, workloads, others, .. } => db
            .prepare_cached("INSERT INTO prunes (seq, below, workloads, others) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![seq, below(*before), scope(workloads), others]),
        What::SessionErased { session, .. } => db
            .prepare_cached(
                "INSERT INTO retention (session, seq, held, erased) VALUES (?1, ?2, 0, 1)
                 ON CONFLICT (session) DO UPDATE SET erased = 1 WHERE held = 0",
            )?
            .execute(params![session.to_string(), seq]),
        What::SessionHeld { session, held, .. } => db
            .prepare_cached(
                "INSERT INTO retention (session, seq, held, erased) VALUES (?1, ?2, ?3, 0)
                 ON CONFLICT (session) DO UPDATE SET held = excluded.held",
            )?
            .execute(params![session.to_string(), seq, held]),
        _ => Ok(0),
    }
}

/// Does what an event that was just applied asks for, or leaves it to [`prune`].
pub(super) fn enact(db: &Connection, seq: i64, event: &Event) -> rusqlite::Result<()> {
    match &event.what {
        What::RecordPruned { before, workloads, others, .. } => {
            let sql = "INSERT INTO pruning (seq, below, workloads, others) VALUES (?1, ?2, ?3, ?4)";
            db.execute(sql, params![seq, below(*before), scope(workloads), others])?;
        }
        What::SessionErased { session, .. } => {
            // A key that no payload brought yet is erased as well: it must not come later.
            let sql = "INSERT INTO session_keys (session, wrapped)
                       SELECT session, NULL FROM retention WHERE session = ?1 AND erased = 1
                       ON CONFLICT (session) DO UPDATE SET wrapped = NULL";
            db.execute(sql, [session.to_string()])?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether an event asks for something to be destroyed, of which nothing may stay in free pages.
pub(super) fn destroys(event: &Event) -> bool {
    matches!(event.what, What::RecordPruned { .. } | What::SessionErased { .. })
}

/// Whether there is something to prune.
pub(super) fn is_pruning(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM pruning)")?.query_row([], |row| row.get(0))
}

/// Deletes a portion of the payloads that are to be pruned. Gives whether there was anything to prune.
pub(super) fn prune(db: &Connection) -> rusqlite::Result<bool> {
    let asked: Option<(i64, String, Option<String>, bool)> = db
        .prepare_cached("SELECT seq, below, workloads, others FROM pruning ORDER BY below DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((seq, below, workloads, others)) = asked else { return Ok(false) };
    let sql =
        format!("DELETE FROM payloads WHERE operation IN (SELECT operation {PRUNABLE} ORDER BY 1 LIMIT {PORTION})");
    let gone = db.prepare_cached(&sql)?.execute(params![below, workloads, others])?;
    if gone < PORTION as usize {
        // What was asked for the same workloads and less far is done with it.
        let done = "seq = ?1 OR (below <= ?2 AND workloads IS ?3 AND others = ?4)";
        db.execute(&format!("DELETE FROM pruning WHERE {done}"), params![seq, below, workloads, others])?;
    }
    Ok(true)
}

/// How many payloads of operations before `at` are there and not held, of all workloads.
pub(super) fn prunable(db: &Connection, at: Timestamp) -> rusqlite::Result<u64> {
    count(db, at, &[], false)
}

/// Whether an event that asks for pruning would find anything.
pub(super) fn finds(db: &Connection, what: &What) -> rusqlite::Result<bool> {
    match what {
        What::RecordPruned { before, workloads, others, .. } => Ok(count(db, *before, workloads, *others)? > 0),
        _ => Ok(false),
    }
}

fn count(db: &Connection, at: Timestamp, workloads: &[WorkloadName], others: bool) -> rusqlite::Result<u64> {
    let sql = format!("SELECT count(*) {PRUNABLE}");
    let count: i64 = db.query_row(&sql, params![below(at), scope(workloads), others], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Overwrites what of a segment is in the database already: it holds wrapped keys.
pub(super) fn scrub(segment: &Segment, moved: u64) -> io::Result<()> {
    if moved <= HEADER {
        return Ok(());
    }
    let file = match OpenOptions::new().write(true).open(&segment.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let signed = |count: u64| i64::try_from(count).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(&file, hole, signed(HEADER)?, signed(moved - HEADER)?) {
        Err(Errno::EOPNOTSUPP) => zeros(&file, HEADER, moved)?,
        other => other?,
    }
    file.sync_data()
}

fn zeros(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    let zeros = [0; 64 << 10];
    while at < end {
        let part = zeros.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

/// Compares the keys that are there with what was erased, and notes what is gone.
pub(super) fn check(db: &Connection, notes: &mut Vec<String>) -> rusqlite::Result<Option<Fault>> {
    let back: Option<(String, i64)> = db
        .query_row(
            "SELECT r.session, r.seq FROM retention r JOIN session_keys k ON k.session = r.session
             WHERE r.erased = 1 AND k.wrapped IS NOT NULL LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    if let Some((session, seq)) = back {
        let what = format!("the key of `{session}` was erased, and is there all the same");
        return Ok(Some(Fault { seq: Some(seq.cast_unsigned()), what }));
    }
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    let erased = count("SELECT count(*) FROM session_keys WHERE wrapped IS NULL")?;
    let told = count("SELECT count(*) FROM retention WHERE erased = 1")?;
    if erased > 0 {
        notes.push(format!("the keys of {erased} sessions were erased"));
    }
    if erased > told {
        notes.push(format!("of these, {} without an event that says so", erased - told));
    }
    let unasked = count(
        "SELECT count(*) FROM operations o WHERE kept_digest IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM payloads p WHERE p.operation = o.operation)
         AND NOT EXISTS (SELECT 1 FROM prunes r WHERE o.operation < r.below AND (r.workloads IS NULL
             OR (workload IN (SELECT value FROM json_each(r.workloads))) <> r.others))",
    )?;
    if unasked > 0 {
        notes.push(format!("{unasked} payloads are gone without an event that says so"));
    }
    Ok(None)
}

impl Reader {
    /// The whole id of the session whose id is `id` or begins with it, and whether it is held.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn hold_of(&self, id: &str) -> Result<(String, bool), QueryError> {
        let id = self.whole_id("sessions", "session", "ses", id)?;
        let sql = "SELECT held FROM retention WHERE session = ?1";
        let held: Option<bool> = self.db.query_row(sql, [&id], |row| row.get(0)).optional()?;
        Ok((id, held.unwrap_or(false)))
    }

    /// How many payloads of operations before `at` a prune would delete.
    ///
    /// # Errors
    /// When the database fails.
    pub fn prunable(&self, at: Timestamp) -> Result<u64, QueryError> {
        Ok(prunable(&self.db, at)?)
    }
}

#[cfg(test)]
mod tests;
