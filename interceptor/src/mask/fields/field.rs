//! A field: how its name says that it is masked, and the value that is coming in.

use super::super::Withheld;
use super::super::detector::Words;
use super::super::edit::Sink;
use super::super::engine::Engine;
use super::super::escape::{Decoded, Escape};
use super::super::path::Choice;
use super::super::window::{WINDOW, Window};
use super::document::Document;
use crate::config::Strategy;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Column {
    pub(super) choice: Option<Choice>,
    pub(super) words: Words,
}

/// The value that is coming in.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub(super) of: Column,
    /// A value that a path chose, as it is written.
    held: Vec<u8>,
    /// Whether it is too long to be held, and was replaced.
    replaced: bool,
    /// A form's value that may be a document; none where no path could lead into it.
    pub(super) document: Option<Document>,
    window: Window,
}

/// How the field of this name is masked. A form's is also by the words of which frameworks make names: `user[mail]`,
/// `user.mail`, `mail[0]`.
///
/// # Errors
/// Under paths, a name that isn't in UTF-8, so that it could be any; in a form, one with a quote, which may be JSON.
pub(super) fn column(name: &[u8], escape: Escape, engine: &Engine) -> Result<Column, Withheld> {
    let mut decoded = Decoded::default();
    // Only JSON has escapes that can be bad.
    let _ = escape.decode(name, true, &mut decoded);
    let words = engine.words_in(&decoded.text);
    if !engine.plan.names_paths() {
        return Ok(Column { choice: None, words });
    }
    let Ok(text) = std::str::from_utf8(&decoded.text) else {
        return Err(Withheld::invalid("a name that isn't in UTF-8"));
    };
    let paths = engine.automaton.paths();
    let mut choice = paths.named(text.trim());
    if escape == Escape::Form {
        if text.contains('"') {
            return Err(Withheld::invalid("a quote in the name of a field"));
        }
        let words = text.split(['[', ']', '.']).map(str::trim).filter(|word| !word.is_empty());
        choice = choice.max(words.filter_map(|word| paths.named(word)).max());
    }
    Ok(Column { choice, words })
}

impl Field {
    pub(super) fn push<S: Sink>(
        &mut self,
        bytes: &[u8],
        escape: Escape,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        if let Some(document) = &mut self.document {
            let Some(text) = document.push(bytes)? else { return Ok(()) };
            self.document = None;
            return self.push(&text, escape, engine, sink);
        }
        let Some(choice) = self.of.choice else {
            if engine.detects() {
                return self.window.push(bytes, escape, &self.of.words, engine, sink);
            }
            sink.keep(bytes);
            return Ok(());
        };
        sink.skip(bytes.len());
        if self.replaced {
            return Ok(());
        }
        if self.held.len() + bytes.len() > WINDOW {
            self.held.clear();
            self.replaced = true;
            let strategy = choice.strategy.max(Strategy::Redact);
            engine.put_chosen(Choice { strategy, ..choice }, &[], escape, sink);
            return Ok(());
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn end<S: Sink>(&mut self, escape: Escape, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        match self.of.choice {
            Some(choice) if !self.replaced && !self.held.is_empty() => {
                let mut decoded = Decoded::default();
                let _ = escape.decode(&self.held, true, &mut decoded);
                engine.put_chosen(choice, &decoded.text, escape, sink);
            }
            None if engine.detects() => self.window.finish(escape, &self.of.words, engine, sink)?,
            _ => {}
        }
        self.held.clear();
        self.replaced = false;
        self.document = None;
        self.of = Column::default();
        Ok(())
    }
}
