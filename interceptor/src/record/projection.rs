//! What is derived from the events so that it can be queried: launches, sessions, operations. Each row comes from events
//! alone, in the order of the chain, so that `verify` can make it again and compare.

use rusqlite::{Connection, params};

use super::event::{Event, What};
use super::{approval, break_glass, ledger, retention, search};

pub(super) mod operations;

pub(super) use operations::Rows;

/// The tables, with the column that names a row. Each has `seq`: the event that made the row.
pub(super) const TABLES: [(&str, &str); 12] = [
    ("workloads", "launch"),
    ("sessions", "session"),
    ("operations", "operation"),
    ("tokens", "issue"),
    ("session_principals", "session || ' ' || principal"),
    ("minutes", "minute"),
    ("retention", "session"),
    ("prunes", "printf('%020d', seq)"),
    ("approvals", "approval"),
    ("grants", "id"),
    ("break_glass", "id"),
    ("ledger", "launch"),
];

/// The tables' definitions.
pub(super) const SCHEMA: [&str; 14] = [
    FIRST,
    IDENTITIES,
    CONTENTS,
    MASKED,
    search::SCHEMA,
    retention::SCHEMA,
    approval::SCHEMA,
    break_glass::SCHEMA,
    retention::SCOPES,
    ledger::SCHEMA,
    operations::SCHEMA,
    operations::KEPT,
    operations::SPENT,
    CUT,
];

/// As of schema 1.
pub(super) const FIRST: &str = "
CREATE TABLE workloads (
    launch TEXT PRIMARY KEY, seq INTEGER NOT NULL, workload TEXT NOT NULL, initiator INTEGER NOT NULL,
    uid INTEGER NOT NULL, pid INTEGER NOT NULL, command TEXT NOT NULL, containment TEXT NOT NULL,
    started_at TEXT NOT NULL, ended_at TEXT, status TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    session TEXT PRIMARY KEY, seq INTEGER NOT NULL, launch TEXT NOT NULL, workload TEXT NOT NULL, process TEXT,
    original TEXT NOT NULL, host TEXT, target TEXT, opened_at TEXT NOT NULL, closed_at TEXT, reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_seq ON sessions (seq);
CREATE TABLE operations (
    operation TEXT PRIMARY KEY, seq INTEGER NOT NULL, session TEXT, launch TEXT NOT NULL, workload TEXT NOT NULL,
    target TEXT, action TEXT NOT NULL, summary TEXT NOT NULL, verdict TEXT NOT NULL, code TEXT, basis TEXT NOT NULL,
    decided_at TEXT NOT NULL, finished_at TEXT, outcome TEXT, status INTEGER, request_bytes INTEGER,
    request_digest TEXT, response_bytes INTEGER, response_digest TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX operations_by_session ON operations (session, seq) WHERE session IS NOT NULL;
";

/// What schema 2 adds: who asked, and the tokens that were issued.
pub(super) const IDENTITIES: &str = "
ALTER TABLE operations ADD COLUMN initiator INTEGER;
ALTER TABLE operations ADD COLUMN credential TEXT;
ALTER TABLE operations ADD COLUMN principal TEXT;
ALTER TABLE operations ADD COLUMN client TEXT;
ALTER TABLE operations ADD COLUMN identity TEXT;
CREATE INDEX operations_by_principal ON operations (principal, seq) WHERE principal IS NOT NULL;
CREATE TABLE tokens (
    issue TEXT PRIMARY KEY, seq INTEGER NOT NULL, token TEXT NOT NULL, launch TEXT NOT NULL, workload TEXT NOT NULL,
    principal TEXT NOT NULL, client TEXT, audience TEXT NOT NULL, expires_at TEXT NOT NULL, issued TEXT NOT NULL,
    issued_at TEXT NOT NULL, ended_at TEXT, reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_token ON tokens (token);
CREATE INDEX tokens_by_expiry ON tokens (expires_at);
";

/// Which operations have a sealed payload, and its digest.
pub(super) const CONTENTS: &str = "
CREATE TABLE contents (
    operation TEXT PRIMARY KEY, seq INTEGER NOT NULL, session TEXT NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What was masked in an operation's answer, as JSON: what, and how often.
pub(super) const MASKED: &str = "
ALTER TABLE operations ADD COLUMN masked TEXT;
";

/// What schema 9 adds: the way from who launched something to its sessions.
pub(super) const LAUNCHERS: &str = "
CREATE INDEX workloads_by_initiator ON workloads (initiator);
CREATE INDEX sessions_by_launch ON sessions (launch, seq);
";

/// What schema 10 adds: the policies that cut a session.
pub(super) const CUT: &str = "
ALTER TABLE sessions ADD COLUMN cut_by TEXT;
";

/// How it is filled from the events that are there.
pub(super) const FILL_CUT: &str = "
UPDATE sessions SET cut_by = f.cut_by FROM (
    SELECT body ->> '$.session' AS session, at, body -> '$.policies' AS cut_by FROM events
    WHERE kind = 'session.closed' AND instr(body, '\"policies\":')
) f WHERE f.session = sessions.session AND f.at = sessions.closed_at;
";

/// And the way to the sessions that go on, of which there are few among many.
pub(super) const OPEN: &str = "
CREATE INDEX sessions_open ON sessions (seq) WHERE closed_at IS NULL;
";

/// Carries one event over into the tables. What comes twice counts once: the first time.
pub(super) fn apply(db: &Connection, seq: u64, event: &Event) -> rusqlite::Result<()> {
    let mut rows = Rows::new(db);
    rows.apply(seq, event)?;
    rows.write()
}

/// Carries over what doesn't concern operations.
fn carry(db: &Connection, seq: i64, event: &Event) -> rusqlite::Result<()> {
    let at = event.at.to_string();
    match &event.what {
        What::WorkloadStarted { launch, workload, initiator, uid, pid, command, containment, .. } => db
            .prepare_cached(
                "INSERT INTO workloads (launch, seq, workload, initiator, uid, pid, command, containment, started_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                launch.to_string(),
                seq,
                workload.as_str(),
                initiator,
                uid,
                pid,
                command,
                containment,
                at
            ])?,
        What::WorkloadEnded { launch, status } => db
            .prepare_cached("UPDATE workloads SET ended_at = ?2, status = ?3 WHERE launch = ?1 AND ended_at IS NULL")?
            .execute(params![launch.to_string(), at, status])?,
        What::SessionOpened { session, launch, workload, process, original, host, target } => db
            .prepare_cached(
                "INSERT INTO sessions (session, seq, launch, workload, process, original, host, target, opened_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                session.to_string(),
                seq,
                launch.to_string(),
                workload.as_str(),
                process.as_ref().map(json).transpose()?,
                original.to_string(),
                host.as_ref().map(ToString::to_string),
                target.as_ref().map(|target| target.as_str()),
                at
            ])?,
        What::SessionClosed { session, reason, policies } => db
            .prepare_cached(
                "UPDATE sessions SET closed_at = ?2, reason = ?3, cut_by = ?4
                 WHERE session = ?1 AND closed_at IS NULL",
            )?
            .execute(params![
                session.to_string(),
                at,
                reason,
                (!policies.is_empty()).then(|| json(policies)).transpose()?
            ])?,
        What::TokenIssued(issued) => db
            .prepare_cached(
                "INSERT INTO tokens (issue, seq, token, launch, workload, principal, client, audience, expires_at, issued,
                                     issued_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                // One token can be issued to several workloads: a host's identity is the same for all of them.
                format!("{}/{}", issued.token, issued.issued.workload),
                seq,
                issued.token.to_string(),
                issued.launch.to_string(),
                issued.issued.workload.as_str(),
                issued.issued.principal.as_str(),
                issued.issued.client.map(|client| client.to_string()),
                issued.issued.audiences.join(" "),
                issued.issued.expiry.to_string(),
                json(issued)?,
                at
            ])?,
        What::PayloadRecorded { operation, digest, bytes, .. } => db
            .prepare_cached(
                "UPDATE operations SET kept_bytes = ?2, kept_digest = ?3 WHERE operation = ?1 AND kept_digest IS NULL",
            )?
            .execute(params![operation.to_string(), integer(*bytes), digest])?,
        What::TokenEnded { token, reason } => db
            .prepare_cached("UPDATE tokens SET ended_at = ?2, reason = ?3 WHERE token = ?1 AND ended_at IS NULL")?
            .execute(params![token.to_string(), at, json(reason)?.trim_matches('"')])?,
        what @ (What::RecordPruned { .. } | What::SessionErased { .. } | What::SessionHeld { .. }) => {
            retention::apply(db, seq, what)?
        }
        What::ApprovalRequested(_)
        | What::ApprovalAnswered { .. }
        | What::ApprovalClosed { .. }
        | What::GrantIssued { .. }
        | What::GrantEnded { .. } => return approval::apply(db, seq, event),
        What::BreakGlassStarted { .. } | What::BreakGlassEnded { .. } | What::BreakGlassClosed { .. } => {
            return break_glass::apply(db, seq, event);
        }
        What::Ledger(_) => return ledger::apply(db, seq, event),
        // The rows of operations are [`Rows`]'.
        What::OperationDecided { .. }
        | What::OperationFinished { .. }
        | What::PayloadRead { .. }
        | What::ApprovalRead { .. }
        | What::DaemonStarted { .. }
        | What::DaemonStopped { .. }
        | What::SnapshotLoaded { .. }
        | What::SnapshotRejected { .. }
        | What::ControlRequest { .. }
        | What::Adoption(_)
        | What::NotificationFailed { .. }
        | What::LoginSucceeded { .. }
        | What::LoginRefused { .. }
        | What::LoginEnded { .. }
        | What::RecordOutage { .. }
        | What::RecordRotated { .. }
        | What::RecordBegun(_)
        | What::RecordHashed(_)
        | What::RecordDamaged { .. } => 0,
    };
    Ok(())
}

/// A count as SQLite keeps it.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
