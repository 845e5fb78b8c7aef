//! Bodies of named fields: forms (WHATWG URL, application/x-www-form-urlencoded) and CSV (RFC 4180), whose first row
//! names the columns. A field is masked by name if a path ends in it, and by detectors else; a document in a form's field
//! is seen through. Where there are paths, rows whose first one names no such column are withheld: it may be no row of
//! names, or its separator another one. So are forms without such a field, which may be another thing that says it is one.

use super::Withheld;
use super::edit::Sink;
use super::engine::Engine;
use super::escape::Escape;
use super::places::Held;
use super::window::WINDOW;
use document::Document;
use field::{Column, Field, column};

mod document;
mod field;

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
    /// The first row, or the beginning of a form, as it goes on, until it is known to name what is masked.
    unseen: Held,
    /// Whether that is known, or needn't be.
    named: bool,
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

impl Fields {
    /// A form.
    pub(super) fn form() -> Self {
        Self::new(Format::Form, Place::Name)
    }

    /// A URL's query, which is written like a form but needs to have none of the masked fields.
    pub(super) fn query() -> Self {
        Self { named: true, ..Self::form() }
    }

    pub(super) fn separated(tabs: bool) -> Self {
        Self::new(Format::Heading { tabs }, Place::Start)
    }

    fn new(format: Format, place: Place) -> Self {
        Self {
            format,
            place,
            first: Vec::new(),
            unseen: Held::default(),
            named: false,
            columns: Vec::new(),
            column: 0,
            name: Vec::new(),
            field: Field::default(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// A name or first row that is too large, a first row that names nothing that is masked, a row that is longer than the
    /// first one; a form that has nothing that is masked, as far as can be held.
    pub(super) fn push<S: Sink>(&mut self, bytes: &[u8], engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        if let Format::Heading { tabs } = self.format {
            return self.heading(tabs, bytes, false, engine, sink);
        }
        let mut at = 0;
        while at < bytes.len() {
            at += match self.format {
                Format::Names { .. } => self.step_unseen(&bytes[at..], engine, sink)?,
                Format::Form if !self.named && engine.plan.names_paths() => {
                    self.step_unseen(&bytes[at..], engine, sink)?
                }
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
            Format::Form => {
                let mut unseen = std::mem::take(&mut self.unseen);
                self.end_form(engine, &mut unseen)?;
                self.unseen = unseen;
                self.show(engine, sink)
            }
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

    /// The last field may be a name without a value.
    fn end_form<S: Sink>(&mut self, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        if self.place == Place::Name {
            self.end_name(engine)?;
            self.field.of = Column::default();
            self.field.document = None;
            let name = std::mem::take(&mut self.name);
            self.field.push(&name, Escape::Form, engine, sink)?;
        }
        self.end_value(engine, sink)
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
        let end = memchr::memchr2(b'\n', b'\r', &self.first[from..]).map(|end| from + end);
        // By its own length, whatever came together with it.
        if end.unwrap_or(self.first.len()) > WINDOW {
            return Err(Withheld::too_large("the first row"));
        }
        if !last && end.is_none() {
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
        self.unseen.keep(&first[..first.len() - names.len()]);
        self.push(names, engine, sink)
    }

    /// As [`Fields::step`], in the first row, or in a form before a field that is masked: what it gives is held until then.
    fn step_unseen<S: Sink>(&mut self, bytes: &[u8], engine: &mut Engine, sink: &mut S) -> Result<usize, Withheld> {
        let mut unseen = std::mem::take(&mut self.unseen);
        let taken = self.step(bytes, engine, &mut unseen)?;
        self.unseen = unseen;
        if self.unseen.len() > LARGEST_ROW {
            let is_form = self.format == Format::Form;
            return Err(if is_form { Withheld::NoColumn } else { Withheld::too_large("the first row") });
        }
        if self.named || matches!(self.format, Format::Rows { .. }) {
            self.show(engine, sink)?;
        }
        Ok(taken)
    }

    /// What was held is complete, and goes on if it names what is masked.
    fn show<S: Sink>(&mut self, engine: &Engine, sink: &mut S) -> Result<(), Withheld> {
        let is_named = self.named || self.columns.iter().any(|column| column.choice.is_some());
        if !is_named && engine.plan.names_paths() && !self.unseen.is_empty() {
            return Err(Withheld::NoColumn);
        }
        std::mem::take(&mut self.unseen).give(sink);
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
            self.end_name(engine)?;
            let of = std::mem::take(&mut self.field.of);
            let document = self.field.document.take();
            let name = std::mem::take(&mut self.name);
            // A name may be something to mask as well.
            self.field.push(&name, Escape::Form, engine, sink)?;
            self.field.end(Escape::Form, engine, sink)?;
            sink.keep(&[end]);
            if end == b'=' {
                self.field.of = of;
                self.field.document = document;
                self.place = Place::Plain;
            }
            return Ok(length + 1);
        }
        if bytes[0] == b'&' {
            self.end_value(engine, sink)?;
            sink.keep(b"&");
            self.place = Place::Name;
            return Ok(1);
        }
        let length = memchr::memchr(b'&', bytes).unwrap_or(bytes.len());
        self.field.push(&bytes[..length], Escape::Form, engine, sink)?;
        Ok(length)
    }

    /// The name of a form's field is complete: how the field is masked.
    fn end_name(&mut self, engine: &Engine) -> Result<(), Withheld> {
        self.field.of = column(&self.name, Escape::Form, engine)?;
        let is_chosen = self.field.of.choice.is_some();
        self.named |= is_chosen;
        self.field.document = (!is_chosen && engine.plan.names_paths()).then(Document::default);
        Ok(())
    }

    /// The value of a form's field is complete. One in whose document something was masked is as good as a named one.
    fn end_value<S: Sink>(&mut self, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        let is_masked = match self.field.document.take() {
            Some(document) => document.end(&mut self.field, engine, sink)?,
            None => false,
        };
        self.named |= is_masked;
        self.field.end(Escape::Form, engine, sink)
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
                return Err(Withheld::too_large("the first row"));
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
        self.columns.push(column(&name, escape, engine)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
