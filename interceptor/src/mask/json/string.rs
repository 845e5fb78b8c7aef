//! Strings as values: masked by a path, seen through if they hold a document, or given to the detectors. Those too long
//! to be held are looked at through a window.

use super::super::Withheld;
use super::super::edit::{Edits, Sink};
use super::super::engine::{Engine, apply_edits};
use super::super::escape::Escape;
use super::super::path::{Choice, StateId};
use super::super::window::WINDOW;
use super::token::{self, End};
use super::{Expect, Frame, HELD, Json, Piece, Rest, decode};
use crate::config::Strategy;

/// How many strings in strings are seen through.
const MOST_WITHIN: u8 = 4;

impl Json {
    pub(super) fn string<S: Sink>(
        &mut self,
        choice: Option<Choice>,
        state: StateId,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<bool, Withheld> {
        let start = piece.at + 1;
        let end = self.string_end(piece, HELD)?;
        let length = end.map_or(piece.bytes.len(), |(end, _)| end).saturating_sub(start);
        let plain = self.whole.is_some() || (choice.is_none() && engine.plan.is_blind());
        // Judged by as much as is always here.
        let long = length > WINDOW;
        if long && (plain || choice.is_some() || !may_hold_document(&piece.bytes[start..start + WINDOW])) {
            self.commit_prefix(piece, sink)?;
            self.begin_rest(choice, plain, piece, engine, sink)?;
            return Ok(true);
        }
        let Some((end, escaped)) = end else {
            return if length > HELD { Err(Withheld::too_large("a document in a string")) } else { Ok(false) };
        };
        if length > HELD {
            return Err(Withheld::too_large("a document in a string"));
        }
        self.commit_prefix(piece, sink)?;
        if !plain {
            piece.at = start;
            self.content(choice, state, end, escaped, piece, engine, sink)?;
        }
        piece.at = end + 1;
        self.end_value(piece, engine, sink)?;
        Ok(true)
    }

    /// The content of a string, from `piece.at` to `end`.
    #[expect(clippy::too_many_arguments, reason = "what is known of a string's content")]
    fn content<S: Sink>(
        &mut self,
        choice: Option<Choice>,
        state: StateId,
        end: usize,
        escaped: bool,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        let raw = &piece.bytes[piece.at..end];
        if let Some(choice) = choice {
            let (text, _) = decode(raw, escaped, &mut self.decoded)?;
            let bytes = &piece.bytes[piece.from..piece.at];
            // INVARIANT: a value that a path chooses is neither held nor dropped, so it goes out.
            sink.keep(bytes);
            sink.skip(raw.len());
            engine.put_chosen(choice, text, Escape::Json, sink);
            piece.at = end;
            piece.from = end;
            return Ok(());
        }
        let mut document = may_hold_document(raw);
        if document && self.within == MOST_WITHIN {
            if engine.plan.names_paths() {
                return Err(Withheld::TooDeep);
            }
            document = false;
        }
        if !document && !engine.detects() {
            return Ok(());
        }
        let mut decoded = std::mem::take(&mut self.decoded);
        let (text, map) = decode(raw, escaped, &mut decoded)?;
        if document && let Some(edits) = self.see_through(text, state, engine)? {
            if !edits.is_empty() {
                self.flush(piece, sink)?;
                apply_edits(&edits, raw, map, Escape::Json, sink);
                piece.from = end;
            }
        } else if engine.detects() {
            engine.find(text, &self.words);
            if !engine.hits().is_empty() {
                self.flush(piece, sink)?;
                engine.apply_hits(text, raw, map, Escape::Json, false, sink);
                piece.from = end;
            }
        }
        self.decoded = decoded;
        Ok(())
    }

    /// What is masked in a string that holds a document, or several as JSON Lines; none if it holds none.
    fn see_through(&self, text: &[u8], state: StateId, engine: &mut Engine) -> Result<Option<Edits>, Withheld> {
        let state = engine.automaton.within(state)?;
        let mut edits = Edits::default();
        let before = engine.counts().clone();
        let frame = Frame { state, words: self.words, ..Frame::default() };
        let mut inner = Json::starting(frame, true, self.within + 1, self.judged);
        match inner.push(text, true, engine, &mut edits) {
            Ok(_) => Ok(Some(edits)),
            // A text in brackets.
            Err(Withheld::Invalid(_)) => {
                engine.restore(before);
                Ok(None)
            }
            Err(withheld) => Err(withheld),
        }
    }

    fn begin_rest<S: Sink>(
        &mut self,
        choice: Option<Choice>,
        plain: bool,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        self.resume = None;
        piece.at += 1;
        self.expect = Expect::Rest(match choice {
            Some(choice) => {
                self.flush(piece, sink)?;
                // A part of it, or a token for it, would need all of it.
                engine.put_chosen(Choice { strategy: Strategy::Redact, ..choice }, &[], Escape::Json, sink);
                Rest::Skip
            }
            None if plain || !engine.detects() => Rest::Copy,
            None => {
                self.flush(piece, sink)?;
                Rest::Detect
            }
        });
        Ok(())
    }

    /// Reads on in a long string, up to its end or that of the piece.
    pub(super) fn rest<S: Sink>(
        &mut self,
        rest: Rest,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<bool, Withheld> {
        let (end, complete) = match token::string(piece.bytes, piece.at, false) {
            End::At(end, _) => (end, true),
            End::Open(end, _) => (end, false),
            End::Bad => return Err(Withheld::invalid("a control character in a string")),
        };
        let content = &piece.bytes[piece.at..end];
        piece.at = end;
        match rest {
            Rest::Copy => {}
            Rest::Skip => {
                sink.skip(content.len());
                piece.from = end;
            }
            Rest::Detect => {
                self.window.push(content, Escape::Json, &self.words, engine, sink)?;
                piece.from = end;
            }
        }
        if complete {
            if rest == Rest::Detect {
                self.window.finish(Escape::Json, &self.words, engine, sink)?;
            }
            piece.at += 1;
            self.end_value(piece, engine, sink)?;
        }
        Ok(complete)
    }
}

/// Whether a string that starts like this may be an object or an array, or a string that is one.
fn may_hold_document(raw: &[u8]) -> bool {
    match significant(raw) {
        Some((b'{', rest)) => matches!(significant(rest), None | Some((b'"' | b'}' | b'\\', _))),
        Some((b'[', rest)) => matches!(
            significant(rest),
            None | Some((b'"' | b'\\' | b'{' | b'[' | b']' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n', _))
        ),
        Some((b'"', rest)) => matches!(significant(rest), None | Some((b'{' | b'[' | b'"' | b'\\', _))),
        // `\u007b`
        Some((b'\\', _)) => true,
        _ => false,
    }
}

/// The first byte that is neither a blank nor of a byte order mark, and what follows it. Blanks may be written as escapes,
/// and so may be the quote of the first member.
fn significant(mut raw: &[u8]) -> Option<(u8, &[u8])> {
    loop {
        raw = match raw {
            [b' ', rest @ ..] | [b'\\', b'n' | b'r' | b't', rest @ ..] | [0xef, 0xbb, 0xbf, rest @ ..] => rest,
            [b'\\', quote @ b'"', rest @ ..] => return Some((*quote, rest)),
            [first, rest @ ..] => return Some((*first, rest)),
            [] => return None,
        };
    }
}
