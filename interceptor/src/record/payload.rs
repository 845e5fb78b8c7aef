//! Payloads: what an operation sent and got, compressed and sealed under its session's key. The chain knows only the
//! digest of the sealed bytes, so they can be pruned, or their key erased, without breaking it. What must never be
//! recorded is taken out before this (`detect::secrets`).

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};
use std::io;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::aead::{AES_256_GCM, NONCE_LEN, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::CParameter;

use super::RecordError;
use super::event::Kept;
use super::keys::{self, Keys};
use super::query::QueryError;
use super::verify::Fault;
use crate::ids::{OperationId, SessionId};
use crate::mask::Places;

/// The tables. A key is erased by setting it to NULL: its row stays, so that it never comes back from a journal.
pub(super) const SCHEMA: &str = "
CREATE TABLE session_keys (session TEXT PRIMARY KEY, wrapped BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE payloads (operation TEXT PRIMARY KEY, session TEXT NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE INDEX payloads_by_session ON payloads (session);
";

/// What schema 7 leaves out: nothing asks for the payloads of a session.
pub(super) const LEAN: &str = "DROP INDEX payloads_by_session;";

/// How long what small requests and their answers come to is, at most.
const SMALL: usize = 4 << 10;
/// Without tables of how often each byte occurs: for that little, making them takes longer than all the rest.
const FASTEST: i32 = -1;

/// What of a label is behind the operation's id.
const LABEL_END: &[u8] = b"\"}";

/// The most that a payload may be unpacked to: two bodies of the largest size, with their heads.
const LARGEST: usize = 8 << 20;

/// What an operation sent and got, as far as it was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What was sent upstream.
    pub request: Message,
    /// What the process got; none where there was no answer.
    pub response: Option<Message>,
}

/// One direction of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The first line, as in `GET /v1.0/users HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub start: String,
    /// The header fields, in order.
    pub headers: Vec<(String, String)>,
    /// The trailer fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
    /// The body, decoded from its codings.
    #[serde(skip)]
    pub body: Vec<u8>,
    /// How many bytes of the body were kept; filled in when it is sealed.
    #[serde(default)]
    pub kept: usize,
    /// Bytes of the whole body, as it passed.
    pub bytes: u64,
    /// Why the body isn't here, or not whole: `cut`, `headers-only`, `encoded`, `memory`, `opaque`; none if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// Of a request, whether it came in TLS; none where earlier versions recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Where in the body, as it is here, something was masked; none where no mask was at work, nothing of it was kept, or
    /// earlier versions recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<Places>,
}

/// A sealed payload.
#[derive(Debug)]
pub struct SealedPayload {
    operation: String,
    bytes: Vec<u8>,
    digest: blake3::Hash,
}

impl SealedPayload {
    /// What the chain is to say of it.
    pub fn kept(&self) -> Kept {
        Kept { digest: self.digest.to_hex().to_string(), bytes: self.bytes.len() as u64 }
    }
}

/// The key of one session.
pub struct SessionKey {
    session: SessionId,
    key: RandomizedNonceKey,
    /// The label of its payloads, as far as the operation's id.
    label: String,
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey of {}", self.session)
    }
}

impl SessionKey {
    pub(super) fn new(session: SessionId, key: &[u8], wrapped: &[u8]) -> Result<Self, RecordError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_unspecified| RecordError::Unsealed)?;
        let label = format!(r#"{{"session":"{session}","key":"{}","operation":""#, hex(wrapped));
        Ok(Self { session, key, label })
    }

    /// Compresses and seals a content. It can't be taken for another operation's.
    ///
    /// # Errors
    /// When it can't be compressed or sealed.
    pub fn seal(&self, operation: OperationId, content: &Content) -> Result<SealedPayload, RecordError> {
        let mut bytes = compress(&content.pack()?).map_err(RecordError::Failed)?;
        let operation = operation.to_string();
        keys::seal_in_place(&self.key, operation.as_bytes(), &mut bytes)?;
        let digest = blake3::hash(&bytes);
        Ok(SealedPayload { operation, bytes, digest })
    }

    fn open(&self, operation: OperationId, sealed: &[u8]) -> Option<Content> {
        let packed = keys::open(&self.key, operation.to_string().as_bytes(), sealed)?;
        Content::unpack(&zstd::bulk::decompress(&packed, LARGEST).ok()?)
    }

    /// Puts a frame's body together: the length of the label (u32, little endian), the label (JSON), the sealed bytes.
    pub(super) fn pack(&self, sealed: &SealedPayload, frame: &mut Vec<u8>) {
        let operation = &sealed.operation;
        let length = self.label.len() + operation.len() + LABEL_END.len();
        frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        for part in [self.label.as_bytes(), operation.as_bytes(), LABEL_END, &sealed.bytes] {
            frame.extend_from_slice(part);
        }
    }
}

impl Content {
    /// As JSON for the control socket: `{"request": MESSAGE, "response": MESSAGE or null}`, bodies in base64 as `body`.
    ///
    /// # Errors
    /// serde's, which doesn't happen.
    pub fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        let mut value = serde_json::to_value(self)?;
        value["request"]["body"] = STANDARD.encode(&self.request.body).into();
        if let Some(response) = &self.response {
            value["response"]["body"] = STANDARD.encode(&response.body).into();
        }
        Ok(value)
    }

    /// What [`Content::to_json`] made; none if it is something else.
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        let mut content: Self = serde_json::from_value(value.clone()).ok()?;
        let body = |message: &serde_json::Value| STANDARD.decode(message["body"].as_str()?).ok();
        content.request.body = body(&value["request"])?;
        if let Some(response) = &mut content.response {
            response.body = body(&value["response"])?;
        }
        Some(content)
    }

    /// The length of the heads (u32), the heads as JSON, both bodies.
    fn pack(&self) -> Result<Vec<u8>, RecordError> {
        let response = self.response.as_ref();
        let bodies = [&self.request.body[..], response.map_or(&[], |message| &message.body)];
        let mut packed = Vec::with_capacity(1024 + bodies[0].len() + bodies[1].len());
        packed.extend_from_slice(&[0; 4]);
        let heads = Heads { request: Head::of(&self.request), response: response.map(Head::of) };
        serde_json::to_writer(&mut packed, &heads).map_err(|error| RecordError::Failed(error.into()))?;
        let length = u32::try_from(packed.len() - 4).unwrap_or(u32::MAX);
        packed[..4].copy_from_slice(&length.to_le_bytes());
        bodies.iter().for_each(|body| packed.extend_from_slice(body));
        Ok(packed)
    }

    fn unpack(packed: &[u8]) -> Option<Self> {
        let (heads, bodies) = split(packed)?;
        let mut content: Self = serde_json::from_slice(heads).ok()?;
        let (request, response) = bodies.split_at_checked(content.request.kept)?;
        content.request.body = request.to_vec();
        if let Some(message) = &mut content.response {
            message.body = response.to_vec();
        }
        Some(content)
    }
}

/// A [`Content`] without its bodies, borrowed: what is kept isn't copied before it is compressed.
#[derive(Serialize)]
struct Heads<'a> {
    request: Head<'a>,
    response: Option<Head<'a>>,
}

/// A [`Message`] without its body.
#[derive(Serialize)]
struct Head<'a> {
    start: &'a str,
    headers: &'a [(String, String)],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    trailers: &'a [(String, String)],
    kept: usize,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    masked: Option<&'a Places>,
}

impl<'a> Head<'a> {
    fn of(message: &'a Message) -> Self {
        Self {
            start: &message.start,
            headers: &message.headers,
            trailers: &message.trailers,
            kept: message.body.len(),
            bytes: message.bytes,
            partial: message.partial.as_deref(),
            tls: message.tls,
            masked: message.masked.as_ref(),
        }
    }
}

/// Compresses, behind room for the nonce, with a context that each thread keeps: making one costs more than most payloads.
fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    thread_local! {
        static CONTEXT: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd::bulk::Compressor::new(1)?),
        };
        let level = if bytes.len() <= SMALL { FASTEST } else { 1 };
        context.set_parameter(CParameter::CompressionLevel(level))?;
        let mut packed = vec![0; NONCE_LEN + zstd::zstd_safe::compress_bound(bytes.len())];
        let length = context.compress_to_buffer(bytes, &mut packed[NONCE_LEN..])?;
        packed.truncate(NONCE_LEN + length);
        Ok(packed)
    })
}

/// What a frame of the journal brings: a sealed payload, and its session's wrapped key.
#[derive(Debug)]
pub(super) struct Parcel {
    label: Label,
    /// The frame's body, and where in it the sealed bytes begin.
    body: Vec<u8>,
    sealed: usize,
}

#[derive(Debug, Deserialize)]
struct Label {
    session: SessionId,
    operation: OperationId,
    key: String,
}

impl Parcel {
    /// Reads a frame's body; none if it isn't one.
    pub(super) fn open(body: Vec<u8>) -> Option<Self> {
        let (label, sealed) = split(&body)?;
        let (label, sealed) = (serde_json::from_slice(label).ok()?, body.len() - sealed.len());
        Some(Self { label, body, sealed })
    }

    fn sealed(&self) -> &[u8] {
        &self.body[self.sealed..]
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// Puts payloads into their table. What comes twice counts once; a key that was erased stays so. Gives whether one of those
/// came again: its session lives on, and the journal has it.
pub(super) fn keep(db: &Connection, parcels: &[Parcel]) -> rusqlite::Result<bool> {
    if parcels.is_empty() {
        return Ok(false);
    }
    let mut erased =
        db.prepare_cached("SELECT EXISTS (SELECT 1 FROM session_keys WHERE session = ?1 AND wrapped IS NULL)")?;
    let mut again = false;
    let mut key =
        db.prepare_cached("INSERT INTO session_keys (session, wrapped) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    let mut payload = db.prepare_cached(
        "INSERT INTO payloads (operation, session, sealed) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    let mut seen = HashSet::new();
    for parcel in parcels {
        let label = &parcel.label;
        let session = label.session.to_string();
        if seen.insert(label.session) {
            key.execute(params![session, unhex(&label.key)])?;
            again |= erased.query_row([&session], |row| row.get::<_, bool>(0))?;
        }
        payload.execute(params![label.operation.to_string(), session, parcel.sealed()])?;
    }
    Ok(again)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    digits.collect()
}

/// What an operation sent and got; none where nothing was kept, or it was pruned.
pub(super) fn read(db: &Connection, operation: OperationId, keys: &Keys) -> Result<Option<Content>, QueryError> {
    let sql = "SELECT p.session, p.sealed, k.wrapped FROM payloads p LEFT JOIN session_keys k ON k.session = p.session
               WHERE p.operation = ?1";
    let found: Option<(String, Vec<u8>, Option<Vec<u8>>)> = db
        .prepare_cached(sql)?
        .query_row([operation.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((session, sealed, wrapped)) = found else { return Ok(None) };
    let Some(wrapped) = wrapped else { return Err(QueryError::Erased(session)) };
    let forged = || QueryError::Forged(operation.to_string());
    let id = SessionId::from_str(&session).map_err(|_malformed| forged())?;
    let key = keys.unwrap(id, &wrapped).ok_or_else(forged)?;
    key.open(operation, &sealed).map(Some).ok_or_else(forged)
}

/// Compares every payload that is there with the digest in the chain, and notes what isn't there any more. `path` is the
/// database: where `payload.key` is beside it, it is looked whether the sessions' keys are those that it wrapped.
pub(super) fn check(db: &Connection, path: &Path, notes: &mut Vec<String>) -> Result<Option<Fault>, RecordError> {
    let mut known: HashMap<String, (i64, String)> = HashMap::new();
    let mut statement =
        db.prepare("SELECT operation, seq, kept_digest FROM operations WHERE kept_digest IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        known.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
    }
    let mut statement = db.prepare("SELECT operation, sealed FROM payloads")?;
    let mut rows = statement.query([])?;
    let mut unnamed = 0;
    while let Some(row) = rows.next()? {
        let operation: String = row.get(0)?;
        let Some((seq, digest)) = known.remove(&operation) else {
            unnamed += 1;
            continue;
        };
        let sealed = row.get_ref(1)?;
        if blake3::hash(sealed.as_blob().unwrap_or_default()).to_hex().as_str() != digest {
            let what = format!("the payload of `{operation}` isn't the one that was recorded");
            return Ok(Some(Fault { seq: Some(seq.cast_unsigned()), what }));
        }
    }
    if let Some(fault) = keys_of(db, &path.with_file_name("payload.key"), notes)? {
        return Ok(Some(fault));
    }
    if !known.is_empty() {
        notes.push(format!("{} payloads aren't there any more; the chain knows their digests", known.len()));
    }
    if unnamed > 0 {
        notes.push(format!("{unnamed} payloads have no event: the daemon was killed while it recorded them"));
    }
    Ok(None)
}

/// Looks whether every payload has its session's key, and that is one that the key in this file wrapped.
fn keys_of(db: &Connection, file: &Path, notes: &mut Vec<String>) -> Result<Option<Fault>, RecordError> {
    let fault = |what: String| Ok(Some(Fault { seq: None, what }));
    let sql = "SELECT operation FROM payloads p WHERE NOT EXISTS
               (SELECT 1 FROM session_keys k WHERE k.session = p.session) LIMIT 1";
    if let Some(operation) = db.query_row(sql, [], |row| row.get::<_, String>(0)).optional()? {
        return fault(format!("the key that the payload of `{operation}` is sealed under is missing"));
    }
    let there: i64 = db.query_row("SELECT count(*) FROM session_keys", [], |row| row.get(0))?;
    if there == 0 {
        return Ok(None);
    }
    // Opening would make it.
    let keys = if file.exists() { Keys::open(file).ok() } else { None };
    let Some(keys) = keys else {
        notes.push("`payload.key` isn't beside the database: the keys of sessions were not checked".into());
        return Ok(None);
    };
    let mut statement = db.prepare("SELECT session, wrapped FROM session_keys WHERE wrapped IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (session, wrapped): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        if SessionId::from_str(&session).ok().and_then(|id| keys.unwrap(id, &wrapped)).is_none() {
            return fault(format!("the key of `{session}` isn't one that `payload.key` wrapped"));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
