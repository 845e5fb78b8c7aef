//! The ledger in the record: the last counts of each workload, and whether what is recorded fits them.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::event::{Event, Ledger, What};
use super::query::{QueryError, Reader};

/// The table.
pub(super) const SCHEMA: &str = "
CREATE TABLE ledger (
    launch TEXT PRIMARY KEY, seq INTEGER NOT NULL, counts TEXT NOT NULL, at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What is recorded of a workload's attempts. Its JSON is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// The last counts.
    #[serde(flatten)]
    pub ledger: Ledger,
    /// When they were recorded.
    pub at: String,
    /// How many sessions of it are recorded: as many as were mediated, and more by calls of what it publishes, by what it
    /// dialled on its own loopback, and by what came since.
    pub sessions: u64,
}

/// Carries an event over into the table.
pub(super) fn apply(db: &Connection, seq: i64, event: &Event) -> rusqlite::Result<()> {
    let What::Ledger(ledger) = &event.what else { return Ok(()) };
    let json = serde_json::to_string(ledger);
    let json = json.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    db.prepare_cached(
        "INSERT INTO ledger (launch, seq, counts, at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (launch) DO UPDATE SET seq = excluded.seq, counts = excluded.counts, at = excluded.at",
    )?
    .execute(params![ledger.launch.to_string(), seq, json, event.at.to_string()])?;
    Ok(())
}

impl Reader {
    /// The last counts of each workload, the latest first.
    ///
    /// # Errors
    /// When the database can't be read, or counts in it are none.
    pub fn ledger(&self) -> Result<Vec<Reconciled>, QueryError> {
        let mut statement = self.db.prepare_cached(
            "SELECT counts, at, (SELECT count(*) FROM sessions s WHERE s.launch = l.launch) FROM ledger l ORDER BY seq DESC",
        )?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)))?;
        rows.map(|row| {
            let (counts, at, sessions) = row?;
            let ledger: Ledger = serde_json::from_str(&counts)?;
            Ok(Reconciled { ledger, at, sessions: sessions.unsigned_abs() })
        })
        .collect()
    }
}
