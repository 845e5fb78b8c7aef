//! Finding operations: a full-text index of what was asked and why it was decided so, and of the values that can be
//! filtered by. Both are made from the events alone, so `verify` makes them again and compares. Payloads are sealed and
//! never in here.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::event::What;
use super::query::{ANSWER_BYTES, Operation, QueryError, Reader, of_operations, operation};
use super::verify::Fault;

/// The row of `search` of each operation that a condition behind this selects.
macro_rules! fill {
    () => {
        "INSERT INTO search (rowid, text, tags)
         SELECT o.seq,
             concat_ws(' ', o.summary, s.host, o.code, o.principal,
                 (SELECT group_concat(value, ' ') FROM json_each(o.basis, '$.reasons')),
                 (SELECT group_concat(value, ' ') FROM json_each(o.basis, '$.policies'))),
             concat_ws(' ', 'w' || hex(o.workload), 't' || hex(o.target), 'v' || hex(o.verdict), 'a' || hex(o.action),
                 'a' || hex(substr(o.action, 1, instr(o.action, ':') - 1)), 'p' || hex(o.principal),
                 'p' || hex(substr(o.principal, instr(o.principal, '/') + 1)), 'i' || hex(o.initiator))
         FROM operations o LEFT JOIN sessions s ON s.session = o.session"
    };
}
/// What a migration fills it with.
#[cfg(test)]
pub(super) const FILL: &str = fill!();

/// What schema 4 adds. `search` has a row for each operation, under its `seq`: the words, and the tags to filter by, each
/// a letter and the value in hex, so that it is one word whatever the value. Tags instead of an index for each column,
/// because these can be intersected. `minutes` tells between which operations a time lies, also if the clock was set back.
pub(super) const SCHEMA: &str = concat!(
    "
ALTER TABLE sessions ADD COLUMN operations INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN denied INTEGER NOT NULL DEFAULT 0;
CREATE TABLE session_principals (
    session TEXT NOT NULL, principal TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (session, principal)
) STRICT, WITHOUT ROWID;
CREATE TABLE minutes (minute TEXT PRIMARY KEY, seq INTEGER NOT NULL, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX operations_by_seq ON operations (seq);
CREATE VIRTUAL TABLE search USING fts5 (text, tags, content = '', columnsize = 0, tokenize = 'unicode61');
UPDATE sessions SET
    operations = (SELECT count(*) FROM operations o WHERE o.session = sessions.session AND o.seq > sessions.seq),
    denied = (SELECT count(*) FROM operations o WHERE o.session = sessions.session AND o.seq > sessions.seq
              AND o.verdict = 'deny');
INSERT INTO session_principals
    SELECT session, principal, min(seq) FROM operations WHERE session IS NOT NULL AND principal IS NOT NULL
    GROUP BY session, principal;
INSERT INTO minutes SELECT substr(decided_at, 1, 16), min(seq), max(seq) FROM operations GROUP BY 1;
",
    fill!(),
    " ORDER BY o.seq;"
);

/// The most bytes of a text to look for. The index takes memory for each part of a word, and for all that a `*` stands for.
const TEXT: usize = 1 << 10;
/// The most words of it.
const WORDS: usize = 16;
/// The most parts of all its words: `/v1.0/users` has three.
const PARTS: usize = 64;
/// The most words with a `*`.
const OPEN: usize = 2;
/// The fewest letters and digits before a `*`.
const BEFORE: usize = 2;

/// How many operations are looked at for what begins a session, in one answer: half a second's work.
const LOOKED_AT: usize = 100_000;

/// Which operations are looked for: those for which all that is given holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Words that all occur in what was asked, the host, the reasons, policies, code or principal. A word with marks in
    /// it (`/v1.0/users`) is found in this order; `*` at its end stands for any end.
    pub text: Option<String>,
    /// The workload's name.
    pub workload: Option<String>,
    /// `<tenant>/<object>`, or the part behind the slash.
    pub principal: Option<String>,
    /// The target's name.
    pub target: Option<String>,
    /// `allow`, `deny` or `hold`.
    pub verdict: Option<String>,
    /// The action (`http:GET`), or all of one protocol (`http`).
    pub action: Option<String>,
    /// The uid of who launched the workload.
    #[serde(default)]
    pub initiator: Option<u32>,
    /// Decided then or later.
    pub since: Option<Timestamp>,
    /// Decided before.
    pub until: Option<Timestamp>,
    /// Decided before the operation of this event: for the next piece of an answer.
    pub before: Option<u64>,
    /// Only what begins a session or belongs to none, oldest first, behind this event: with 0, the way through all that is
    /// recorded. `initiator` stands for the launches of the workloads then, as it does in lists of sessions.
    #[serde(default)]
    pub begins: Option<u64>,
    /// How many at most.
    pub limit: u32,
}

/// Operations that were found, newest first, or oldest first where [`Search::begins`] was given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hits {
    /// As many as fit into one answer.
    pub hits: Vec<Hit>,
    /// [`Search::before`] for the next ones, or [`Search::begins`] where that was given; none if these are all.
    pub next: Option<u64>,
    /// Where [`Search::begins`] was given: [`Search::before`] that leaves out what comes from now on.
    #[serde(default)]
    pub end: Option<u64>,
}

/// An operation that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The name or address that its session went to.
    pub host: Option<String>,
    /// The operation.
    #[serde(flatten)]
    pub operation: Operation,
}

/// Enters operations that were just put into `operations`: under which number, what was decided, and the host that its
/// session went to.
pub(super) fn enter<'a>(
    db: &Connection,
    decided: impl Iterator<Item = (i64, &'a What, Option<&'a str>)>,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached("INSERT INTO search (rowid, text, tags) VALUES (?1, ?2, ?3)")?;
    let (mut text, mut tags) = (String::new(), String::new());
    for (seq, what, host) in decided {
        text.clear();
        tags.clear();
        describe(what, host, &mut text, &mut tags);
        statement.execute(params![seq, text, tags])?;
    }
    Ok(())
}

/// The words and the tags of an operation.
// INVARIANT: to the index they are the same as those of `fill`, which it was filled with once.
fn describe(what: &What, host: Option<&str>, text: &mut String, tags: &mut String) {
    let What::OperationDecided { workload, target, action, summary, verdict, code, basis, initiator, identity, .. } =
        what
    else {
        return;
    };
    let principal = identity.as_ref().map(|identity| identity.principal.as_str());
    let words = [Some(summary.as_str()), host, code.as_deref(), principal].into_iter().flatten();
    for word in words.chain(basis.reasons.iter().chain(&basis.policies).map(String::as_str)) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    let object = principal.map(|principal| principal.split_once('/').map_or(principal, |(_, object)| object));
    let initiator = initiator.map(|uid| uid.to_string());
    for (letter, value) in [
        ('w', Some(workload.as_str())),
        ('t', target.as_ref().map(|target| target.as_str())),
        ('v', Some(verdict.as_str())),
        ('a', Some(action.as_str())),
        ('a', Some(action.split_once(':').map_or("", |(protocol, _)| protocol))),
        ('p', principal),
        ('p', object),
        ('i', initiator.as_deref()),
    ] {
        // What isn't there leaves its letter.
        tags.push(letter);
        hex(value.unwrap_or_default(), tags);
        tags.push(' ');
    }
}

/// As `hex()` in SQL does it, up to the case, which the index doesn't tell apart.
fn hex(value: &str, into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in value.bytes() {
        into.push(char::from(DIGITS[usize::from(byte >> 4)]));
        into.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Compares the full-text index with the one that was made again: each word, and where it stands.
pub(super) fn check(db: &Connection, again: &Connection) -> rusqlite::Result<Option<Fault>> {
    for side in [db, again] {
        side.execute_batch("CREATE VIRTUAL TABLE IF NOT EXISTS temp.words USING fts5vocab(main, search, instance)")?;
    }
    let sql = "SELECT term, doc, col, offset FROM temp.words";
    let (mut there, mut made) = (db.prepare(sql)?, again.prepare(sql)?);
    let (mut there, mut made) = (there.query([])?, made.query([])?);
    loop {
        let (one, other) = (there.next()?, made.next()?);
        let same = match (one, other) {
            (None, None) => return Ok(None),
            (Some(one), Some(other)) => {
                let mut columns = 0..4;
                columns.try_fold(true, |same, column| {
                    Ok::<_, rusqlite::Error>(same && one.get_ref(column)? == other.get_ref(column)?)
                })?
            }
            _ => false,
        };
        if !same {
            let seq = one.or(other).and_then(|row| row.get::<_, i64>(1).ok()).map(i64::cast_unsigned);
            return Ok(Some(Fault { seq, what: "the events say something else than the full-text index".into() }));
        }
    }
}

impl Reader {
    /// The operations that fit, newest first.
    ///
    /// # Errors
    /// [`QueryError::Nothing`] when neither a word nor a filter is given, [`QueryError::TooBroad`] when the text is more than
    /// the index is asked at once, and when the database fails.
    pub fn search(&self, search: &Search) -> Result<Hits, QueryError> {
        let asked = search.since.is_some() || search.until.is_some() || search.begins.is_some();
        let words = search.words()?;
        if words.is_none() && !asked {
            return Err(QueryError::Nothing);
        }
        let Some((first, last)) = self.between(search)? else { return Ok(Hits::default()) };
        if search.begins.is_some() {
            return self.beginnings(search, (first, last), words.as_deref());
        }
        let sql = match words {
            Some(_) => "SELECT rowid FROM search WHERE search MATCH ?3 AND rowid BETWEEN ?1 AND ?2 ORDER BY rowid DESC",
            None => "SELECT seq FROM operations WHERE seq BETWEEN ?1 AND ?2 AND ?3 IS NULL ORDER BY seq DESC",
        };
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![first, last, words])?;
        let (mut hits, mut bytes) = (Hits::default(), 0);
        while let Some(row) = rows.next()? {
            if hits.hits.len() >= search.limit.min(10_000) as usize {
                break;
            }
            let seq: i64 = row.get(0)?;
            let Some(hit) = self.hit(seq)? else { continue };
            if !search.has_time(&hit.operation.decided_at) {
                continue;
            }
            bytes += serde_json::to_vec(&hit)?.len();
            if bytes > ANSWER_BYTES && !hits.hits.is_empty() {
                hits.next = Some(seq.cast_unsigned() + 1);
                break;
            }
            hits.hits.push(hit);
        }
        Ok(hits)
    }

    /// What of the operations between two events begins a session or belongs to none, oldest first.
    fn beginnings(&self, search: &Search, (first, last): (i64, i64), words: Option<&str>) -> Result<Hits, QueryError> {
        let sql = match words {
            Some(_) => "SELECT rowid FROM search WHERE search MATCH ?3 AND rowid BETWEEN ?1 AND ?2 ORDER BY rowid",
            None => "SELECT seq FROM operations WHERE seq BETWEEN ?1 AND ?2 AND ?3 IS NULL ORDER BY seq",
        };
        let begins = "SELECT (session IS NULL OR NOT EXISTS
                (SELECT 1 FROM operations p WHERE p.session = o.session AND p.seq < o.seq))
            AND (?2 IS NULL OR EXISTS (SELECT 1 FROM workloads w WHERE w.launch = o.launch AND w.initiator = ?2))
            FROM operations o WHERE seq = ?1";
        let newest: Option<i64> = self.db.query_row("SELECT max(seq) FROM operations", [], |row| row.get(0))?;
        let end = Some(newest.unwrap_or(0).cast_unsigned() + 1);
        let (mut hits, mut bytes) = (Hits { end, ..Hits::default() }, 0);
        let mut begins = self.db.prepare_cached(begins)?;
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![first, last, words])?;
        let mut looked_at = 0;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            // The next piece begins with this one.
            let next = Some((seq - 1).cast_unsigned());
            if hits.hits.len() >= search.limit.min(10_000) as usize || looked_at == LOOKED_AT {
                return Ok(Hits { next, ..hits });
            }
            looked_at += 1;
            let fits: Option<bool> = begins.query_row(params![seq, search.initiator], |row| row.get(0)).optional()?;
            if fits != Some(true) {
                continue;
            }
            let Some(hit) = self.hit(seq)? else { continue };
            if !search.has_time(&hit.operation.decided_at) {
                continue;
            }
            bytes += serde_json::to_vec(&hit)?.len();
            if bytes > ANSWER_BYTES && !hits.hits.is_empty() {
                return Ok(Hits { next, ..hits });
            }
            hits.hits.push(hit);
        }
        Ok(hits)
    }

    fn hit(&self, seq: i64) -> Result<Option<Hit>, QueryError> {
        let mut statement = self.db.prepare_cached(&format!("{} WHERE seq = ?1", of_operations(self.schema)))?;
        let mut rows = statement.query([seq])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let operation = operation(row)?;
        let host = self
            .db
            .prepare_cached("SELECT host FROM sessions WHERE session = ?1")?
            .query_row([&operation.session], |row| row.get(0))
            .optional()?;
        Ok(Some(Hit { host: host.flatten(), operation }))
    }

    /// Between which events the operations of the time in question are; none if there are none.
    fn between(&self, search: &Search) -> Result<Option<(i64, i64)>, QueryError> {
        let before = search.before.map_or(i64::MAX, |seq| super::projection::integer(seq) - 1);
        let after = search.begins.map_or(0, |seq| super::projection::integer(seq).saturating_add(1));
        if search.since.is_none() && search.until.is_none() {
            return Ok(Some((after, before)));
        }
        let minute =
            |at: Option<Timestamp>, open: &str| at.map_or(open.to_owned(), |at| at.to_string()[..16].to_owned());
        let sql = "SELECT min(seq), max(last) FROM minutes WHERE minute BETWEEN ?1 AND ?2";
        let (first, last): (Option<i64>, Option<i64>) = self
            .db
            .prepare_cached(sql)?
            .query_row([minute(search.since, ""), minute(search.until, "~")], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(first.zip(last).map(|(first, last)| (first.max(after), last.min(before))))
    }
}

impl Search {
    /// The question to the full-text index: none where no word and no filter but time is given. Whatever the text is,
    /// only quoted words of it get there.
    fn words(&self) -> Result<Option<String>, QueryError> {
        let mut parts = Vec::new();
        let initiator = self.initiator.filter(|_| self.begins.is_none()).map(|uid| uid.to_string());
        let filters = [
            ('i', &initiator),
            ('w', &self.workload),
            ('t', &self.target),
            ('v', &self.verdict),
            ('a', &self.action),
            ('p', &self.principal),
        ];
        for (letter, value) in filters {
            let Some(value) = value else { continue };
            let mut tag = format!("tags : \"{letter}");
            hex(value, &mut tag);
            parts.push(tag + "\"");
        }
        if let Some(text) = &self.text {
            parts.extend(words(text)?.iter().map(Word::quoted));
        }
        Ok((!parts.is_empty()).then(|| parts.join(" AND ")))
    }

    fn has_time(&self, decided_at: &str) -> bool {
        let Ok(at) = decided_at.parse::<Timestamp>() else { return true };
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// The words of a text. None of it may be so much, or so little before a `*`, that the index fills the memory with it.
fn words(text: &str) -> Result<Vec<Word<'_>>, QueryError> {
    if text.len() > TEXT {
        return Err(QueryError::TooBroad);
    }
    let words: Vec<Word<'_>> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter_map(Word::of).collect();
    if words.is_empty() {
        return Err(QueryError::Nothing);
    }
    let open = || words.iter().filter(|word| word.is_open);
    let parts: usize = words.iter().map(|word| word.parts().count()).sum();
    let says_little = |word: &Word<'_>| word.parts().next_back().is_none_or(|last| last.chars().count() < BEFORE);
    if words.len() > WORDS || parts > PARTS || open().count() > OPEN || open().any(says_little) {
        return Err(QueryError::TooBroad);
    }
    Ok(words)
}

/// A word that is looked for.
struct Word<'a> {
    bare: &'a str,
    /// Whether anything may follow.
    is_open: bool,
}

impl<'a> Word<'a> {
    /// None if it has no letter or digit.
    fn of(text: &'a str) -> Option<Self> {
        let bare = text.trim_end_matches('*');
        bare.chars().any(char::is_alphanumeric).then_some(Self { bare, is_open: bare.len() < text.len() })
    }

    /// What the index has of it: runs of letters and digits.
    fn parts(&self) -> impl DoubleEndedIterator<Item = &'a str> {
        self.bare.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty())
    }

    /// As the index takes it: quoted, so that nothing in it is an operator.
    fn quoted(&self) -> String {
        let star = if self.is_open { "*" } else { "" };
        format!("text : \"{}\"{star}", self.bare.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests;
