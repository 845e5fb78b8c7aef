//! The lines that a body is shown as, with what of them is masked: each part that is written comes with its place in the
//! body, which is compared with what the mask noted.

use std::ops::Range;

use crate::mask::{Place, Places};

/// A line, as it is shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// How many masked values begin in it, or were taken out here.
    pub(super) masked: u64,
    /// Whether there is anything of one in it.
    pub(super) is_masked: bool,
    /// Whether it reaches behind what was noted.
    pub(super) is_beyond: bool,
}

/// A body that is being written.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// The places that no line has told yet.
    places: &'a [Place],
    /// Where the first is that wasn't noted.
    more: Option<u32>,
    /// Where the last one that was told ends.
    until: usize,
    lines: Vec<Line>,
    line: Line,
}

impl<'a> Page<'a> {
    pub(super) fn new(masked: Option<&'a Places>) -> Self {
        let (places, more) = masked.map_or((&[][..], None), |masked| (&masked.places[..], masked.more));
        Self { places, more, until: 0, lines: Vec::new(), line: Line::default() }
    }

    /// Goes on with `text`, which is what stands in the body at `place`.
    pub(super) fn write(&mut self, text: &str, place: Range<usize>) {
        let line = &mut self.line;
        line.text.push_str(text);
        line.is_masked |= place.start < self.until;
        while let Some((first, rest)) = self.places.split_first()
            && first.range().start < place.end
        {
            line.masked += 1;
            line.is_masked = true;
            self.until = first.range().end;
            self.places = rest;
        }
        line.is_beyond |= self.more.is_some_and(|more| (more as usize) < place.end);
    }

    /// Ends the line.
    pub(super) fn end_line(&mut self) {
        self.lines.push(std::mem::take(&mut self.line));
    }

    /// Ends the line and begins one of this depth.
    pub(super) fn break_line(&mut self, depth: usize) {
        self.end_line();
        // A hostile depth must not become a hostile width.
        self.line.text.extend(std::iter::repeat_n("  ", depth.min(40)));
    }

    /// How many values were taken out before `at`, behind what is written.
    pub(super) fn dropped(&mut self, at: usize) -> u64 {
        let is_gone = |place: &&Place| place.length == 0 && place.range().start <= at;
        let count = self.places.iter().take_while(is_gone).count();
        self.places = &self.places[count..];
        count as u64
    }

    /// Goes on with what stands for so many values that were taken out.
    pub(super) fn tell_dropped(&mut self, count: u64) {
        if count == 1 {
            self.line.text.push_str("(dropped)");
        } else {
            self.line.text.push_str(&format!("({count} dropped)"));
        }
        self.line.masked += count;
        self.line.is_masked = true;
    }

    /// The lines of a body of so many bytes.
    pub(super) fn finish(mut self, length: usize) -> Vec<Line> {
        let dropped = self.dropped(length);
        if dropped > 0 {
            self.tell_dropped(dropped);
            self.end_line();
        }
        self.lines
    }
}
