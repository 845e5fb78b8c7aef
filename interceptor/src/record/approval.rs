//! Approvals and grants in the record: their tables, and the queries about them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::event::{ApprovalRequest, Event, Spent, What};
use super::projection::integer;
use super::query::{QueryError, Reader};
use crate::ids::{ApprovalId, GrantId};
use crate::policy::Grant;

/// The tables.
pub(super) const SCHEMA: &str = "
CREATE TABLE approvals (
    approval TEXT PRIMARY KEY, seq INTEGER NOT NULL, asked TEXT NOT NULL, asked_at TEXT NOT NULL, answers TEXT NOT NULL,
    closed_at TEXT, outcome TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX approvals_by_seq ON approvals (seq);
CREATE TABLE grants (
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL, issued TEXT NOT NULL, issued_at TEXT NOT NULL, issuer INTEGER,
    used INTEGER NOT NULL, bytes INTEGER NOT NULL DEFAULT 0, rows INTEGER NOT NULL DEFAULT 0, ended_at TEXT, reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_by_seq ON grants (seq);
ALTER TABLE operations ADD COLUMN approval TEXT;
";

/// An approval, as lists and `approvals show` have it. Its JSON is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What is asked.
    #[serde(flatten)]
    pub request: ApprovalRequest,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// What was answered, in order.
    pub answers: Vec<Answer>,
    /// When it was closed; none while it can be answered.
    pub closed_at: Option<Timestamp>,
    /// How: `granted`, `denied`, `expired`, `daemon-restarted`.
    pub outcome: Option<String>,
}

/// Somebody's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When.
    pub at: Timestamp,
    /// Who; none if `[people]` didn't say.
    pub person: Option<String>,
    /// By this uid.
    pub uid: u32,
    /// As whom they logged in, where the kernel knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loginuid: Option<u32>,
    /// Whether it was a yes.
    pub yes: bool,
    /// The groups that it counts for.
    pub groups: Vec<String>,
    /// Those of which an Entra group of his sign-in made him a member then. Not in the record: it is asked only while the question
    /// is open, of the daemon that asked it.
    #[serde(skip)]
    pub by_sign_in: BTreeSet<String>,
    /// Whether it is the initiator's own word, and nothing more.
    #[serde(default)]
    pub confirms: bool,
    /// How wide the yes is.
    pub width: Option<String>,
    /// What they said to it.
    pub note: Option<String>,
    /// Whether an ID token signs it (true), or says only who he is (false); none where he is known by his uid alone. The
    /// token itself is in the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<bool>,
}

/// The events of an approval as they were recorded, byte for byte: what its evidence is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// `approval.requested`
    pub requested: String,
    /// Each `approval.answered`, in order.
    pub answered: Vec<String>,
}

/// A grant, as lists have it. Its JSON is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// What it lets through. `uses` is how often in all.
    #[serde(flatten)]
    pub grant: Grant,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The uid of the operator who issued it; none where it comes of an approval.
    pub issuer: Option<u32>,
    /// How often it was used.
    pub used: u64,
    /// How many bytes of answers it let through, where they are limited, or rows.
    #[serde(default)]
    pub spent_bytes: u64,
    /// How many rows, where they are limited.
    #[serde(default)]
    pub spent_rows: u64,
    /// When it ended before its time, or was found to be over.
    pub ended_at: Option<Timestamp>,
    /// Why: `revoked`, `expired`, `used-up`.
    pub reason: Option<String>,
}

/// Carries what an event says of approvals and grants over into the tables.
pub(super) fn apply(db: &Connection, seq: i64, event: &Event) -> rusqlite::Result<()> {
    let at = event.at.to_string();
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    };
    match &event.what {
        What::ApprovalRequested(request) => db
            .prepare_cached(
                "INSERT INTO approvals (approval, seq, asked, asked_at, answers) VALUES (?1, ?2, ?3, ?4, '[]')
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![request.approval.to_string(), seq, json(serde_json::to_string(request))?, at])?,
        What::ApprovalAnswered(answered) => {
            let approval = answered.approval;
            let answer = Answer {
                at: event.at,
                person: answered.person.as_ref().map(ToString::to_string),
                uid: answered.uid,
                loginuid: answered.loginuid,
                yes: answered.yes,
                groups: answered.groups.clone(),
                by_sign_in: BTreeSet::new(),
                confirms: answered.confirms,
                width: answered.width.map(|width| width.to_string()),
                note: answered.note.clone(),
                signed: answered.evidence.as_ref().map(|evidence| evidence.bound),
            };
            db.prepare_cached(
                "UPDATE approvals SET answers = json_insert(answers, '$[#]', json(?2)) WHERE approval = ?1",
            )?
            .execute(params![approval.to_string(), json(serde_json::to_string(&answer))?])?
        }
        What::ApprovalClosed { approval, outcome } => db
            .prepare_cached(
                "UPDATE approvals SET closed_at = ?2, outcome = ?3 WHERE approval = ?1 AND closed_at IS NULL",
            )?
            .execute(params![approval.to_string(), at, outcome])?,
        What::GrantIssued { grant, by } => db
            .prepare_cached(
                "INSERT INTO grants (id, seq, issued, issued_at, issuer, used) VALUES (?1, ?2, ?3, ?4, ?5, 0)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![grant.id.to_string(), seq, json(serde_json::to_string(grant))?, at, by])?,
        What::GrantEnded { grant, reason, .. } => db
            .prepare_cached("UPDATE grants SET ended_at = ?2, reason = ?3 WHERE id = ?1 AND ended_at IS NULL")?
            .execute(params![grant.to_string(), at, reason])?,
        _ => 0,
    };
    Ok(())
}

/// Counts a use of a grant.
pub(super) fn used(db: &Connection, grant: GrantId) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE grants SET used = used + 1 WHERE id = ?1")?.execute([grant.to_string()]).map(drop)
}

/// What is left of the live grants, as events: what was used of them isn't told again.
pub(super) fn left(db: &Connection) -> Result<Vec<Event>, QueryError> {
    let live = read(db, "WHERE ended_at IS NULL ORDER BY seq LIMIT ?1", u32::MAX)?;
    let left = live.into_iter().map(|one| {
        let less = |most: Option<u64>, taken: u64| most.map(|most| most.saturating_sub(taken));
        let uses = less(one.grant.uses, one.used);
        let (bytes, rows) = (less(one.grant.bytes, one.spent_bytes), less(one.grant.rows, one.spent_rows));
        let grant = Box::new(Grant { uses, bytes, rows, ..one.grant });
        Event { at: one.issued_at, what: What::GrantIssued { grant, by: one.issuer } }
    });
    Ok(left.collect())
}

/// Adds what an operation took of a grant.
pub(super) fn spent(db: &Connection, spent: &Spent) -> rusqlite::Result<()> {
    let sql = "UPDATE grants SET bytes = bytes + ?2, rows = rows + ?3 WHERE id = ?1";
    let taken = params![spent.grant.to_string(), integer(spent.bytes), integer(spent.rows)];
    db.prepare_cached(sql)?.execute(taken).map(drop)
}

impl Reader {
    /// The approval whose id is `id` or begins with it.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn approval(&self, id: &str) -> Result<Approval, QueryError> {
        let id = self.whole_id("approvals", "approval", "apr", id)?;
        let sql = format!("{APPROVAL} WHERE approval = ?1");
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query([&id])?;
        match rows.next()? {
            Some(row) => approval(row),
            None => Err(QueryError::Unknown(id)),
        }
    }

    /// The event by which an approval was asked for, byte for byte; `id` is whole.
    ///
    /// # Errors
    /// When there is none.
    pub fn requested(&self, id: ApprovalId) -> Result<String, QueryError> {
        let sql = "SELECT e.body FROM approvals a JOIN events e ON e.seq = a.seq WHERE a.approval = ?1";
        let body = self.db.prepare_cached(sql)?.query_row([id.to_string()], |row| row.get(0)).optional()?;
        body.ok_or_else(|| QueryError::Unknown(id.to_string()))
    }

    /// The events of the approval whose id is `id` or begins with it.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn recorded(&self, id: &str) -> Result<Recorded, QueryError> {
        let approval = self.approval(id)?.request.approval;
        // Answers aren't indexed by what they answer: all events since are looked at, once in a while.
        let sql = "SELECT body FROM events WHERE seq > (SELECT seq FROM approvals WHERE approval = ?1)
                   AND kind = 'approval.answered' AND json_extract(body, '$.approval') = ?1 ORDER BY seq";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([approval.to_string()], |row| row.get(0))?;
        Ok(Recorded { requested: self.requested(approval)?, answered: rows.collect::<Result<_, _>>()? })
    }

    /// The latest approvals, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn approvals(&self, limit: u32) -> Result<Vec<Approval>, QueryError> {
        let mut statement = self.db.prepare_cached(&format!("{APPROVAL} ORDER BY seq DESC LIMIT ?1"))?;
        let mut rows = statement.query([limit.min(10_000)])?;
        let mut approvals = Vec::new();
        while let Some(row) = rows.next()? {
            approvals.push(approval(row)?);
        }
        Ok(approvals)
    }

    /// The approvals that nobody closed. Asked at the start of a daemon, nobody waits for them any more.
    ///
    /// # Errors
    /// When the database fails.
    pub fn open_approvals(&self) -> Result<Vec<ApprovalId>, QueryError> {
        let mut statement = self.db.prepare("SELECT approval FROM approvals WHERE closed_at IS NULL ORDER BY seq")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.map(|id| Ok(serde_json::from_value(id?.into())?)).collect()
    }

    /// The approvals that were denied, at most `limit`, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn denied_approvals(&self, limit: u32) -> Result<Vec<Approval>, QueryError> {
        let sql = format!("{APPROVAL} WHERE outcome = 'denied' ORDER BY seq DESC LIMIT ?1");
        let mut statement = self.db.prepare(&sql)?;
        let mut rows = statement.query([limit])?;
        let mut approvals = Vec::new();
        while let Some(row) = rows.next()? {
            approvals.push(approval(row)?);
        }
        Ok(approvals)
    }

    /// The latest grants, newest first, at most `limit`; `all`: those too that have ended.
    ///
    /// # Errors
    /// When the database fails.
    pub fn grants(&self, all: bool, limit: u32) -> Result<Vec<Granted>, QueryError> {
        let which = if all { "" } else { "WHERE ended_at IS NULL " };
        read(&self.db, &format!("{which}ORDER BY seq DESC LIMIT ?1"), limit.min(10_000))
    }

    /// When the latest event happened, as far as the last thousand of them and the minutes of operations tell; none if there
    /// is none.
    ///
    /// # Errors
    /// When the database fails.
    pub fn latest(&self) -> Result<Option<Timestamp>, QueryError> {
        let sql = "SELECT max(at) FROM (SELECT at FROM (SELECT at FROM events ORDER BY seq DESC LIMIT 1000)
                   UNION ALL SELECT max(minute) || ':00Z' FROM minutes)";
        let latest: Option<String> = self.db.query_row(sql, [], |row| row.get(0))?;
        latest.as_deref().map(time).transpose()
    }

    /// The grants that didn't end, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn live_grants(&self) -> Result<Vec<Granted>, QueryError> {
        read(&self.db, "WHERE ended_at IS NULL ORDER BY seq LIMIT ?1", u32::MAX)
    }

    /// The grant whose id is `id` or begins with it.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn grant(&self, id: &str) -> Result<GrantId, QueryError> {
        let id = self.whole_id("grants", "id", "grt", id)?;
        id.parse().map_err(|_malformed| QueryError::Unknown(id))
    }
}

fn read(db: &Connection, clause: &str, limit: u32) -> Result<Vec<Granted>, QueryError> {
    let sql = format!("SELECT issued, issued_at, issuer, used, ended_at, reason, bytes, rows FROM grants {clause}");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([limit])?;
    let mut grants = Vec::new();
    while let Some(row) = rows.next()? {
        let (issued, issued_at, ended_at): (String, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(4)?);
        grants.push(Granted {
            grant: serde_json::from_str(&issued)?,
            issued_at: time(&issued_at)?,
            issuer: row.get(2)?,
            used: row.get::<_, i64>(3)?.cast_unsigned(),
            ended_at: ended_at.as_deref().map(time).transpose()?,
            reason: row.get(5)?,
            spent_bytes: row.get::<_, i64>(6)?.cast_unsigned(),
            spent_rows: row.get::<_, i64>(7)?.cast_unsigned(),
        });
    }
    Ok(grants)
}

const APPROVAL: &str = "SELECT asked, asked_at, answers, closed_at, outcome FROM approvals";

fn approval(row: &rusqlite::Row<'_>) -> Result<Approval, QueryError> {
    let (asked, asked_at, answers): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let closed_at: Option<String> = row.get(3)?;
    Ok(Approval {
        request: serde_json::from_str(&asked)?,
        asked_at: time(&asked_at)?,
        answers: serde_json::from_str(&answers)?,
        closed_at: closed_at.as_deref().map(time).transpose()?,
        outcome: row.get(4)?,
    })
}

fn time(text: &str) -> Result<Timestamp, QueryError> {
    Ok(serde_json::from_value(text.into())?)
}
