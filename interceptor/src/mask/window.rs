//! Texts without an end in sight: looked at through a window of fixed places, so that what is found doesn't depend on how
//! the text was cut on its way. What may go on behind the window's end is looked at again in the next one.

use super::Withheld;
use super::counts::Tally;
use super::detector::{REACH, Words};
use super::edit::Sink;
use super::engine::Engine;
use super::escape::{Decoded, Escape};

/// A window, in bytes as they are written.
pub(super) const WINDOW: usize = 64 * 1024;
/// What has to follow a match's start for it to be sure to be seen whole.
const OVERLAP: usize = 16 * 1024;
/// What is kept of the text before, for keywords and word boundaries.
const BEFORE: usize = 2 * REACH;

/// A text that is coming in.
#[derive(Debug, Default)]
pub(super) struct Window {
    held: Vec<u8>,
    /// How much of `held` has already gone out and is there as context only.
    before: usize,
}

impl Window {
    /// Takes the next bytes, and passes on what is sure.
    ///
    /// # Errors
    /// A match that is longer than a window.
    pub(super) fn push<S: Sink>(
        &mut self,
        mut bytes: &[u8],
        escape: Escape,
        words: &Words,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(WINDOW - self.held.len()));
            self.held.extend_from_slice(now);
            bytes = later;
            if self.held.len() == WINDOW {
                self.look(escape, false, words, engine, sink)?;
            }
        }
        Ok(())
    }

    /// The text is complete.
    ///
    /// # Errors
    /// As [`Window::push`].
    pub(super) fn finish<S: Sink>(
        &mut self,
        escape: Escape,
        words: &Words,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        let done = self.look(escape, true, words, engine, sink);
        self.held.clear();
        self.before = 0;
        done
    }

    fn look<S: Sink>(
        &mut self,
        escape: Escape,
        last: bool,
        words: &Words,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        let mut decoded = Decoded::default();
        escape.decode(&self.held, last, &mut decoded).map_err(|_bad| Withheld::invalid("a bad escape in a string"))?;
        let Decoded { text, map, read } = &decoded;
        engine.find(text, words);
        let mut sure = if last { text.len() } else { text.len() - OVERLAP.min(text.len()) };
        if let Some(hit) = engine.hits().iter().find(|hit| !last && hit.start < sure && sure < hit.end) {
            sure = hit.start;
        }
        let hits: Vec<_> = engine.hits().iter().copied().filter(|hit| hit.end <= sure).collect();
        let mut at = self.before;
        let sure_raw = if last { self.held.len() } else { map.start(sure).min(*read) };
        if !last && sure_raw <= at {
            return Err(Withheld::too_large("a value that a detector found"));
        }
        for hit in hits {
            let start = map.start(hit.start).max(at);
            let end = map.end(hit.end).min(self.held.len());
            if end <= at {
                continue;
            }
            sink.keep(&self.held[at..start]);
            sink.skip(end - start);
            engine.put_found(&hit, &text[hit.start..hit.end], escape, sink);
            engine.count(Tally::Rule(hit.rule));
            at = end;
        }
        sink.keep(&self.held[at..sure_raw]);
        // Context begins where a character does.
        let context = map.start(sure.saturating_sub(BEFORE)).min(sure_raw);
        self.held.drain(..context);
        self.before = sure_raw - context;
        Ok(())
    }
}
