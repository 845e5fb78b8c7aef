//! Where in a masked body something was masked, noted as the body goes out: of many a value nothing tells later that it is
//! a mask's work, and of what was dropped nothing is left. Bounded, however much is masked.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::edit::Sink;
use crate::config::Strategy;

/// The most places that are noted of one body.
pub const MOST: usize = 1024;

/// What stands in a masked body in the place of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, Strategy)", into = "(u32, u32, Strategy)")]
pub struct Place {
    /// Where it starts, in bytes from the body's beginning.
    pub start: u32,
    /// How many bytes it is; 0 where nothing is left.
    pub length: u32,
    /// How it was masked.
    pub strategy: Strategy,
}

/// The places of one body, in its order; without overlap until they are [moved](Places::moved). As JSON `{"places": [[START, LENGTH, STRATEGY], …], "more":
/// START}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The first [`MOST`] of them.
    pub places: Vec<Place>,
    /// Where the first starts that isn't noted; none if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<u32>,
}

impl Place {
    /// Its bytes.
    pub fn range(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.length as usize
    }
}

impl From<(u32, u32, Strategy)> for Place {
    fn from((start, length, strategy): (u32, u32, Strategy)) -> Self {
        Self { start, length, strategy }
    }
}

impl From<Place> for (u32, u32, Strategy) {
    fn from(Place { start, length, strategy }: Place) -> Self {
        (start, length, strategy)
    }
}

impl Places {
    fn note(&mut self, start: u64, length: usize, strategy: Strategy) {
        if self.more.is_some() {
            return;
        }
        match (u32::try_from(start), u32::try_from(length)) {
            (Ok(start), Ok(length)) if self.places.len() < MOST => {
                self.places.push(Place { start, length, strategy });
            }
            _ => self.more = Some(short(start)),
        }
    }

    /// Those of the first `length` bytes.
    pub fn within(mut self, length: usize) -> Self {
        self.places.retain_mut(|place| {
            let Range { start, end } = place.range();
            place.length = short(end.min(length).saturating_sub(start) as u64);
            // What was dropped at the very end was dropped all the same.
            start < length || (start == length && end == start)
        });
        self.more = self.more.filter(|more| *more as usize <= length);
        self
    }

    /// Moves them to where they are once parts of the body are `replaced`, each by so many bytes; those come in order and
    /// without overlap. A place of which anything was replaced takes in all of what stands there instead.
    pub fn moved(&mut self, replaced: &[(Range<usize>, usize)]) {
        if replaced.is_empty() {
            return;
        }
        let mut steps: Vec<(Range<usize>, Range<usize>)> = Vec::with_capacity(replaced.len());
        let (mut was, mut is) = (0, 0);
        for (old, length) in replaced {
            let start = is + old.start.saturating_sub(was);
            (was, is) = (old.end, start + length);
            steps.push((old.clone(), start..is));
        }
        let moved = |at: usize, is_end: bool| {
            let next = steps.partition_point(|(old, _)| old.end <= at);
            match (steps.get(next), next.checked_sub(1).map(|last| &steps[last])) {
                (Some((old, new)), _) if old.start < at => {
                    if is_end {
                        new.end
                    } else {
                        new.start
                    }
                }
                (_, Some((old, new))) => new.end + (at - old.end),
                (_, None) => at,
            }
        };
        for place in &mut self.places {
            let Range { start, end } = place.range();
            let (start, end) = (moved(start, false), moved(end, true));
            (place.start, place.length) = (short(start as u64), short(end.saturating_sub(start) as u64));
        }
        self.more = self.more.map(|more| short(moved(more as usize, false) as u64));
    }
}

/// Bodies of which places are kept are far below 4 GiB.
fn short(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What a masker gives: it goes to `out`, and what of it is masked is noted.
pub(super) struct Noting<'a> {
    out: &'a mut Vec<u8>,
    places: &'a mut Places,
    /// How long `out` was before.
    from: usize,
    /// How much of the body went out before.
    given: u64,
}

impl<'a> Noting<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, places: &'a mut Places, given: u64) -> Self {
        let from = out.len();
        Self { out, places, from, given }
    }

    /// How much of the body went out by now.
    pub(super) fn given(&self) -> u64 {
        self.given + (self.out.len() - self.from) as u64
    }
}

impl Sink for Noting<'_> {
    #[inline]
    fn keep(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn skip(&mut self, _length: usize) {}

    fn put(&mut self, bytes: &[u8], strategy: Strategy) {
        self.places.note(self.given(), bytes.len(), strategy);
        self.out.extend_from_slice(bytes);
    }
}

/// What can't be given yet, and where it is masked.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    places: Places,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Gives it to one that notes no more places than are noted here.
    pub(super) fn give<S: Sink>(self, sink: &mut S) {
        let Self { bytes, places: Places { places, more } } = self;
        let mut at = 0;
        for place in places {
            let Range { start, end } = place.range();
            sink.keep(&bytes[at..start]);
            sink.put(&bytes[start..end], place.strategy);
            at = end;
        }
        if let Some(more) = more {
            let more = more as usize;
            sink.keep(&bytes[at..more]);
            // The one that is too many, so that it is known there as well.
            sink.put(&[], Strategy::Redact);
            at = more;
        }
        sink.keep(&bytes[at..]);
    }
}

impl Sink for Held {
    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn skip(&mut self, _length: usize) {}

    fn put(&mut self, bytes: &[u8], strategy: Strategy) {
        self.places.note(self.bytes.len() as u64, bytes.len(), strategy);
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
