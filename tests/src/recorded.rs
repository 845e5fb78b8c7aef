//! What the daemon recorded, read from its database by a reader of our own: a test doesn't ask the daemon whether the
//! daemon told the truth.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use interceptor::control::client;
use interceptor::control::protocol::Request;
use interceptor::ids::{OperationId, SessionId};
use interceptor::record::event::{Event, Verdict, What};
use rusqlite::{Connection, OpenFlags};

/// An operation, put together from its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The operation.
    pub id: OperationId,
    /// Its session, if it has one.
    pub session: Option<SessionId>,
    /// The target's name.
    pub target: Option<String>,
    /// `http:GET`, `connect`, `dns:resolve`.
    pub action: String,
    /// What was asked for.
    pub summary: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The code of a denial.
    pub code: Option<String>,
    /// The policies that determined it.
    pub policies: Vec<String>,
    /// Whom its token names, `<tenant>/<object>`.
    pub principal: Option<String>,
    /// How it ended, and the HTTP status; none while it runs.
    pub outcome: Option<(String, Option<u16>)>,
}

/// The events from `after` on (0: all), with their numbers, in the chain's order, once what happened so far is among them.
///
/// # Errors
/// The database can't be read, or an event isn't of a kind that the product knows.
pub fn events(database: &Path, after: u64) -> Result<Vec<(u64, Event)>> {
    last(database)?;
    there(database, after)
}

/// Those that are in the database by now.
fn there(database: &Path, after: u64) -> Result<Vec<(u64, Event)>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(database, flags).with_context(|| format!("can't open `{}`", database.display()))?;
    connection.busy_timeout(Duration::from_secs(2))?;
    let mut statement = connection.prepare("SELECT seq, CAST(body AS BLOB) FROM events WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = statement.query([after.cast_signed()])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let (seq, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let event = serde_json::from_slice(&body)
            .with_context(|| format!("event {seq} is unknown: {}", String::from_utf8_lossy(&body)))?;
        events.push((seq.cast_unsigned(), event));
    }
    Ok(events)
}

/// For how long nothing comes to the record once what happened so far is in it.
const BEHIND: Duration = Duration::from_millis(250);

/// How long it is waited for what has to come: the record is less than 100 ms behind (docs/record.md), but not where the
/// processors and the disk are others' for a while.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has the daemon move what it has recorded into the database, as it does for whoever asks for a list. What it answers isn't
/// looked at.
fn flush(database: &Path) {
    if let Some(room) = database.parent().and_then(Path::parent) {
        // Where none runs, or it can't, what is there is all.
        let _ = client::call(&room.join("run/control.sock"), &Request::SessionsList { limit: 1 });
    }
}

/// The number of the last event, once what happened so far is in the record: nothing has come to it for a while. 0 if there
/// is none.
///
/// # Errors
/// As [`events`].
pub fn last(database: &Path) -> Result<u64> {
    let now = || Ok(there(database, 0)?.last().map_or(0, |(seq, _)| *seq));
    flush(database);
    let mut last: u64 = now()?;
    // What never pauses isn't waited for.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        std::thread::sleep(BEHIND);
        flush(database);
        match now() {
            Ok(found) if found == last || Instant::now() > deadline => return Ok(found),
            Ok(found) => last = found,
            Err(error) => return Err(error),
        }
    }
}

/// The operations that were decided after event `after`, in order.
///
/// # Errors
/// As [`events`].
pub fn operations(database: &Path, after: u64) -> Result<Vec<Operation>> {
    last(database)?;
    decided(database, after)
}

fn decided(database: &Path, after: u64) -> Result<Vec<Operation>> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut places: HashMap<OperationId, usize> = HashMap::new();
    for (_, event) in there(database, after)? {
        match event.what {
            What::OperationDecided {
                operation,
                session,
                target,
                action,
                summary,
                verdict,
                code,
                basis,
                identity,
                ..
            } => {
                places.insert(operation, operations.len());
                operations.push(Operation {
                    id: operation,
                    session,
                    target: target.map(|name| name.to_string()),
                    action,
                    summary,
                    verdict,
                    code,
                    policies: basis.policies,
                    principal: identity.map(|identity| identity.principal.to_string()),
                    outcome: None,
                })
            }
            What::OperationFinished { operation, outcome, status, .. } => {
                if let Some(decided) = places.get(&operation).and_then(|&place| operations.get_mut(place)) {
                    decided.outcome = Some((outcome, status));
                }
            }
            _ => {}
        }
    }
    Ok(operations)
}

/// Waits until an event after event `after` fits, and gives it.
///
/// # Errors
/// None came.
pub fn wait_for_event(database: &Path, after: u64, fits: impl Fn(&What) -> bool) -> Result<Event> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut events = there(database, after)?.into_iter().map(|(_, event)| event);
        if let Some(event) = events.find(|event| fits(&event.what)) {
            return Ok(event);
        }
        ensure!(Instant::now() < deadline, "it isn't recorded");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until an operation after event `after` fits, and gives it.
///
/// # Errors
/// None came; the error says what was there instead.
pub fn wait_for(database: &Path, after: u64, fits: impl Fn(&Operation) -> bool) -> Result<Operation> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = decided(database, after)?;
        if let Some(operation) = found.iter().rev().find(|operation| fits(operation)) {
            return Ok(operation.clone());
        }
        if Instant::now() > deadline {
            let there: Vec<String> =
                found.iter().map(|one| format!("{:?} {} {}", one.verdict, one.action, one.summary)).collect();
            bail!("it isn't recorded; recorded was: [{}]", there.join(", "));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
