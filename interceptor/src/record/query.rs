//! Questions to the record. The answers' JSON is stable and described in `docs/record.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::event::{Identity, Kept, Spent, TokenIssued};
use super::keys::Keys;
use super::payload::{self, Content};
use super::{RecordError, store};
use crate::identity::provenance::{Digest, Recorded};
use crate::ids::{OperationId, SessionId};
use crate::policy::Basis;
use crate::who::Process;

mod columns;
mod rows;

pub(super) use columns::of_operations;
use columns::of_sessions;
pub(super) use rows::operation;
use rows::{launched, session};

/// Bytes of operations that one answer holds; what is over is counted.
pub(super) const ANSWER_BYTES: usize = 2 << 20;

/// After how many steps of SQLite's machine the time is looked at again: less than a millisecond.
const STEPS: i32 = 10_000;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The database can't be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// SQLite failed.
    #[error("the record's database can't be read: {0}")]
    Database(#[source] rusqlite::Error),
    /// The answer took longer than [`Reader::within`] allows.
    #[error("the answer takes too long; ask for less, or for a shorter time")]
    TooSlow,
    /// A column holds something else than was written.
    #[error("the record's database holds something else than was written; run `interceptor sessions verify`")]
    Content(#[from] serde_json::Error),
    /// The key of the session was erased, and its content with it.
    #[error("the key of `{0}` was erased: what it sent and got can't be read any more")]
    Erased(String),
    /// What is there isn't what was sealed.
    #[error("the payload of `{0}` isn't what was sealed; run `interceptor sessions verify`")]
    Forged(String),
    /// A search without anything to look for.
    #[error("there is nothing to look for: give a word with a letter or digit in it, or a filter")]
    Nothing,
    /// A search for more than the index is asked at once.
    #[error(
        "that is more than a search takes: 1 KiB of text, 16 words of 64 parts in all, two words with `*`, and two letters or \
         digits before each `*`"
    )]
    TooBroad,
    /// Nothing has this id.
    #[error("nothing recorded has an id that begins with `{0}`")]
    Unknown(String),
    /// More than one has an id that begins like this.
    #[error("more than one id begins with `{0}`; give more of it")]
    Ambiguous(String),
    /// It isn't the beginning of such an id.
    #[error("`{text}` isn't the beginning of an id of the form `{prefix}_…`")]
    Malformed {
        /// What was given.
        text: String,
        /// The kind's prefix.
        prefix: &'static str,
    },
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => QueryError::TooSlow,
            _ => QueryError::Database(error),
        }
    }
}

impl QueryError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            QueryError::Record(_) | QueryError::Database(_) | QueryError::Content(_) => "record-unreadable",
            QueryError::Forged(_) => "record-unreadable",
            QueryError::Erased(_) => "payload-erased",
            QueryError::Nothing => "nothing-asked",
            QueryError::TooBroad => "search-too-broad",
            QueryError::TooSlow => "answer-too-slow",
            QueryError::Unknown(_) => "not-found",
            QueryError::Ambiguous(_) => "ambiguous-id",
            QueryError::Malformed { .. } => "malformed-id",
        }
    }
}

/// What has begun and not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// The sessions, oldest first.
    pub sessions: Vec<SessionId>,
    /// Their operations, oldest first.
    pub operations: Vec<OperationId>,
}

/// A session in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `ses_…`
    pub session: String,
    /// The launch it belongs to, `wl_…`.
    pub launch: String,
    /// The workload's name.
    pub workload: String,
    /// The process that connected, if known.
    pub process: Option<Process>,
    /// The address and port that it connected to.
    pub original: String,
    /// The name or address behind that.
    pub host: Option<String>,
    /// The target.
    pub target: Option<String>,
    /// When it began, RFC 3339 in UTC.
    pub opened_at: String,
    /// When it ended; none while it lives.
    pub closed_at: Option<String>,
    /// Why it ended.
    pub reason: Option<String>,
    /// How many operations it has.
    pub operations: u64,
    /// How many of them were denied.
    pub denied: u64,
    /// Whom the tokens of its operations named, sorted.
    pub principals: Vec<String>,
    /// What the configuration calls ids that are in here, by id.
    pub names: BTreeMap<String, String>,
    /// The policies that cut it, where policy changed under it.
    #[serde(default)]
    pub cut_by: Vec<String>,
}

/// A launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// `wl_…`
    pub launch: String,
    /// The workload's name.
    pub workload: String,
    /// The uid of the person who launched it.
    pub initiator: u32,
    /// The uid it runs as.
    pub uid: u32,
    /// Its process 1.
    pub pid: u32,
    /// The command's file.
    pub command: String,
    /// Its containment level.
    pub containment: String,
    /// When it began.
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// How it ended.
    pub status: Option<String>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `op_…`
    pub operation: String,
    /// Its session, if it has one.
    pub session: Option<String>,
    /// The launch it belongs to.
    pub launch: String,
    /// The workload's name.
    pub workload: String,
    /// The target.
    pub target: Option<String>,
    /// The action, as in `http:GET`.
    pub action: String,
    /// What was asked for.
    pub summary: String,
    /// `allow`, `deny` or `hold`.
    pub verdict: String,
    /// The code of a denial.
    pub code: Option<String>,
    /// What determined the verdict: generation, policies, reasons, obligations.
    pub basis: Basis,
    /// When it was decided.
    pub decided_at: String,
    /// When it ended.
    pub finished_at: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// The HTTP status that the process got.
    pub status: Option<u16>,
    /// The size and BLAKE3 of what was sent upstream.
    pub request: Body,
    /// The size and BLAKE3 of what the process got.
    pub response: Body,
    /// The uid of the person who launched the workload.
    pub initiator: Option<u32>,
    /// What it authenticates with: `none`, `entra`, `foreign`.
    pub credential: Option<String>,
    /// Whom its token names; none without one.
    pub identity: Option<Identity>,
    /// What the configuration calls ids that are in here, by id.
    pub names: BTreeMap<String, String>,
    /// What was kept of both, sealed; none where nothing was.
    #[serde(default)]
    pub payload: Option<Kept>,
    /// What was masked in the answer: the path or the detector's id, and how many values.
    #[serde(default)]
    pub masked: BTreeMap<String, u64>,
    /// What people are asked about it, or were, `apr_…`; none where they weren't.
    #[serde(default)]
    pub approval: Option<String>,
    /// What the service calls the request: its `request-id`, or the like.
    #[serde(default)]
    pub service_request: Option<String>,
    /// What it took of a grant of bytes or rows; none where it needed none.
    #[serde(default)]
    pub spent: Option<Spent>,
    /// The policies that cut it, where policy changed under it.
    #[serde(default)]
    pub cut_by: Vec<String>,
}

/// A body, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Its bytes; none while the operation goes on.
    pub bytes: Option<u64>,
    /// Its BLAKE3 in hex.
    pub digest: Option<String>,
}

/// A session with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// The session.
    pub session: Session,
    /// Its launch, if the record has it.
    pub launch: Option<Launch>,
    /// Its operations, in the order in which they were decided.
    pub operations: Vec<Operation>,
    /// How many more there are than fit into one answer.
    pub omitted: u64,
}

/// A connection for queries. It sees what is in the database; [`super::Record::flush`] brings everything there.
#[derive(Debug)]
pub struct Reader {
    pub(super) db: Connection,
    /// The database's schema: a moved one keeps an earlier one.
    pub(super) schema: i64,
}

const LAUNCH: &str = "SELECT launch, workload, initiator, uid, pid, command, containment, started_at, ended_at, status
    FROM workloads";

/// The latest `?1` sessions of a database of this schema, all or those of workloads that `?2` launched.
pub(super) fn sessions(schema: i64, of: Option<u32>) -> String {
    let own = match of {
        // Sorted by itself (`+`): in the order of all sessions, those of everybody would be read for who has few.
        Some(_) => {
            "WHERE seq IN (SELECT seq FROM sessions
                WHERE launch IN (SELECT launch FROM workloads WHERE initiator = ?2) ORDER BY +seq DESC LIMIT ?1)"
        }
        None => "WHERE ?2 IS NULL",
    };
    format!("{} {own} ORDER BY seq DESC LIMIT ?1", of_sessions(schema))
}

impl Reader {
    /// Opens the database `path` for reading only.
    ///
    /// # Errors
    /// When it isn't there, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, QueryError> {
        let db = store::open_read_only(path)?;
        let schema = store::schema_of(&db, path, store::known_schema())?;
        Ok(Self { db, schema })
    }

    /// The same, for questions that are answered within `time` from now, or not at all.
    ///
    /// # Errors
    /// When SQLite refuses it.
    pub fn within(self, time: Duration) -> Result<Self, QueryError> {
        let begin = Instant::now();
        self.db.progress_handler(STEPS, Some(move || begin.elapsed() >= time))?;
        Ok(self)
    }

    /// The latest sessions, newest first, at most `limit` (and at most 10,000). `of`: only those of workloads that this
    /// uid launched.
    ///
    /// # Errors
    /// When the database fails.
    pub fn sessions(&self, limit: u32, of: Option<u32>) -> Result<Vec<Session>, QueryError> {
        let mut statement = self.db.prepare_cached(&sessions(self.schema, of))?;
        let mut rows = statement.query((limit.min(10_000), of))?;
        let mut sessions = Vec::new();
        while let Some(row) = rows.next()? {
            sessions.push(session(row)?);
        }
        Ok(sessions)
    }

    /// The session whose id is `id` or begins with it, with its launch and operations.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn session(&self, id: &str) -> Result<Story, QueryError> {
        let id = self.whole_id("sessions", "session", "ses", id)?;
        let mut statement = self.db.prepare_cached(&format!("{} WHERE session = ?1", of_sessions(self.schema)))?;
        let mut rows = statement.query([&id])?;
        let Some(row) = rows.next()? else { return Err(QueryError::Unknown(id)) };
        let session = session(row)?;
        let launch = self
            .db
            .prepare_cached(&format!("{LAUNCH} WHERE launch = ?1"))?
            .query_row([&session.launch], launched)
            .optional()?;
        let operations = self.operations(&id, None)?;
        let omitted = session.operations.saturating_sub(operations.len() as u64);
        Ok(Story { session, launch, operations, omitted })
    }

    /// The operations of a session that were decided after the operation `after`, as many as fit into one answer.
    ///
    /// # Errors
    /// When the database fails.
    pub fn operations(&self, session: &str, after: Option<&str>) -> Result<Vec<Operation>, QueryError> {
        let mut operations = Vec::new();
        let mut bytes = 0;
        let sql = format!(
            "{} WHERE session = ?1
             AND seq > coalesce((SELECT seq FROM operations WHERE operation = ?2), 0) ORDER BY seq",
            of_operations(self.schema)
        );
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query((session, after))?;
        while let Some(row) = rows.next()? {
            let operation = operation(row)?;
            bytes += serde_json::to_vec(&operation)?.len();
            if bytes > ANSWER_BYTES {
                break;
            }
            operations.push(operation);
        }
        Ok(operations)
    }

    pub(super) fn content(&self, operation: OperationId, keys: &Keys) -> Result<Option<Content>, QueryError> {
        payload::read(&self.db, operation, keys)
    }

    /// The operation whose id is `id` or begins with it.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn operation(&self, id: &str) -> Result<Operation, QueryError> {
        let id = self.whole_id("operations", "operation", "op", id)?;
        let sql = format!("{} WHERE operation = ?1", of_operations(self.schema));
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query([&id])?;
        match rows.next()? {
            Some(row) => operation(row),
            None => Err(QueryError::Unknown(id)),
        }
    }

    /// What provenance is restored from: the tokens that were issued and aren't over at `at`, in order, and the ends of
    /// those that ended before their time.
    ///
    /// # Errors
    /// When the database fails.
    pub fn provenance(&self, at: Timestamp) -> Result<Vec<Recorded>, QueryError> {
        let sql = "SELECT issued, reason FROM tokens WHERE expires_at > ?1 ORDER BY seq";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query([at.to_string()])?;
        let (mut recorded, mut dead) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let (issued, reason): (String, Option<String>) = (row.get(0)?, row.get(1)?);
            let TokenIssued { token: digest, issued, .. } = serde_json::from_str(&issued)?;
            recorded.push(Recorded::Issued { digest, issued });
            if let Some(reason) = reason {
                dead.push(Recorded::Dead { digest, death: serde_json::from_value(reason.into())? });
            }
        }
        recorded.append(&mut dead);
        Ok(recorded)
    }

    /// How a token was issued to a workload, by its digest; none if it wasn't.
    ///
    /// # Errors
    /// When the database fails.
    pub fn token(&self, token: &Digest, workload: &str) -> Result<Option<TokenIssued>, QueryError> {
        let issued: Option<String> = self
            .db
            .prepare_cached("SELECT issued FROM tokens WHERE issue = ?1")?
            .query_row([format!("{token}/{workload}")], |row| row.get(0))
            .optional()?;
        Ok(issued.as_deref().map(serde_json::from_str).transpose()?)
    }

    /// The generation of the last snapshot that was loaded; 0 if none was.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn last_generation(&self) -> Result<u64, QueryError> {
        let last = "SELECT json_extract(body, '$.generation') FROM events WHERE kind = 'snapshot.loaded' \
                    ORDER BY seq DESC LIMIT 1";
        let generation: Option<i64> = self.db.query_row(last, [], |row| row.get(0)).optional()?;
        Ok(generation.unwrap_or(0).unsigned_abs())
    }

    /// The sessions that haven't ended, and their operations that haven't. Asked at the start of a daemon, these are what
    /// the one before couldn't end, because it was killed.
    ///
    /// # Errors
    /// When the database can't be read, or an id in it is none.
    pub fn unfinished(&self) -> Result<Unfinished, QueryError> {
        fn ids<T: DeserializeOwned>(db: &Connection, sql: &str) -> Result<Vec<T>, QueryError> {
            let mut statement = db.prepare(sql)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.map(|id| Ok(serde_json::from_value(id?.into())?)).collect()
        }
        let sessions = "SELECT session FROM sessions WHERE closed_at IS NULL ORDER BY seq";
        let operations = "SELECT operation FROM operations WHERE finished_at IS NULL AND session IN \
                          (SELECT session FROM sessions WHERE closed_at IS NULL) ORDER BY seq";
        Ok(Unfinished { sessions: ids(&self.db, sessions)?, operations: ids(&self.db, operations)? })
    }

    pub(super) fn whole_id(
        &self,
        table: &str,
        column: &str,
        prefix: &'static str,
        id: &str,
    ) -> Result<String, QueryError> {
        let id = id.to_ascii_lowercase();
        let rest = id.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
        if !rest.is_some_and(|rest| rest.len() <= 26 && rest.bytes().all(|c| c.is_ascii_alphanumeric())) {
            return Err(QueryError::Malformed { text: id, prefix });
        }
        // Ids are lower-case letters and digits, so `~` sorts behind each of them.
        let sql = format!("SELECT {column} FROM {table} WHERE {column} >= ?1 AND {column} < ?1 || '~' LIMIT 2");
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut found = statement.query_map([&id], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        match (found.pop(), found.pop()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(QueryError::Ambiguous(id)),
            (None, _) => Err(QueryError::Unknown(id)),
        }
    }
}
