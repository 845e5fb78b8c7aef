//! The broken glass in the record: its table, and the queries about it.

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::event::{Event, What};
use super::query::{QueryError, Reader};
use crate::ids::BreakGlassId;
use crate::policy::BreakGlass;

/// The table.
pub(super) const SCHEMA: &str = "
CREATE TABLE break_glass (
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL, broken TEXT NOT NULL, started_at TEXT NOT NULL, started_by INTEGER NOT NULL,
    ended_at TEXT, ending TEXT, closed_at TEXT, closed_by INTEGER, note TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX break_glass_by_seq ON break_glass (seq);
ALTER TABLE operations ADD COLUMN service_request TEXT;
";

/// One breaking of the glass, as lists have it. Its JSON is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// For which workload, until when and why.
    #[serde(flatten)]
    pub broken: BreakGlass,
    /// When it began.
    pub started_at: Timestamp,
    /// The uid of who began it.
    pub started_by: u32,
    /// When it ended; none while it lasts.
    pub ended_at: Option<Timestamp>,
    /// Why: `expired`, `stopped`.
    pub ending: Option<String>,
    /// When an auditor closed it; none until then.
    pub closed_at: Option<Timestamp>,
    /// The uid of the auditor.
    pub closed_by: Option<u32>,
    /// What he found.
    pub note: Option<String>,
}

/// Carries what an event says of it over into the table.
pub(super) fn apply(db: &Connection, seq: i64, event: &Event) -> rusqlite::Result<()> {
    let at = event.at.to_string();
    match &event.what {
        What::BreakGlassStarted { broken, by } => {
            let json = serde_json::to_string(broken);
            let json = json.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            db.prepare_cached(
                "INSERT INTO break_glass (id, seq, broken, started_at, started_by) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![broken.id.to_string(), seq, json, at, by])?
        }
        What::BreakGlassEnded { id, reason, .. } => db
            .prepare_cached("UPDATE break_glass SET ended_at = ?2, ending = ?3 WHERE id = ?1 AND ended_at IS NULL")?
            .execute(params![id.to_string(), at, reason])?,
        What::BreakGlassClosed { id, by, note } => db
            .prepare_cached(
                "UPDATE break_glass SET closed_at = ?2, closed_by = ?3, note = ?4 WHERE id = ?1 AND closed_at IS NULL",
            )?
            .execute(params![id.to_string(), at, by, note])?,
        _ => 0,
    };
    Ok(())
}

impl Reader {
    /// Those that last, then the latest ones, newest first, at most `limit`; `all`: those too that an auditor has closed.
    ///
    /// # Errors
    /// When the database fails.
    pub fn broken(&self, all: bool, limit: u32) -> Result<Vec<Broken>, QueryError> {
        let mut statement = self.db.prepare_cached(
            "SELECT broken, started_at, started_by, ended_at, ending, closed_at, closed_by, note FROM break_glass
             WHERE ?1 OR closed_at IS NULL ORDER BY ended_at IS NOT NULL, seq DESC LIMIT ?2",
        )?;
        let mut rows = statement.query(params![all, limit.min(10_000)])?;
        let mut found = Vec::new();
        let time = |text: Option<String>| text.map(|text| serde_json::from_value(text.into())).transpose();
        while let Some(row) = rows.next()? {
            found.push(Broken {
                broken: serde_json::from_str(&row.get::<_, String>(0)?)?,
                started_at: serde_json::from_value(row.get::<_, String>(1)?.into())?,
                started_by: row.get(2)?,
                ended_at: time(row.get(3)?)?,
                ending: row.get(4)?,
                closed_at: time(row.get(5)?)?,
                closed_by: row.get(6)?,
                note: row.get(7)?,
            });
        }
        Ok(found)
    }

    /// The one whose id is `id` or begins with it.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn broken_of(&self, id: &str) -> Result<Broken, QueryError> {
        let id = self.whole_id("break_glass", "id", "brk", id)?;
        let known: BreakGlassId = id.parse().map_err(|_malformed| QueryError::Unknown(id.clone()))?;
        let found = self.broken(true, u32::MAX)?;
        found.into_iter().find(|one| one.broken.id == known).ok_or(QueryError::Unknown(id))
    }
}

#[cfg(test)]
mod tests;
