//! The rows of operations. An operation's verdict and its outcome mostly come in one batch: its row is then written once,
//! and so are the counts of its session and its minute. What the tables hold in the end is what they would hold if each
//! event were carried over by itself.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};

use super::super::event::{Event, Verdict, What};
use super::super::{approval, search};
use super::{carry, integer, json};
use crate::ids::{OperationId, SessionId};

/// What schema 7 makes of the table: rows in the order of the chain, so that a new one is put behind the last, and nothing
/// in them that queries read from the event as well. `client` and the index of principals were never asked for.
pub(in crate::record) const SCHEMA: &str = "
CREATE TABLE operations_in_order (
    seq INTEGER PRIMARY KEY, operation TEXT NOT NULL UNIQUE, session TEXT, launch TEXT NOT NULL, workload TEXT NOT NULL,
    target TEXT, action TEXT NOT NULL, summary TEXT NOT NULL, verdict TEXT NOT NULL, code TEXT, initiator INTEGER,
    credential TEXT, approval TEXT, decided_at TEXT NOT NULL, finished_at TEXT, outcome TEXT, status INTEGER,
    request_bytes INTEGER, request_digest TEXT, response_bytes INTEGER, response_digest TEXT, masked TEXT,
    service_request TEXT
) STRICT;
INSERT INTO operations_in_order
    SELECT seq, operation, session, launch, workload, target, action, summary, verdict, code, initiator, credential,
        approval, decided_at, finished_at, outcome, status, request_bytes, request_digest, response_bytes,
        response_digest, masked, service_request
    FROM operations ORDER BY seq;
DROP TABLE operations;
ALTER TABLE operations_in_order RENAME TO operations;
CREATE INDEX operations_by_session ON operations (session) WHERE session IS NOT NULL;
";

/// What schema 8 makes of it: what was kept of an operation is told in its row.
pub(in crate::record) const KEPT: &str = "
ALTER TABLE operations ADD COLUMN kept_bytes INTEGER;
ALTER TABLE operations ADD COLUMN kept_digest TEXT;
UPDATE operations SET (kept_bytes, kept_digest) =
    (SELECT bytes, digest FROM contents c WHERE c.operation = operations.operation);
DROP TABLE contents;
";

/// What schema 9 adds to it: what an operation took of a grant, and the policies that cut it.
pub(in crate::record) const SPENT: &str = "
ALTER TABLE operations ADD COLUMN spent TEXT;
ALTER TABLE operations ADD COLUMN cut_by TEXT;
";

/// How it is filled from the events that are there.
pub(in crate::record) const FILL_SPENT: &str = "
UPDATE operations SET spent = f.spent, cut_by = f.cut_by FROM (
    SELECT body ->> '$.operation' AS operation, at, body -> '$.spent' AS spent, body -> '$.policies' AS cut_by FROM events
    WHERE kind = 'operation.finished' AND (instr(body, '\"spent\":') OR instr(body, '\"policies\":'))
) f WHERE f.operation = operations.operation AND f.at = operations.finished_at;
";

/// The rows that the events of a batch make.
pub(in crate::record) struct Rows<'a> {
    db: &'a Connection,
    /// Verdicts whose rows aren't written yet, in order.
    decided: Vec<Decided<'a>>,
    places: HashMap<OperationId, usize>,
    /// Their sessions.
    sessions: HashMap<SessionId, Session>,
}

/// A verdict, and the outcome if it came.
struct Decided<'a> {
    seq: i64,
    event: &'a Event,
    finished: Option<&'a Event>,
}

/// What the operations of a session are added up to, and where it went.
#[derive(Default)]
struct Session {
    operations: i64,
    denied: i64,
    host: Option<String>,
}

impl<'a> Rows<'a> {
    pub(in crate::record) fn new(db: &'a Connection) -> Self {
        Self { db, decided: Vec::new(), places: HashMap::new(), sessions: HashMap::new() }
    }

    /// Takes the next event of the chain. [`Rows::write`] comes behind the last one.
    pub(in crate::record) fn apply(&mut self, seq: u64, event: &'a Event) -> rusqlite::Result<()> {
        let seq = integer(seq);
        match &event.what {
            What::OperationDecided { operation, session, .. } => {
                if !self.places.contains_key(operation) {
                    self.places.insert(*operation, self.decided.len());
                    self.decided.push(Decided { seq, event, finished: None });
                    if let Some(session) = session {
                        self.sessions.entry(*session).or_default();
                    }
                }
                Ok(())
            }
            What::OperationFinished { operation, spent, .. } => {
                if let Some(spent) = spent {
                    approval::spent(self.db, spent)?;
                }
                match self.places.get(operation) {
                    Some(&place) => {
                        self.decided[place].finished.get_or_insert(event);
                        Ok(())
                    }
                    None => finish(self.db, event),
                }
            }
            // It neither reads nor writes what an operation that waits does.
            What::SessionClosed { .. } => carry(self.db, seq, event),
            What::SessionOpened { session, .. } if !self.sessions.contains_key(session) => carry(self.db, seq, event),
            _ => {
                self.write()?;
                carry(self.db, seq, event)
            }
        }
    }

    /// Writes what waits.
    pub(in crate::record) fn write(&mut self) -> rusqlite::Result<()> {
        let mut sessions = std::mem::take(&mut self.sessions);
        self.places.clear();
        let mut minutes = BTreeMap::new();
        let mut new = Vec::new();
        for decided in self.decided.drain(..) {
            let What::OperationDecided { session, verdict, basis, .. } = &decided.event.what else { continue };
            if !insert(self.db, &decided)? {
                if let Some(event) = decided.finished {
                    finish(self.db, event)?;
                }
                continue;
            }
            if let Some(grant) = basis.grant.filter(|_| *verdict == Verdict::Allow) {
                approval::used(self.db, grant)?;
            }
            if let Some(session) = session.and_then(|session| sessions.get_mut(&session)) {
                session.operations += 1;
                session.denied += i64::from(*verdict == Verdict::Deny);
            }
            let minute = decided.event.at.to_string()[..16].to_owned();
            minutes.entry(minute).or_insert((decided.seq, decided.seq)).1 = decided.seq;
            new.push((decided.seq, &decided.event.what));
        }
        for (session, counted) in &mut sessions {
            counted.host = count(self.db, *session, counted)?;
        }
        for (minute, (seq, last)) in minutes {
            self.db
                .prepare_cached(
                    "INSERT INTO minutes (minute, seq, last) VALUES (?1, ?2, ?3)
                     ON CONFLICT (minute) DO UPDATE SET last = excluded.last",
                )?
                .execute(params![minute, seq, last])?;
        }
        let host = |what: &What| match what {
            What::OperationDecided { session: Some(session), .. } => sessions.get(session)?.host.as_deref(),
            _ => None,
        };
        name(self.db, &new)?;
        search::enter(self.db, new.iter().map(|&(seq, what)| (seq, what, host(what))))
    }
}

/// Makes the row of an operation. Gives false where there is one.
fn insert(db: &Connection, decided: &Decided<'_>) -> rusqlite::Result<bool> {
    let What::OperationDecided {
        operation,
        session,
        launch,
        workload,
        target,
        action,
        summary,
        verdict,
        code,
        initiator,
        credential,
        approval,
        ..
    } = &decided.event.what
    else {
        return Ok(false);
    };
    let end = decided.finished.map(End::of).transpose()?.unwrap_or_default();
    let made = db
        .prepare_cached(
            "INSERT INTO operations (operation, seq, session, launch, workload, target, action, summary, verdict, code,
                                     initiator, credential, approval, decided_at, finished_at, outcome, status, request_bytes, request_digest, response_bytes,
                                     response_digest, masked, service_request, kept_bytes, kept_digest, spent, cut_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
                     ?23, ?24, ?25, ?26, ?27)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            operation.to_string(),
            decided.seq,
            session.map(|session| session.to_string()),
            launch.to_string(),
            workload.as_str(),
            target.as_ref().map(|target| target.as_str()),
            action,
            summary,
            verdict.as_str(),
            code,
            initiator,
            credential.map(|credential| credential.as_str()),
            approval.map(|approval| approval.to_string()),
            decided.event.at.to_string(),
            end.at,
            end.outcome,
            end.status,
            end.request_bytes,
            end.request_digest,
            end.response_bytes,
            end.response_digest,
            end.masked,
            end.service_request,
            end.kept_bytes,
            end.kept_digest,
            end.spent,
            end.cut_by
        ])?;
    Ok(made > 0)
}

/// Adds an outcome to the row that is there.
fn finish(db: &Connection, event: &Event) -> rusqlite::Result<()> {
    let What::OperationFinished { operation, .. } = &event.what else { return Ok(()) };
    let end = End::of(event)?;
    db.prepare_cached(
        "UPDATE operations SET finished_at = ?2, outcome = ?3, status = ?4, request_bytes = ?5, request_digest = ?6,
                response_bytes = ?7, response_digest = ?8, masked = ?9, service_request = ?10,
                kept_bytes = coalesce(kept_bytes, ?11), kept_digest = coalesce(kept_digest, ?12),
                spent = ?13, cut_by = ?14
         WHERE operation = ?1 AND finished_at IS NULL",
    )?
    .execute(params![
        operation.to_string(),
        end.at,
        end.outcome,
        end.status,
        end.request_bytes,
        end.request_digest,
        end.response_bytes,
        end.response_digest,
        end.masked,
        end.service_request,
        end.kept_bytes,
        end.kept_digest,
        end.spent,
        end.cut_by
    ])?;
    Ok(())
}

/// The columns of an outcome; all empty where there is none yet.
#[derive(Default)]
struct End<'a> {
    at: Option<String>,
    outcome: Option<&'a str>,
    status: Option<u16>,
    request_bytes: Option<i64>,
    request_digest: Option<&'a str>,
    response_bytes: Option<i64>,
    response_digest: Option<&'a str>,
    masked: Option<String>,
    service_request: Option<&'a str>,
    kept_bytes: Option<i64>,
    kept_digest: Option<&'a str>,
    spent: Option<String>,
    cut_by: Option<String>,
}

impl<'a> End<'a> {
    fn of(event: &'a Event) -> rusqlite::Result<Self> {
        let What::OperationFinished {
            outcome,
            policies,
            status,
            request,
            response,
            masked,
            spent,
            service_request,
            kept,
            ..
        } = &event.what
        else {
            return Ok(Self::default());
        };
        Ok(Self {
            at: Some(event.at.to_string()),
            outcome: Some(outcome),
            status: *status,
            request_bytes: Some(integer(request.bytes)),
            request_digest: request.digest.as_deref(),
            response_bytes: Some(integer(response.bytes)),
            response_digest: response.digest.as_deref(),
            masked: (!masked.is_empty()).then(|| json(masked)).transpose()?,
            service_request: service_request.as_deref(),
            kept_bytes: kept.as_ref().map(|kept| integer(kept.bytes)),
            kept_digest: kept.as_ref().map(|kept| &*kept.digest),
            spent: spent.as_ref().map(json).transpose()?,
            cut_by: (!policies.is_empty()).then(|| json(policies)).transpose()?,
        })
    }
}

/// Adds to the counts of a session. Gives where it went, as far as the chain has told yet.
fn count(db: &Connection, session: SessionId, counted: &Session) -> rusqlite::Result<Option<String>> {
    let host = db
        .prepare_cached(
            "UPDATE sessions SET operations = operations + ?2, denied = denied + ?3 WHERE session = ?1 RETURNING host",
        )?
        .query_row(params![session.to_string(), counted.operations, counted.denied], |row| row.get(0))
        .optional()?;
    Ok(host.flatten())
}

/// Enters whom the operations of sessions named.
fn name(db: &Connection, new: &[(i64, &What)]) -> rusqlite::Result<()> {
    let mut named = BTreeMap::new();
    for (seq, what) in new {
        if let What::OperationDecided { session: Some(session), identity: Some(identity), .. } = what {
            named.entry((*session, identity.principal.as_str())).or_insert(*seq);
        }
    }
    let mut statement = db.prepare_cached(
        "INSERT INTO session_principals (session, principal, seq) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    for ((session, principal), seq) in named {
        statement.execute(params![session.to_string(), principal, seq])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
