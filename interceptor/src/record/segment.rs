//! The format of a journal segment: a header, then frames, then zeros up to the preallocated size. Only bytes here; the
//! files are written by [`super::journal`] and read by [`super::source`].
//!
//! All numbers are little endian. Header, 64 bytes: the magic `ICJRNL\0\x01`, the journal's id (16 bytes), the segment's
//! index in it (u32), zeros, and in the last 8 bytes the beginning of the BLAKE3 of the 56 before. Frame: `FF 49 4A`, what
//! its body is (3: an event, 4: a payload), the body's length (u32), the checksum (8 bytes), the body. Behind a damaged
//! frame, the next one is found by looking for these bytes.
//!
//! A frame's checksum is the HighwayHash of its body, whose key is the frame's place (journal, index, offset, kind): bytes
//! that lie elsewhere are never taken for it, and nobody who doesn't know the journal's id can have a body that looks like
//! frames. That it holds is a matter of milliseconds, until the event is in the chain; there BLAKE3 is. Earlier versions
//! had BLAKE3 here as well, in frames of the kinds 1 and 2, which are still read.

use std::fmt;

use highway::{HighwayHash, HighwayHasher, Key};
use ulid::Ulid;

/// Bytes of a segment before its first frame.
pub(super) const HEADER: u64 = 64;
/// Bytes of a frame before its body.
pub(super) const FRAME_HEADER: usize = 16;
/// Bytes of the longest body that is taken.
pub(super) const MAX_BODY: usize = 16 << 20;

const MAGIC: [u8; 8] = *b"ICJRNL\0\x01";
const FRAME_MAGIC: [u8; 3] = [0xFF, b'I', b'J'];
/// The byte behind it: what the body is.
const EVENT: u8 = 3;
const PAYLOAD: u8 = 4;
/// What earlier versions wrote.
const OLD_EVENT: u8 = 1;
const OLD_PAYLOAD: u8 = 2;

/// Which segment: the journal's id, new with each start of a journal, and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentId {
    pub(super) journal: Ulid,
    pub(super) index: u32,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08}", self.journal, self.index)
    }
}

/// What stands at some place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A whole frame with an event.
    Frame(&'a [u8]),
    /// A whole frame with a sealed payload.
    Payload(&'a [u8]),
    /// This many bytes from here on are needed to tell.
    NeedMore(usize),
    /// Nothing was written here.
    Unwritten,
    /// Something that isn't a frame.
    Bad,
}

/// What lies behind a place where reading a segment came to a halt, up to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Zeros, or the beginning of one frame that was never finished.
    Nothing,
    /// Something was written here and can't be read; the next frame, or the end, is this many bytes on.
    Damaged(usize),
}

/// The header of a segment.
pub(super) fn header(id: SegmentId) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..24].copy_from_slice(&id.journal.to_bytes());
    bytes[24..28].copy_from_slice(&id.index.to_le_bytes());
    let sum = header_checksum(&bytes[..56]);
    bytes[56..].copy_from_slice(&sum);
    bytes
}

/// The segment that a header names; none if it isn't one.
pub(super) fn read_header(bytes: &[u8; HEADER as usize]) -> Option<SegmentId> {
    if bytes[..8] != MAGIC || bytes[56..] != header_checksum(&bytes[..56]) {
        return None;
    }
    let journal = Ulid::from_bytes(bytes[8..24].try_into().ok()?);
    let index = u32::from_le_bytes(bytes[24..28].try_into().ok()?);
    Some(SegmentId { journal, index })
}

/// Fills in the header of an event's frame. `frame` is its bytes, the first [`FRAME_HEADER`] of them still empty.
pub(super) fn seal(id: SegmentId, offset: u64, frame: &mut [u8]) {
    fill(id, offset, EVENT, frame);
}

/// The same for a payload's frame.
pub(super) fn seal_payload(id: SegmentId, offset: u64, frame: &mut [u8]) {
    fill(id, offset, PAYLOAD, frame);
}

fn fill(id: SegmentId, offset: u64, kind: u8, frame: &mut [u8]) {
    let (head, body) = frame.split_at_mut(FRAME_HEADER);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    head[..3].copy_from_slice(&FRAME_MAGIC);
    head[3] = kind;
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..].copy_from_slice(&checksum(id, offset, kind, body));
}

/// What stands at `offset`, whose bytes, as far as they were read, are `bytes`.
pub(super) fn step(id: SegmentId, offset: u64, bytes: &[u8]) -> Step<'_> {
    let Some((head, rest)) = bytes.split_at_checked(FRAME_HEADER) else {
        return Step::NeedMore(FRAME_HEADER);
    };
    if head.iter().all(|&byte| byte == 0) {
        return Step::Unwritten;
    }
    let Some((kind, length)) = kind_and_length(head) else { return Step::Bad };
    let Some(body) = rest.get(..length) else { return Step::NeedMore(FRAME_HEADER + length) };
    match kind {
        _ if head[8..] != checksum(id, offset, kind, body) => Step::Bad,
        EVENT | OLD_EVENT => Step::Frame(body),
        _ => Step::Payload(body),
    }
}

/// Looks behind a place that [`step`] calls unwritten or bad; `bytes` is everything from `offset` to the segment's end.
pub(super) fn rest(id: SegmentId, offset: u64, bytes: &[u8]) -> Rest {
    let written = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if written == 0 {
        return Rest::Nothing;
    }
    let candidates = (1..written).filter(|&at| bytes[at..].starts_with(&FRAME_MAGIC));
    for at in candidates {
        if let Step::Frame(_) | Step::Payload(_) = step(id, offset + at as u64, &bytes[at..]) {
            return Rest::Damaged(at);
        }
    }
    // A copy into the page cache that was cut short leaves a beginning of the frame: its last byte isn't there yet. One that
    // is whole but for its length is another matter.
    let is_whole = |head: &[u8], kind| {
        let body = bytes.get(FRAME_HEADER..written);
        body.is_some_and(|body| head[8..] == checksum(id, offset, kind, body))
    };
    let unfinished = match bytes.get(..FRAME_HEADER) {
        Some(head) if head.starts_with(&FRAME_MAGIC) && is_kind(head[3]) => match kind_and_length(head) {
            Some((kind, length)) => written < FRAME_HEADER + length && !is_whole(head, kind),
            None => written < FRAME_HEADER,
        },
        Some(head) => written <= FRAME_MAGIC.len() && FRAME_MAGIC.starts_with(&head[..written]),
        None => true,
    };
    if unfinished { Rest::Nothing } else { Rest::Damaged(bytes.len()) }
}

fn kind_and_length(head: &[u8]) -> Option<(u8, usize)> {
    let (kind, rest) = head.strip_prefix(&FRAME_MAGIC)?.split_first()?;
    let length = u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize;
    (is_kind(*kind) && (1..=MAX_BODY).contains(&length)).then_some((*kind, length))
}

fn is_kind(kind: u8) -> bool {
    matches!(kind, EVENT | PAYLOAD | OLD_EVENT | OLD_PAYLOAD)
}

fn checksum(id: SegmentId, offset: u64, kind: u8, body: &[u8]) -> [u8; 8] {
    if matches!(kind, OLD_EVENT | OLD_PAYLOAD) {
        return old_checksum(id, offset, kind, body);
    }
    let journal = u128::from(id.journal);
    let key = Key([(journal >> 64) as u64, journal as u64, offset, u64::from(id.index) << 8 | u64::from(kind)]);
    HighwayHasher::new(key).hash64(body).to_le_bytes()
}

/// The beginning of the BLAKE3 of the place, of one byte 02 for a payload, and of the body.
fn old_checksum(id: SegmentId, offset: u64, kind: u8, body: &[u8]) -> [u8; 8] {
    let mut place = [0; 32];
    place[..16].copy_from_slice(&id.journal.to_bytes());
    place[16..20].copy_from_slice(&id.index.to_le_bytes());
    place[20..28].copy_from_slice(&offset.to_le_bytes());
    place[28..].copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&place);
    if kind != OLD_EVENT {
        hasher.update(&[kind]);
    }
    hasher.update(body);
    first_eight(&hasher.finalize())
}

fn header_checksum(bytes: &[u8]) -> [u8; 8] {
    first_eight(&blake3::hash(bytes))
}

fn first_eight(hash: &blake3::Hash) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&hash.as_bytes()[..8]);
    out
}

#[cfg(test)]
mod tests;
