//! Bodies of named fields: forms (WHATWG URL, application/x-www-form-urlencoded) and CSV (RFC 4180), whose first row
//! names the columns. A field is masked by name if a path ends in it, and by detectors else. Where there are paths, rows
//! whose first one names no such column are withheld: it may be no row of names, or its separator another one.

use super::Withheld;
use super::detector::Words;
use super::edit::Sink;
use super::engine::Engine;
use super::escape::{Decoded, Escape};
use super::path::Choice;
use super::window::{WINDOW, Window};
use crate::config::Strategy;

/// The most that is held of the first row.
const LARGEST_ROW: usize = 4 * WINDOW;
/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A body of fields.
#[derive(Debug)]
pub(super) struct Fields {
    format: Format,
    place: Place,
    /// The first row, until its separator can be told.
    first: Vec<u8>,
    /// The first row as it goes on, until it is known to name what is masked.
    unseen: Vec<u8>,
    columns: Vec<Column>,
    column: usize,
    /// The current name, as it is written.
    name: Vec<u8>,
    field: Field,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Form,
    /// Whose separator is a tab, or not known yet.
    Heading {
        tabs: bool,
    },
    /// The first row is being read.
    Names {
        separator: u8,
    },
    Rows {
        separator: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a field's first byte.
    Start,
    /// In a form's name.
    Name,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field: it ends, or the quote is one of two.
    Quote,
}

#[derive(Debug, Clone, Copy, Default)]
struct Column {
    choice: Option<Choice>,
    words: Words,
}

/// The value that is coming in.
#[derive(Debug, Default)]
struct Field {
    of: Column,
    /// A value that a path chose, as it is written.
    held: Vec<u8>,
    /// Whether it is too long to be held, and was replaced.
    replaced: bool,
    window: Window,
}

impl Fields {
    pub(super) fn form() -> Self {
        Self::new(Format::Form, Place::Name)
    }

    pub(super) fn separated(tabs: bool) -> Self {
        Self::new(Format::Heading { tabs }, Place::Start)
    }

    fn new(format: Format, place: Place) -> Self {
        Self {
            format,
            place,
            first: Vec::new(),
            unseen: Vec::new(),
            columns: Vec::new(),
            column: 0,
            name: Vec::new(),
            field: Field::default(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// A name or first row that is too large, a first row that names nothing that is masked, or a row that is longer than
    /// the first one.
    pub(super) fn push<S: Sink>(&mut self, bytes: &[u8], engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        if let Format::Heading { tabs } = self.format {
            return self.heading(tabs, bytes, false, engine, sink);
        }
        let mut at = 0;
        while at < bytes.len() {
            at += match self.format {
                Format::Names { .. } => self.step_unseen(&bytes[at..], engine, sink)?,
                _ => self.step(&bytes[at..], engine, sink)?,
            };
        }
        Ok(())
    }

    /// The body is complete.
    ///
    /// # Errors
    /// As [`Fields::push`].
    pub(super) fn finish<S: Sink>(&mut self, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        if let Format::Heading { tabs } = self.format {
            self.heading(tabs, &[], true, engine, sink)?;
        }
        match self.format {
            Format::Form if self.place == Place::Name => {
                // A name without a value.
                self.end_name(engine);
                self.field.of = Column::default();
                let name = std::mem::take(&mut self.name);
                self.field.push(&name, Escape::Form, engine, sink)?;
                self.field.end(Escape::Form, engine, sink)
            }
            Format::Form => self.field.end(Escape::Form, engine, sink),
            Format::Names { .. } => {
                let mut unseen = std::mem::take(&mut self.unseen);
                self.end_last(engine, &mut unseen)?;
                self.unseen = unseen;
                self.end_column(self.escape(), engine)?;
                self.show(engine, sink)
            }
            _ => self.end_last(engine, sink),
        }
    }

    /// The last row may end without a line feed: then its last quote waited for what follows.
    fn end_last<S: Sink>(&mut self, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        self.field.end(self.escape(), engine, sink)?;
        if self.place == Place::Quote {
            sink.keep(b"\"");
        }
        Ok(())
    }

    /// Holds the first row, then tells what separates its fields.
    fn heading<S: Sink>(
        &mut self,
        tabs: bool,
        bytes: &[u8],
        last: bool,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        let from = self.first.len();
        self.first.extend_from_slice(bytes);
        if !last && memchr::memchr2(b'\n', b'\r', &self.first[from..]).is_none() {
            if self.first.len() > WINDOW {
                return Err(Withheld::too_large("the first row"));
            }
            return Ok(());
        }
        let row = self.first.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
        let separator = if tabs {
            b'\t'
        } else {
            let mut quoted = false;
            let mut counts = [(b',', 0_usize), (b';', 0), (b'\t', 0)];
            for &byte in row {
                quoted ^= byte == b'"';
                if let Some((_, count)) = counts.iter_mut().find(|(separator, _)| *separator == byte && !quoted) {
                    *count += 1;
                }
            }
            // Of as many commas as others, the comma.
            counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(separator, _)| separator)
        };
        self.format = Format::Names { separator };
        let first = std::mem::take(&mut self.first);
        // The mark may stand before a quote, and is no part of the name.
        let names = first.strip_prefix(MARK).unwrap_or(&first);
        self.unseen.extend_from_slice(&first[..first.len() - names.len()]);
        self.push(names, engine, sink)
    }

    /// As [`Fields::step`], in the first row: what it gives is held until the row is complete.
    fn step_unseen<S: Sink>(&mut self, bytes: &[u8], engine: &mut Engine, sink: &mut S) -> Result<usize, Withheld> {
        let mut unseen = std::mem::take(&mut self.unseen);
        let taken = self.step(bytes, engine, &mut unseen)?;
        self.unseen = unseen;
        if self.unseen.len() > LARGEST_ROW {
            return Err(Withheld::too_large("the first row"));
        }
        if matches!(self.format, Format::Rows { .. }) {
            self.show(engine, sink)?;
        }
        Ok(taken)
    }

    /// The first row is complete, and goes on if it names what is masked.
    fn show<S: Sink>(&mut self, engine: &Engine, sink: &mut S) -> Result<(), Withheld> {
        let is_unnamed = self.columns.iter().all(|column| column.choice.is_none());
        if is_unnamed && engine.plan.names_paths() && !self.unseen.is_empty() {
            return Err(Withheld::NoColumn);
        }
        sink.put(&std::mem::take(&mut self.unseen));
        Ok(())
    }

    fn escape(&self) -> Escape {
        match (self.format, self.place) {
            (Format::Form, _) => Escape::Form,
            (_, Place::Quoted | Place::Quote) => Escape::Quoted,
            _ => Escape::Plain,
        }
    }

    /// Reads up to the next byte that means something; at least one.
    fn step<S: Sink>(&mut self, bytes: &[u8], engine: &mut Engine, sink: &mut S) -> Result<usize, Withheld> {
        if self.format == Format::Form {
            return self.step_form(bytes, engine, sink);
        }
        let separator = match self.format {
            Format::Names { separator } | Format::Rows { separator } => separator,
            _ => b',',
        };
        match (self.place, bytes[0]) {
            (Place::Start, b'"') => {
                self.begin_field()?;
                sink.keep(b"\"");
                self.place = Place::Quoted;
                Ok(1)
            }
            (Place::Start, _) => {
                self.begin_field()?;
                self.place = Place::Plain;
                Ok(0)
            }
            (Place::Plain, byte) if byte == separator || matches!(byte, b'\n' | b'\r') => {
                self.end_field(Escape::Plain, byte, engine, sink)?;
                Ok(1)
            }
            (Place::Plain, _) => {
                let length = memchr::memchr3(separator, b'\n', b'\r', bytes).unwrap_or(bytes.len());
                self.take(&bytes[..length], Escape::Plain, engine, sink)?;
                Ok(length)
            }
            (Place::Quoted, b'"') => {
                self.place = Place::Quote;
                Ok(1)
            }
            (Place::Quoted, _) => {
                let length = memchr::memchr(b'"', bytes).unwrap_or(bytes.len());
                self.take(&bytes[..length], Escape::Quoted, engine, sink)?;
                Ok(length)
            }
            (Place::Quote, b'"') => {
                self.take(b"\"\"", Escape::Quoted, engine, sink)?;
                self.place = Place::Quoted;
                Ok(1)
            }
            (Place::Quote, byte) if byte == separator || matches!(byte, b'\n' | b'\r') => {
                self.end_quoted(byte, engine, sink)?;
                Ok(1)
            }
            (Place::Quote, _) => Err(Withheld::invalid("a character behind a quoted field")),
            (Place::Name, _) => Err(Withheld::invalid("a field without a name")),
        }
    }

    fn step_form<S: Sink>(&mut self, bytes: &[u8], engine: &mut Engine, sink: &mut S) -> Result<usize, Withheld> {
        let length = memchr::memchr2(b'&', b'=', bytes).unwrap_or(bytes.len());
        if self.place == Place::Name {
            if self.name.len() + length > WINDOW {
                return Err(Withheld::too_large("a field's name"));
            }
            self.name.extend_from_slice(&bytes[..length]);
            let Some(&end) = bytes.get(length) else { return Ok(length) };
            self.end_name(engine);
            let of = std::mem::take(&mut self.field.of);
            let name = std::mem::take(&mut self.name);
            // A name may be something to mask as well.
            self.field.push(&name, Escape::Form, engine, sink)?;
            self.field.end(Escape::Form, engine, sink)?;
            sink.keep(&[end]);
            if end == b'=' {
                self.field.of = of;
                self.place = Place::Plain;
            }
            return Ok(length + 1);
        }
        if bytes[0] == b'&' {
            self.field.end(Escape::Form, engine, sink)?;
            sink.keep(b"&");
            self.place = Place::Name;
            return Ok(1);
        }
        let length = memchr::memchr(b'&', bytes).unwrap_or(bytes.len());
        self.field.push(&bytes[..length], Escape::Form, engine, sink)?;
        Ok(length)
    }

    /// The name of a form's field is complete: how the field is masked.
    fn end_name(&mut self, engine: &Engine) {
        self.field.of = column(&self.name, Escape::Form, engine);
    }

    fn begin_field(&mut self) -> Result<(), Withheld> {
        if matches!(self.format, Format::Rows { .. }) {
            let masked = self.columns.iter().any(|column| column.choice.is_some());
            self.field.of = match self.columns.get(self.column) {
                Some(column) => *column,
                None if masked => return Err(Withheld::invalid("a row with more fields than the first one")),
                None => Column::default(),
            };
        }
        Ok(())
    }

    fn take<S: Sink>(
        &mut self,
        bytes: &[u8],
        escape: Escape,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        if matches!(self.format, Format::Names { .. }) {
            if self.name.len() + bytes.len() > WINDOW {
                return Err(Withheld::too_large("a column's name"));
            }
            self.name.extend_from_slice(bytes);
        }
        self.field.push(bytes, escape, engine, sink)
    }

    fn end_quoted<S: Sink>(&mut self, byte: u8, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        self.field.end(Escape::Quoted, engine, sink)?;
        sink.keep(b"\"");
        self.end_row_or_field(Escape::Quoted, byte, engine, sink)
    }

    fn end_field<S: Sink>(
        &mut self,
        escape: Escape,
        byte: u8,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        self.field.end(escape, engine, sink)?;
        self.end_row_or_field(escape, byte, engine, sink)
    }

    fn end_row_or_field<S: Sink>(
        &mut self,
        escape: Escape,
        byte: u8,
        engine: &Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        sink.keep(&[byte]);
        self.place = Place::Start;
        let row = matches!(byte, b'\n' | b'\r');
        if let Format::Names { separator } = self.format {
            self.end_column(escape, engine)?;
            if row {
                self.format = Format::Rows { separator };
            }
        }
        self.column = if row { 0 } else { self.column + 1 };
        Ok(())
    }

    /// The name of a column is complete.
    fn end_column(&mut self, escape: Escape, engine: &Engine) -> Result<(), Withheld> {
        let name = std::mem::take(&mut self.name);
        // Behind a blank some take it for the beginning of a quoted name, and find other columns than we do.
        if escape == Escape::Plain && name.contains(&b'"') && engine.plan.names_paths() {
            return Err(Withheld::invalid("a quote in the name of a column"));
        }
        self.columns.push(column(&name, escape, engine));
        Ok(())
    }
}

/// How the field of this name is masked.
fn column(name: &[u8], escape: Escape, engine: &Engine) -> Column {
    let mut decoded = Decoded::default();
    // Only JSON has escapes that can be bad.
    let _ = escape.decode(name, true, &mut decoded);
    let text = String::from_utf8_lossy(&decoded.text);
    Column { choice: engine.automaton.paths().named(text.trim()), words: engine.words_in(&decoded.text) }
}

impl Field {
    fn push<S: Sink>(
        &mut self,
        bytes: &[u8],
        escape: Escape,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
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

    fn end<S: Sink>(&mut self, escape: Escape, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
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
        self.of = Column::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
