//! What becomes of the bytes of a document: kept, skipped, or replaced. A [`Sink`] is told so in the order of the
//! document. One that isn't the output itself notes [`Edits`], so that what was found in a decoded text can be done to
//! the text as it was written.

use crate::config::Strategy;

/// Takes a document in order, piece by piece.
pub(super) trait Sink {
    /// The next bytes stay as they are.
    fn keep(&mut self, bytes: &[u8]);
    /// The next `length` bytes go.
    fn skip(&mut self, length: usize);
    /// These bytes are put here, in the place of one thing that is masked; none, where it is left out.
    fn put(&mut self, bytes: &[u8], strategy: Strategy);
}

/// The changes to a text, in its order, without overlap.
#[derive(Debug, Default)]
pub(super) struct Edits {
    at: usize,
    edits: Vec<Edit>,
    text: Vec<u8>,
}

/// `start..end` of the text becomes `from..to` of what is put.
#[derive(Debug, Clone, Copy)]
struct Edit {
    start: usize,
    end: usize,
    from: usize,
    to: usize,
    /// How it is masked; none where something only goes, such as the comma behind a member that is dropped.
    strategy: Option<Strategy>,
}

impl Sink for Edits {
    fn keep(&mut self, bytes: &[u8]) {
        self.at += bytes.len();
    }

    fn skip(&mut self, length: usize) {
        self.open().end += length;
        self.at += length;
    }

    fn put(&mut self, bytes: &[u8], strategy: Strategy) {
        // Of two things that are masked each has its own.
        let edit = if self.open().strategy.is_some() { self.begin() } else { self.open() };
        edit.strategy = Some(strategy);
        edit.to += bytes.len();
        self.text.extend_from_slice(bytes);
    }
}

impl Edits {
    /// The edit that ends here; a new one if none does.
    fn open(&mut self) -> &mut Edit {
        if self.edits.last().is_none_or(|last| last.end != self.at) {
            return self.begin();
        }
        let last = self.edits.len() - 1;
        &mut self.edits[last]
    }

    fn begin(&mut self) -> &mut Edit {
        let (at, from) = (self.at, self.text.len());
        self.edits.push(Edit { start: at, end: at, from, to: from, strategy: None });
        let last = self.edits.len() - 1;
        &mut self.edits[last]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Does them to `raw`, of which the edited text was made by `map`; `encode` writes a replacement as it stands there.
    pub(super) fn apply<S: Sink>(
        &self,
        raw: &[u8],
        map: &Offsets,
        sink: &mut S,
        mut encode: impl FnMut(&[u8], &mut Vec<u8>),
    ) {
        let mut encoded = Vec::new();
        let mut at = 0;
        for edit in &self.edits {
            let start = map.start(edit.start).clamp(at, raw.len());
            let end = map.end(edit.end).clamp(start, raw.len());
            sink.keep(&raw[at..start]);
            sink.skip(end - start);
            if let Some(strategy) = edit.strategy {
                encoded.clear();
                encode(&self.text[edit.from..edit.to], &mut encoded);
                sink.put(&encoded, strategy);
            }
            at = end;
        }
        sink.keep(&raw[at..]);
    }
}

/// From places in a decoded text to those in the text as it was written. Empty: they are the same.
#[derive(Debug, Default, Clone)]
pub(super) struct Offsets(Vec<Step>);

/// From `decoded` on, the text was written from `raw` on.
#[derive(Debug, Clone, Copy)]
struct Step {
    decoded: u32,
    raw: u32,
    /// Up to the next step it is one escape, which can't be cut.
    escape: bool,
}

impl Offsets {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Notes that an escape stands at `raw`, whose decoded bytes start at `decoded`.
    pub(super) fn escape(&mut self, decoded: usize, raw: usize) {
        self.push(decoded, raw, true);
    }

    /// Notes that the text goes on plainly.
    pub(super) fn plain(&mut self, decoded: usize, raw: usize) {
        self.push(decoded, raw, false);
    }

    fn push(&mut self, decoded: usize, raw: usize, escape: bool) {
        // INVARIANT: decoded texts are far below 4 GiB; they are bounded by what may be held.
        let (decoded, raw) = (u32::try_from(decoded).unwrap_or(u32::MAX), u32::try_from(raw).unwrap_or(u32::MAX));
        match self.0.last_mut() {
            Some(last) if last.decoded == decoded && !last.escape => *last = Step { decoded, raw, escape },
            _ => self.0.push(Step { decoded, raw, escape }),
        }
    }

    /// Where the byte at `decoded` starts, as it was written.
    pub(super) fn start(&self, decoded: usize) -> usize {
        match self.step(decoded) {
            None => decoded,
            Some((at, step)) if step.escape => {
                if (step.decoded as usize) < decoded
                    && self.0.get(at + 1).is_some_and(|n| n.decoded as usize == decoded)
                {
                    // An escape that stands for nothing follows.
                    return self.0[at + 1].raw as usize;
                }
                step.raw as usize
            }
            Some((_, step)) => step.raw as usize + (decoded - step.decoded as usize),
        }
    }

    /// Where a part that ends before the byte at `decoded` ends, as it was written.
    pub(super) fn end(&self, decoded: usize) -> usize {
        match self.step(decoded) {
            Some((at, step)) if step.escape && decoded > step.decoded as usize => {
                self.0.get(at + 1).map_or(usize::MAX, |next| next.raw as usize)
            }
            _ => self.start(decoded),
        }
    }

    /// The last step at or before `decoded`.
    fn step(&self, decoded: usize) -> Option<(usize, Step)> {
        let after = self.0.partition_point(|step| step.decoded as usize <= decoded);
        after.checked_sub(1).map(|at| (at, self.0[at]))
    }
}

#[cfg(test)]
mod tests;
