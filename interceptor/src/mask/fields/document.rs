//! A form's value while it may be a document. JSON in it is seen through, as in a JSON string.

use super::super::Withheld;
use super::super::edit::{Edits, Sink};
use super::super::engine::{Engine, apply_edits};
use super::super::escape::{Decoded, Escape};
use super::super::json::Json;
use super::field::Field;

/// The most that is held of one.
const LARGEST: usize = 1024 * 1024;
/// Behind so many blanks a value is taken for a document, whatever it is.
const BLANKS: usize = 64;

/// A value, as it is written, that is coming in.
#[derive(Debug, Default)]
pub(super) struct Document {
    held: Vec<u8>,
    /// Whether it starts as a document does.
    likely: bool,
}

impl Document {
    /// Takes the next bytes. Gives all that came once it is known to be no document.
    ///
    /// # Errors
    /// One that is too large.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Withheld> {
        self.held.extend_from_slice(bytes);
        if !self.likely {
            match first(&self.held[..self.held.len().min(BLANKS)]) {
                None if self.held.len() < BLANKS => return Ok(None),
                // A byte order mark and the separator of JSON text sequences may stand before it.
                None | Some(b'{' | b'[' | b'"' | 0xef | 0x1e) => self.likely = true,
                Some(_) => return Ok(Some(std::mem::take(&mut self.held))),
            }
        }
        if self.held.len() > LARGEST { Err(Withheld::too_large("a document in a field")) } else { Ok(None) }
    }

    /// The value is complete: `field` is told, if it is no document. Says whether a path led into it.
    ///
    /// # Errors
    /// What is too deep or large in it.
    pub(super) fn end<S: Sink>(self, field: &mut Field, engine: &mut Engine, sink: &mut S) -> Result<bool, Withheld> {
        if self.likely {
            let mut decoded = Decoded::default();
            // Only JSON has escapes that can be bad.
            let _ = Escape::Form.decode(&self.held, true, &mut decoded);
            let before = engine.counts().clone();
            let mut edits = Edits::default();
            match Json::in_field(engine, field.of.words).push(&decoded.text, true, engine, &mut edits) {
                Ok(_) => {
                    apply_edits(&edits, &self.held, &decoded.map, Escape::Form, sink);
                    return Ok(engine.counts().by_paths() > before.by_paths());
                }
                Err(Withheld::Invalid(_)) => engine.restore(before),
                Err(withheld) => return Err(withheld),
            }
        }
        field.push(&self.held, Escape::Form, engine, sink)?;
        Ok(false)
    }
}

/// The first byte that isn't a blank, which may be written as an escape; none if it isn't here yet.
fn first(mut raw: &[u8]) -> Option<u8> {
    loop {
        let (byte, rest) = match raw {
            [] | [b'%'] | [b'%', _] => return None,
            [b'%', high, low, rest @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => (high * 16 + low, rest),
                    _ => return Some(b'%'),
                }
            }
            [byte, rest @ ..] => (*byte, rest),
        };
        if !matches!(byte, b'+' | b' ' | b'\t' | b'\n' | b'\r') {
            return Some(byte);
        }
        raw = rest;
    }
}
