//! Names of members: which state and which detectors they lead to, and what in them is itself to be masked.

use std::ops::Range;

use super::super::Withheld;
use super::super::detector::Words;
use super::super::edit::{Edits, Offsets, Sink};
use super::super::engine::Engine;
use super::super::escape::Escape;
use super::super::path::{DEAD, Next};
use super::{Expect, Json, LONGEST_NAME, Piece, Target, decode};

impl Json {
    pub(super) fn name<S: Sink>(
        &mut self,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<bool, Withheld> {
        let start = piece.at + 1;
        let Some((end, escaped)) = self.string_end(piece, LONGEST_NAME)? else {
            let length = piece.bytes.len() - start;
            return if length > LONGEST_NAME { Err(Withheld::too_large("a member's name")) } else { Ok(false) };
        };
        if end - start > LONGEST_NAME {
            return Err(Withheld::too_large("a member's name"));
        }
        if self.whole.is_none() {
            let raw = &piece.bytes[start..end];
            let detects = engine.detects();
            if self.top.state == DEAD && !detects {
                self.member = Next::default();
            } else {
                let mut decoded = std::mem::take(&mut self.decoded);
                let (text, map) = decode(raw, escaped, &mut decoded)?;
                self.member = if self.top.state == DEAD {
                    Next::default()
                } else {
                    if !text.is_ascii() && std::str::from_utf8(text).is_err() {
                        // In another charset it could be any.
                        return Err(Withheld::invalid("a name that isn't in UTF-8"));
                    }
                    let id = engine.automaton.paths().name(text);
                    engine.automaton.member(self.top.state, id)?
                };
                if detects && let Some(words) = self.names.words(raw) {
                    self.words = words;
                } else if detects {
                    self.words = engine.words_in(text);
                    engine.find(text, &Words::default());
                    if engine.hits().is_empty() {
                        self.names.keep(raw, self.words);
                    } else {
                        self.replace_name(start..end, piece, text, map, engine, sink)?;
                    }
                }
                self.decoded = decoded;
            }
        }
        piece.at = end + 1;
        self.expect = Expect::Colon;
        Ok(true)
    }

    /// Replaces what was found in a name.
    fn replace_name<S: Sink>(
        &mut self,
        name: Range<usize>,
        piece: &mut Piece<'_>,
        text: &[u8],
        map: &Offsets,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        let raw = &piece.bytes[name.clone()];
        piece.at = name.start;
        self.flush(piece, sink)?;
        piece.from = name.end;
        if self.target == Target::Prefix {
            let mut edits = Edits::default();
            engine.apply_hits(text, raw, map, Escape::Json, true, &mut edits);
            let start = self.prefix.bytes.len();
            self.prefix.bytes.extend_from_slice(raw);
            self.prefix.name = Some((start..start + raw.len(), edits));
        } else {
            engine.apply_hits(text, raw, map, Escape::Json, true, sink);
        }
        Ok(())
    }
}

/// Names in which nothing is to be masked, as they are written, with the detectors that they call for. The members of
/// records have the same few names.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(Box<[u8]>, Words)>);

impl Names {
    const SLOTS: usize = 64;
    const LONGEST: usize = 64;

    fn words(&self, name: &[u8]) -> Option<Words> {
        self.0.get(Self::slot(name)).filter(|(known, _)| **known == *name).map(|(_, words)| *words)
    }

    fn keep(&mut self, name: &[u8], words: Words) {
        if name.len() <= Self::LONGEST {
            self.0.resize(Self::SLOTS, Default::default());
            self.0[Self::slot(name)] = (name.into(), words);
        }
    }

    fn slot(name: &[u8]) -> usize {
        let ends = usize::from(name.first().copied().unwrap_or(0)) * 7 + usize::from(name.last().copied().unwrap_or(0));
        (ends + name.len() * 13) % Self::SLOTS
    }
}
