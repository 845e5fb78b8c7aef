//! The ledger in the record: the last counts of each workload, and whether what is recorded fits them.

use std::net::SocketAddr;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::event::{Event, Handled, Ledger, What};
use super::projection::integer;
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
    /// How many of the connections that were counted are recorded, each by a session; see [`misfit`](Self::misfit). None where
    /// this database can't tell: an earlier one has the workload's beginning, or [`Ledger::handled`] is none.
    pub recorded: Option<u64>,
}

impl Reconciled {
    /// What doesn't fit, in words; none if nothing is wrong, or that can't be told. What is recorded is never more than
    /// `mediated - unrecorded`; of what earlier counts have some may be on its way still, and of what the last have it is at
    /// least that without what is `unsure`: where no daemon was killed, exactly that.
    pub fn misfit(&self) -> Option<String> {
        let (recorded, least, most) = self.recorded_and_bounds()?;
        let Ledger { launch, workload, .. } = &self.ledger;
        if recorded < least {
            return Some(format!(
                "of the connections of `{workload}` ({launch}) that the proxy took, {least} have to be in the record as \
                 sessions, and {recorded} are: something is missing in it"
            ));
        }
        (recorded > most).then(|| {
            format!(
                "of the connections of `{workload}` ({launch}) {recorded} are in the record as sessions, and the proxy took \
                 {most} that can be: something is in it that it didn't take, or its counts aren't right"
            )
        })
    }

    /// Whether it doesn't fit because sessions are missing. What waits in a journal still may have them.
    pub fn lacks_sessions(&self) -> bool {
        self.recorded_and_bounds().is_some_and(|(recorded, least, _)| recorded < least)
    }

    /// How many are recorded, and how many that has to be at least and at most.
    fn recorded_and_bounds(&self) -> Option<(u64, u64, u64)> {
        let (recorded, handled) = (self.recorded?, self.ledger.handled?);
        let most = self.ledger.mediated().saturating_sub(handled.unrecorded);
        let least = if handled.last { most.saturating_sub(handled.unsure) } else { 0 };
        Some((recorded, least, most))
    }
}

/// Carries an event over into the table. The last counts of a workload stay the last.
pub(super) fn apply(db: &Connection, seq: i64, event: &Event) -> rusqlite::Result<()> {
    let What::Ledger(ledger) = &event.what else { return Ok(()) };
    let json = serde_json::to_string(ledger);
    let json = json.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    db.prepare_cached(
        "INSERT INTO ledger (launch, seq, counts, at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (launch) DO UPDATE SET seq = excluded.seq, counts = excluded.counts, at = excluded.at
         WHERE (ledger.counts ->> '$.handled.last') IS NOT 1",
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
        // What an earlier database has the beginning of was told again behind the first event.
        let carried = match self.begun()? {
            None => 0,
            Some(begun) => begun.carried.map_or(i64::MAX, |carried| integer(carried.saturating_add(1))),
        };
        let mut statement = self.db.prepare_cached(
            "SELECT counts, at, (SELECT count(*) FROM sessions s WHERE s.launch = l.launch), seq FROM ledger l
             ORDER BY seq DESC",
        )?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        })?;
        rows.map(|row| {
            let (counts, at, sessions, seq) = row?;
            let ledger: Ledger = serde_json::from_str(&counts)?;
            let recorded = match ledger.handled {
                Some(handled) => self.recorded_of(&ledger, handled, seq, carried)?,
                None => None,
            };
            Ok(Reconciled { ledger, at, sessions: sessions.unsigned_abs(), recorded })
        })
        .collect()
    }

    /// How many connections of a workload that event `seq` counted are recorded; none if its beginning isn't behind the event
    /// `carried`.
    fn recorded_of(
        &self,
        ledger: &Ledger,
        handled: Handled,
        seq: i64,
        carried: i64,
    ) -> Result<Option<u64>, QueryError> {
        let launch = ledger.launch.to_string();
        let begun = self
            .db
            .prepare_cached("SELECT seq, containment = 'adopted' FROM workloads WHERE launch = ?1")?
            .query_row([&launch], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)))
            .optional()?;
        let Some((_, is_adopted)) = begun.filter(|(begun, _)| *begun > carried) else { return Ok(None) };
        let mut statement =
            self.db.prepare_cached("SELECT original, seq, opened_at FROM sessions WHERE launch = ?1")?;
        let mut rows = statement.query([&launch])?;
        let mut recorded = 0;
        while let Some(row) = rows.next()? {
            let (original, opened, at): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            // What comes after the last counts was on its way when they were made; what comes after others may be new.
            let is_in_time =
                handled.last || (opened <= seq && at.parse::<Timestamp>().is_ok_and(|at| at <= handled.at));
            if is_in_time && (is_adopted || !is_loopback(&original)) {
                recorded += 1;
            }
        }
        Ok(Some(recorded))
    }
}

/// Whether a session of a launched workload is of its own loopback, or a call of what it publishes on the host's: neither is
/// counted as a connection that it made.
fn is_loopback(original: &str) -> bool {
    original.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests;
