//! The one writer: moves journal entries into the database, in batches, and deletes the segments that are in it. Blocks
//! while there is nothing to do. When the database fails, the journals keep what waits and the writer tries again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::RecordError;
use super::backlog::{Backlog, Segment};
use super::chain::Head;
use super::checkpoint::{self, Signer};
use super::event::{Event, What};
use super::payload::Parcel;
use super::retention::Keep;
use super::rotate::{self, Hasher, Hashing};
use super::segment::{self, HEADER};
use super::source::{Piece, Source};
use super::store::{Entry, Store};
use super::{reserve, retention};
use crate::clock::Clock;
use crate::config::{Durability, RecordSettings};
use pace::Pace;
use reopen::Left;
use rest::Rest;

mod disk;
mod hash_before;
mod pace;
mod reopen;
mod rest;
mod rotate_now;
mod sign;

/// How long the writer waits before it tries a failing database again.
const RETRY: Duration = Duration::from_millis(100);

/// How long it waits before it tries again to remove the traces of what was destroyed.
const SCRUB_AGAIN: Duration = Duration::from_secs(1);

/// How often it is looked for payloads that are too old.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The writer's side of the record.
pub(super) struct Writer {
    database: PathBuf,
    head_file: PathBuf,
    durability: Durability,
    backlog: Arc<Backlog>,
    clock: Arc<dyn Clock>,
    store: Option<Store>,
    signer: Signer,
    /// How long at most an event waits for its checkpoint.
    patience: Duration,
    /// When signing failed last, and is to be tried again.
    sign_at: Option<Instant>,
    /// Whether that was because the disk lost what it took.
    lost: bool,
    /// How long payloads are kept, and when it is looked for older ones.
    keep: Vec<Keep>,
    keep_at: Instant,
    /// When to remove the traces of what was destroyed from the write-ahead log and the journals; none if there are none.
    scrub: Option<Instant>,
    /// When to look whether the disk has room again; none while it isn't full.
    room_at: Option<Instant>,
    saved: Option<Head>,
    /// The database that was open, while it isn't any more.
    left: Option<Left>,
    positions: HashMap<String, u64>,
    sources: Vec<Source>,
    /// Of the thread that it runs on, once it does.
    pace: Option<Pace>,
    rest: Rest,
    /// What hashes the file of a database that was moved aside, and the thread that does.
    pub(super) hasher: Hasher,
    hashing: Option<Hashing>,
    /// Whether another database was begun, and its predecessor isn't hashed for it yet.
    hash_due: bool,
}

/// A closed segment is done when all of it, up to `end`, is in the database.
#[derive(Clone, Copy)]
struct Extent {
    closed: bool,
    end: u64,
}

#[derive(Default)]
struct Batch {
    entries: Vec<(Timestamp, Entry)>,
    payloads: Vec<Parcel>,
    /// Indices into the sources, with the new offset and whether damage was met.
    moved: Vec<(usize, u64, bool)>,
    damaged: u64,
}

impl Writer {
    /// Opens the database and moves what is left in `folder` into it.
    pub(super) fn recover(
        dir: &Path,
        folder: &Path,
        settings: &RecordSettings,
        backlog: Arc<Backlog>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RecordError> {
        let database = backlog.database().to_owned();
        let head_file = dir.join("record.head");
        let (durability, keep) = (settings.durability, Keep::of(settings));
        let store = Store::open(&database, durability)?;
        let positions = store.positions()?;
        let patience = settings.checkpoint_age;
        let (signer, signed) = Signer::open(&database, patience)?;
        backlog.moved(0, store.head().seq, 0);
        let mut writer = Self {
            database,
            head_file,
            durability,
            backlog,
            clock,
            store: Some(store),
            signer,
            patience,
            sign_at: None,
            lost: false,
            keep,
            keep_at: Instant::now(),
            // A daemon that was killed may not have come to it.
            scrub: Some(Instant::now()),
            room_at: None,
            saved: None,
            left: None,
            positions,
            sources: Vec::new(),
            pace: None,
            rest: Rest::default(),
            hasher: Arc::new(rotate::digest),
            hashing: None,
            hash_due: false,
        };
        writer.compare_head()?;
        writer.compare_checkpoint(signed)?;
        writer.find(folder)?;
        let work = writer.backlog.begin();
        writer.pass()?;
        // Where operations may wait for it, what a killed daemon didn't come to sign is signed at once.
        writer.checkpoint(writer.backlog.is_anchor_required())?;
        writer.backlog.passed(&work);
        Ok(writer)
    }

    /// Moves entries until the record is closed.
    pub(super) fn run(&mut self) {
        self.pace = Some(Pace::new());
        loop {
            let work = self.backlog.wait();
            if let Some(by) = self.backlog.asked_to_rotate() {
                let rotated = self.rotate(by);
                if rotated.is_ok() {
                    self.hash_before();
                }
                self.backlog.rotated(rotated);
            }
            match self.pass().and_then(|()| self.checkpoint(work.last)) {
                Ok(()) => self.backlog.passed(&work),
                Err(error) => {
                    tracing::error!(%error, "the record's writer failed; the journals keep what waits");
                    if reserve::is_no_room(&error) {
                        self.backlog.release();
                    }
                    // Whether the last commit took place may be unclear: everything is read anew from the file.
                    self.leave();
                    self.backlog.failed(error.to_string(), RETRY);
                }
            }
            if work.last {
                return;
            }
        }
    }

    /// Moves everything that was appended before it began.
    fn pass(&mut self) -> Result<(), RecordError> {
        self.reopen()?;
        if self.lost {
            // Before anything else: a disk that loses what it takes gets no more of it.
            self.checkpoint(false)?;
        }
        self.adopt()?;
        let extents: Vec<Extent> = self
            .sources
            .iter()
            .map(|source| {
                // In this order: once it is closed, no more is committed.
                let closed = source.segment.closed.load(Ordering::Acquire);
                Extent { closed, end: source.segment.committed.load(Ordering::Acquire) }
            })
            .collect();
        loop {
            if let Some(pace) = &mut self.pace {
                pace.set(self.backlog.urgency());
            }
            let batch = self.gather(&extents)?;
            if batch.moved.is_empty() && batch.entries.is_empty() {
                break;
            }
            self.commit(batch)?;
            self.checkpoint(false)?;
        }
        self.rest()?;
        self.look_after_disk()?;
        self.enter_hash()?;
        self.retain()?;
        self.save_head()?;
        self.clear(&extents)
    }

    /// Opens the segments that are new.
    fn adopt(&mut self) -> Result<(), RecordError> {
        for segment in self.backlog.segments() {
            if self.sources.iter().all(|source| source.segment.id != segment.id) {
                let path = segment.path.clone();
                let moved = self.positions.get(&segment.id.to_string()).copied();
                let source = Source::open(segment, moved).map_err(reading(&path))?;
                self.sources.push(source);
            }
        }
        Ok(())
    }

    /// Reads a batch: from each journal, what one read gives. Across journals the entries are ordered by time, within
    /// one they stay as they are.
    fn gather(&self, extents: &[Extent]) -> Result<Batch, RecordError> {
        let mut batch = Batch::default();
        let mut journals = Vec::new();
        for (index, (source, extent)) in self.sources.iter().zip(extents).enumerate() {
            let journal = source.segment.id.journal;
            if source.offset >= extent.end || journals.contains(&journal) {
                continue;
            }
            journals.push(journal);
            let mut pieces = Vec::new();
            let offset = source.read(extent.end, &mut pieces).map_err(reading(&source.segment.path))?;
            let damaged_before = batch.damaged;
            let mut latest = Timestamp::MIN;
            for piece in pieces {
                let entry = match read(piece) {
                    Ok(Kind::Event(entry)) => *entry,
                    Ok(Kind::Payload(parcel)) => {
                        batch.payloads.push(parcel);
                        continue;
                    }
                    Err(what) => {
                        batch.damaged += 1;
                        batch.entries.push((latest, self.damage(&source.segment.path, what)?));
                        continue;
                    }
                };
                latest = latest.max(entry.at());
                batch.entries.push((latest, entry));
            }
            batch.moved.push((index, offset, batch.damaged > damaged_before));
        }
        batch.entries.sort_by_key(|(at, _)| *at);
        Ok(batch)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), RecordError> {
        let Some(store) = self.store.as_mut() else { return Ok(()) };
        let entries: Vec<Entry> = batch.entries.into_iter().map(|(_, entry)| entry).collect();
        let positions: Vec<(String, u64)> = batch
            .moved
            .iter()
            .map(|&(index, offset, _)| (self.sources[index].segment.id.to_string(), offset))
            .collect();
        if store.append(&entries, &batch.payloads, &positions)? {
            self.scrub = Some(Instant::now());
        }
        let mut bytes = 0;
        for (index, offset, damaged) in batch.moved {
            let source = &mut self.sources[index];
            if !source.segment.left {
                bytes += offset - source.offset;
            }
            source.offset = offset;
            source.damaged |= damaged;
        }
        self.rest.put_off(bytes);
        self.backlog.moved(bytes, store.head().seq, batch.damaged);
        self.backlog.unanchored(self.clock.now());
        Ok(())
    }

    /// Prunes a portion of what is to be pruned, and once a day finds what is; then sees that nothing of it is left.
    fn retain(&mut self) -> Result<(), RecordError> {
        let Some(store) = self.store.as_mut() else { return Ok(()) };
        if !self.keep.is_empty() && self.keep_at <= Instant::now() {
            for keep in &self.keep {
                let (at, what) = (self.clock.now(), keep.event(self.clock.now()));
                if store.finds(&what)? {
                    store.append(&[Entry::of(&Event { at, what })?], &[], &[])?;
                    self.backlog.moved(0, store.head().seq, 0);
                }
            }
            self.keep_at = Instant::now() + DAY;
        }
        let more = store.prune()?;
        let now = Instant::now();
        if more {
            self.scrub = Some(now);
        } else if self.scrub.is_some_and(|at| at <= now) {
            if store.truncate()? {
                for source in &self.sources {
                    retention::scrub(&source.segment, source.offset).map_err(reading(&source.segment.path))?;
                }
                self.scrub = None;
            } else {
                // Somebody reads what was there before.
                self.scrub = Some(now + SCRUB_AGAIN);
            }
        }
        // Between two portions, what came meanwhile is moved.
        let keep_at = (!self.keep.is_empty()).then_some(self.keep_at);
        let look_at = keep_at.into_iter().chain(self.scrub).chain(self.room_at).chain(self.rest.at).min();
        self.backlog.again(more, look_at);
        Ok(())
    }

    /// Deletes the segments that are done. Those with damage are kept under another name. Their positions stay in the
    /// database till the next start: a file that a power loss brings back must not be moved twice.
    fn clear(&mut self, extents: &[Extent]) -> Result<(), RecordError> {
        let mut gone = Vec::new();
        for (source, extent) in self.sources.iter().zip(extents) {
            if extent.closed && source.offset >= extent.end {
                let path = &source.segment.path;
                let done = if source.damaged { set_aside(path) } else { fs::remove_file(path) };
                match done {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(RecordError::File { doing: "delete", path: path.clone(), source: error });
                    }
                    _ => gone.push(source.segment.id),
                }
            }
        }
        self.sources.retain(|source| !gone.contains(&source.segment.id));
        self.backlog.remove(&gone);
        Ok(())
    }

    /// Compares the database with the end of the chain that was written down beside it.
    fn compare_head(&mut self) -> Result<(), RecordError> {
        let Some(store) = self.store.as_ref() else { return Ok(()) };
        let what = match Head::load(&self.head_file) {
            Ok(None) => return Ok(()),
            Ok(Some(head)) if store.has(head)? => return Ok(()),
            Ok(Some(head)) => {
                format!("event {} isn't the one it was when `record.head` was written: {}", head.seq, head.hex())
            }
            Err(error) => format!("it can't be read: {error}"),
        };
        let path = self.head_file.clone();
        self.report(&path, what)
    }

    /// Compares the database with the last checkpoint.
    fn compare_checkpoint(&mut self, signed: Result<Option<Head>, String>) -> Result<(), RecordError> {
        let Some(store) = self.store.as_ref() else { return Ok(()) };
        let what = match signed {
            Ok(None) => return Ok(()),
            Ok(Some(head)) if store.has(head)? => return Ok(()),
            Ok(Some(head)) => {
                format!("event {} isn't the one that the last checkpoint knows: {}", head.seq, head.hex())
            }
            Err(what) => what,
        };
        let path = checkpoint::file(&self.database);
        self.report(&path, what)
    }

    /// Finds the segments that an earlier daemon left.
    fn find(&mut self, folder: &Path) -> Result<(), RecordError> {
        let mut left = Vec::new();
        let listing = fs::read_dir(folder).map_err(reading(folder))?;
        for item in listing {
            let path = item.map_err(reading(folder))?.path();
            if path.extension().is_some_and(|extension| extension == "seg") {
                match examine(&path).map_err(reading(&path))? {
                    Found::Empty => fs::remove_file(&path).map_err(reading(&path))?,
                    Found::Segment(segment) => left.push(segment),
                    Found::Unknown => {
                        self.report(&path, "it doesn't begin as a journal segment does".into())?;
                        set_aside(&path).map_err(reading(&path))?;
                    }
                }
            }
        }
        left.sort_by_key(|segment| (segment.id.journal, segment.id.index));
        let there: Vec<String> = left.iter().map(|segment| segment.id.to_string()).collect();
        let gone: Vec<String> = self.positions.keys().filter(|id| !there.contains(id)).cloned().collect();
        if let Some(store) = self.store.as_mut() {
            store.forget(&gone)?;
        }
        for segment in left {
            self.backlog.add(Arc::new(segment));
        }
        Ok(())
    }

    /// Records damage that was found while opening.
    fn report(&mut self, path: &Path, what: String) -> Result<(), RecordError> {
        let entry = self.damage(path, what)?;
        if let Some(store) = self.store.as_mut() {
            store.append(&[entry], &[], &[])?;
            self.backlog.moved(0, store.head().seq, 1);
        }
        Ok(())
    }

    fn damage(&self, path: &Path, detail: String) -> Result<Entry, RecordError> {
        let place = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tracing::error!(place, detail, "a part of the record is damaged");
        Entry::of(&Event { at: self.clock.now(), what: What::RecordDamaged { place, detail } })
    }
}

enum Found {
    /// Nothing was ever appended to it.
    Empty,
    Segment(Segment),
    /// Something else under the name of a segment.
    Unknown,
}

fn examine(path: &Path) -> io::Result<Found> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut header = Vec::new();
    file.by_ref().take(HEADER).read_to_end(&mut header)?;
    // A daemon that was killed while it made the segment left zeros, or less than a header.
    if header.iter().all(|&byte| byte == 0) || length < HEADER {
        return Ok(Found::Empty);
    }
    let id = header.first_chunk().and_then(segment::read_header);
    Ok(id.map_or(Found::Unknown, |id| {
        Found::Segment(Segment {
            id,
            path: path.to_owned(),
            committed: AtomicU64::new(length),
            closed: AtomicBool::new(true),
            left: true,
        })
    }))
}

/// What a frame holds.
enum Kind {
    Event(Box<Entry>),
    Payload(Parcel),
}

fn read(piece: Piece) -> Result<Kind, String> {
    match piece {
        Piece::Body(body) => {
            Entry::new(body).map(Box::new).map(Kind::Event).ok_or_else(|| "an entry isn't an event".into())
        }
        Piece::Payload(body) => {
            Parcel::open(body).map(Kind::Payload).ok_or_else(|| "an entry isn't a sealed payload".into())
        }
        Piece::Damage { offset, bytes } => Err(format!("the {bytes} bytes from {offset} on aren't journal entries")),
    }
}

/// Keeps a damaged segment where the next start won't read it again.
fn set_aside(path: &Path) -> io::Result<()> {
    fs::rename(path, path.with_extension("damaged"))
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    move |source| RecordError::File { doing: "read", path: path.to_owned(), source }
}
