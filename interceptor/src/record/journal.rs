//! Appending to the journal: one file at a time for one thread, preallocated, so that an append is a single write into
//! the page cache. Not here: moving it into the database ([`super::writer`]).

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use serde::Serialize;
use ulid::Ulid;

use super::RecordError;
use super::backlog::{Backlog, Segment};
use super::event::{Event, Intent, Verdict, What};
use super::payload::{SealedPayload, SessionKey};
use super::reserve;
use super::segment::{self, FRAME_HEADER, HEADER, MAX_BODY, SegmentId};
use crate::config::{Durability, RecordSettings};
use crate::ids::OperationId;

/// The evidence that an event is recorded. Only [`Journal::append`] and [`Journal::append_intent`] make one.
#[derive(Debug)]
#[must_use = "what was recorded may go on; what wasn't may not"]
pub struct Recorded {
    operation: Option<OperationId>,
}

impl Recorded {
    /// The operation whose verdict was recorded; none if the event was another one.
    pub fn operation(&self) -> Option<OperationId> {
        self.operation
    }
}

/// A journal of one thread. Dropping it hands the rest to the writer.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    name: String,
    id: Ulid,
    durability: Durability,
    segment_bytes: u64,
    backlog: Arc<Backlog>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    current: Option<Current>,
    next_index: u32,
    frames: Frames,
}

/// Frames that are written together.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    /// Where each begins, and what seals it once its place is known.
    sealed_by: Vec<(usize, Seal)>,
}

type Seal = fn(SegmentId, u64, &mut [u8]);

impl Frames {
    fn clear(&mut self) {
        self.bytes.clear();
        self.sealed_by.clear();
    }

    fn event(&mut self, event: &impl Serialize) -> Result<(), RecordError> {
        self.add(segment::seal, |body| serde_json::to_writer(body, event).map_err(io::Error::from))
    }

    fn payload(&mut self, pack: impl FnOnce(&mut Vec<u8>)) -> Result<(), RecordError> {
        self.add(segment::seal_payload, |body| {
            pack(body);
            Ok(())
        })
    }

    fn add(&mut self, seal: Seal, fill: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<(), RecordError> {
        let start = self.bytes.len();
        self.sealed_by.push((start, seal));
        self.bytes.resize(start + FRAME_HEADER, 0);
        fill(&mut self.bytes).map_err(RecordError::Failed)?;
        match self.bytes.len() - start - FRAME_HEADER {
            bytes if bytes > MAX_BODY => Err(RecordError::TooLong { bytes }),
            _ => Ok(()),
        }
    }

    /// Fills in their heads, for a place in a segment.
    fn seal(&mut self, id: SegmentId, offset: u64) {
        let mut end = self.bytes.len();
        for (start, seal) in self.sealed_by.iter().rev() {
            seal(id, offset + *start as u64, &mut self.bytes[*start..end]);
            end = *start;
        }
    }
}

#[derive(Debug)]
struct Current {
    file: File,
    segment: Arc<Segment>,
    offset: u64,
    size: u64,
}

impl Journal {
    pub(super) fn open(
        folder: &Path,
        name: &str,
        settings: &RecordSettings,
        backlog: Arc<Backlog>,
    ) -> Result<Self, RecordError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !(1..=32).contains(&name.len()) || !name.chars().all(plain) {
            let source =
                io::Error::new(io::ErrorKind::InvalidInput, "a journal's name is 1 to 32 letters, digits and `-`");
            return Err(RecordError::File { doing: "name a journal", path: name.into(), source });
        }
        let journal = Self {
            folder: folder.into(),
            name: name.into(),
            id: Ulid::generate(),
            durability: settings.durability,
            segment_bytes: settings.segment_bytes,
            backlog,
            inner: RefCell::new(Inner { current: None, next_index: 0, frames: Frames::default() }),
        };
        journal.rotate(&mut journal.inner.borrow_mut(), 0)?;
        Ok(journal)
    }

    /// Records `event`. When this returns `Ok`, the event survives what the settings' durability says, and comes into
    /// the database by itself. Takes microseconds (with power-loss durability, as long as the disk's flush).
    ///
    /// # Errors
    /// When too much waits for the database, when the file system fails; and for what is allowed, when the oldest entry has
    /// waited too long, or when a sink outside the host has to know more of the record than it does. What the event stands
    /// for must then not happen.
    pub fn append(&self, event: &Event) -> Result<Recorded, RecordError> {
        match &event.what {
            What::OperationDecided { operation, verdict, .. } => {
                return self.verdict(*operation, *verdict, event.at, |frames| frames.event(event));
            }
            What::WorkloadStarted { .. }
            | What::GrantIssued { .. }
            | What::BreakGlassStarted { .. }
            | What::TokenIssued(_) => {
                self.backlog.keeps_up()?;
            }
            _ => {}
        }
        // Ends of what went on before may still be recorded.
        self.frames(is_intent(&event.what), true, |frames| frames.event(event))?;
        Ok(Recorded { operation: None })
    }

    /// Records a verdict, as [`Journal::append`] does its event.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_intent(&self, intent: &Intent<'_>) -> Result<Recorded, RecordError> {
        self.verdict(intent.operation, intent.verdict, intent.at, |frames| frames.event(intent))
    }

    fn verdict(
        &self,
        operation: OperationId,
        verdict: Verdict,
        at: Timestamp,
        fill: impl Fn(&mut Frames) -> Result<(), RecordError>,
    ) -> Result<Recorded, RecordError> {
        let goes_on = verdict == Verdict::Allow;
        self.backlog.has_room_for_ends()?;
        if goes_on {
            self.backlog.lets_go_on(at)?;
        }
        // What is denied may still be recorded.
        self.frames(true, !goes_on, fill)?;
        Ok(Recorded { operation: Some(operation) })
    }

    /// Appends a sealed payload and, behind it in the same write, the event that names its digest.
    ///
    /// # Errors
    /// As [`Journal::append`]; nothing of the two is recorded then, and the event may still be by itself.
    pub fn append_with(&self, (key, sealed): (&SessionKey, &SealedPayload), event: &Event) -> Result<(), RecordError> {
        self.frames(is_intent(&event.what), false, |frames| {
            frames.payload(|body| key.pack(sealed, body))?;
            frames.event(event)
        })
    }

    fn frames(
        &self,
        sync: bool,
        may_use_reserve: bool,
        fill: impl Fn(&mut Frames) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let mut inner = self.inner.borrow_mut();
        let mut result = self.write(&mut inner, sync, &fill);
        if result.as_ref().is_err_and(reserve::is_no_room) && self.backlog.release() {
            result = if may_use_reserve { self.write(&mut inner, sync, &fill) } else { Err(RecordError::NoRoom) };
        }
        inner.frames.bytes.shrink_to(64 << 10);
        if let Err(RecordError::Failed(source) | RecordError::File { source, .. }) = &result {
            self.backlog.append_failed(format!("the journal can't be written: {source}"));
        }
        result
    }

    fn write(
        &self,
        inner: &mut Inner,
        sync: bool,
        fill: impl Fn(&mut Frames) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        inner.frames.clear();
        fill(&mut inner.frames)?;
        let length = inner.frames.bytes.len() as u64;
        self.backlog.admit(length)?;
        if inner.current.as_ref().is_none_or(|current| current.offset + length > current.size) {
            self.rotate(inner, length)?;
        }
        let Some(current) = inner.current.as_mut() else {
            return Err(RecordError::Failed(io::ErrorKind::NotFound.into()));
        };
        inner.frames.seal(current.segment.id, current.offset);
        let mut written = current.file.write_all_at(&inner.frames.bytes, current.offset);
        if self.durability == Durability::PowerLoss && sync {
            written = written.and_then(|()| current.file.sync_data());
        }
        if let Err(error) = written {
            // The segment ends before these entries; the next append begins a new one.
            if let Some(current) = inner.current.take() {
                self.finish(&current);
            }
            return Err(RecordError::Failed(error));
        }
        current.offset += length;
        self.backlog.appended(&current.segment, current.offset, length);
        Ok(())
    }

    /// Begins a new segment with room for at least one frame of `length`.
    fn rotate(&self, inner: &mut Inner, length: u64) -> Result<(), RecordError> {
        if let Some(current) = inner.current.take() {
            self.finish(&current);
        }
        let id = SegmentId { journal: self.id, index: inner.next_index };
        inner.next_index += 1;
        let path = self.folder.join(format!("{}-{id}.seg", self.name));
        let size = self.segment_bytes.max(HEADER + length);
        let file = self.make(&path, id, size).map_err(|source| {
            // Half a segment is of no use to anyone; if it can't go, the next start finds it empty.
            let _gone = std::fs::remove_file(&path);
            RecordError::File { doing: "make the journal segment", path: path.clone(), source }
        })?;
        let segment = Arc::new(Segment {
            id,
            path,
            committed: AtomicU64::new(HEADER),
            closed: AtomicBool::new(false),
            left: false,
        });
        self.backlog.add(segment.clone());
        inner.current = Some(Current { file, segment, offset: HEADER, size });
        Ok(())
    }

    fn make(&self, path: &Path, id: SegmentId, size: u64) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        preallocate(&file, size)?;
        file.write_all_at(&segment::header(id), 0)?;
        if self.durability == Durability::PowerLoss {
            file.sync_all()?;
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(file)
    }

    /// Cuts off what was never used (or never acknowledged) and tells the writer that this is all.
    fn finish(&self, current: &Current) {
        if let Err(error) = current.file.set_len(current.offset) {
            tracing::warn!(path = %current.segment.path.display(), %error, "can't trim a journal segment");
        }
        self.backlog.close(&current.segment);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(current) = self.inner.get_mut().current.take() {
            self.finish(&current);
        }
    }
}

/// Whether something waits for this event to be recorded. The others become durable with the next one that is.
fn is_intent(what: &What) -> bool {
    !matches!(
        what,
        What::OperationFinished { .. } | What::SessionClosed { .. } | What::WorkloadEnded { .. } | What::Ledger(_)
    )
}

/// Takes the disk space now, so that a full disk is known here and not in the middle of an entry.
fn preallocate(file: &File, size: u64) -> io::Result<()> {
    let length = i64::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(Errno::EOPNOTSUPP) => {
            let zeros = [0; 64 << 10];
            let mut at = 0;
            while at < size {
                let part = zeros.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
                file.write_all_at(&zeros[..part], at)?;
                at += part as u64;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}
