//! Reading a journal segment back: whole frames in order, and what can't be read as damage, never skipped in silence.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::backlog::Segment;
use super::segment::{self, HEADER, Rest, Step};

/// Bytes that are read at once, and come into the database at once, unless one frame is longer. The more of them, the fewer
/// times the same pages are written.
const CHUNK: u64 = 1 << 20;

/// A segment, and how far it is in the database.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) damaged: bool,
    file: File,
}

/// What was found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The body of a frame with an event.
    Body(Vec<u8>),
    /// The body of a frame with a payload.
    Payload(Vec<u8>),
    /// Bytes that aren't a frame.
    Damage {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

impl Source {
    /// Opens a segment to read on at `offset`.
    pub(super) fn open(segment: Arc<Segment>, offset: Option<u64>) -> io::Result<Self> {
        let file = File::open(&segment.path)?;
        Ok(Self { segment, offset: offset.unwrap_or(HEADER), damaged: false, file })
    }

    /// Reads some pieces, at least one if there is one before `end`. Gives the offset behind them.
    pub(super) fn read(&self, end: u64, pieces: &mut Vec<Piece>) -> io::Result<u64> {
        let mut offset = self.offset;
        let mut bytes = self.bytes(offset, end.min(offset + CHUNK))?;
        let mut at = 0;
        while offset < end {
            match segment::step(self.segment.id, offset, &bytes[at..]) {
                step @ (Step::Frame(body) | Step::Payload(body)) => {
                    let event = matches!(step, Step::Frame(_));
                    pieces.push(if event { Piece::Body(body.to_vec()) } else { Piece::Payload(body.to_vec()) });
                    let length = segment::FRAME_HEADER + body.len();
                    at += length;
                    offset += length as u64;
                }
                Step::NeedMore(length) if offset + length as u64 <= end => {
                    if at > 0 {
                        break;
                    }
                    bytes = self.bytes(offset, offset + length as u64)?;
                }
                Step::NeedMore(_) | Step::Unwritten | Step::Bad => {
                    offset = self.halt(offset, end, pieces)?;
                    break;
                }
            }
        }
        Ok(offset)
    }

    /// No frame stands at `offset`: tells whether that is the end or damage, and where to go on.
    fn halt(&self, offset: u64, end: u64, pieces: &mut Vec<Piece>) -> io::Result<u64> {
        let rest = self.bytes(offset, end)?;
        let bytes = match segment::rest(self.segment.id, offset, &rest) {
            // The daemon that wrote it ended here.
            Rest::Nothing if self.segment.left => return Ok(end),
            // These bytes were acknowledged, and are no more.
            Rest::Nothing => rest.len() as u64,
            Rest::Damaged(bytes) => bytes as u64,
        };
        pieces.push(Piece::Damage { offset, bytes });
        Ok(offset + bytes)
    }

    /// The bytes of the file in this range; zeros where it is shorter.
    fn bytes(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(to - from).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut bytes = vec![0; length];
        let mut read = 0;
        while read < length {
            match self.file.read_at(&mut bytes[read..], from + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }
}
