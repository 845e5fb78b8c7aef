//! What is wrong with a configuration: where, what, and what was expected. Printed as one line each
//! (`file:line:column: message`), or by miette with the place underlined.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// Why a configuration, or a file that belongs to it, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder can't be read.
    #[error("can't read `{}`: {why}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// Somebody besides root could have written it.
    #[error("`{}` isn't trusted: {why}", path.display())]
    Untrusted {
        /// The file or folder, or the one above it that isn't trusted.
        path: PathBuf,
        /// Why, and how to mend it.
        why: String,
    },
    /// What the file says can't be used.
    #[error("{0}")]
    Invalid(Mistakes),
}

impl ConfigError {
    /// The mistakes in the text, in the order of the file; none where the file couldn't be read at all.
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            ConfigError::Invalid(mistakes) => &mistakes.0,
            ConfigError::Read { .. } | ConfigError::Untrusted { .. } => &[],
        }
    }

    fn only(&self) -> Option<&Mistake> {
        match self.mistakes() {
            [one] => Some(one),
            _ => None,
        }
    }
}

impl Diagnostic for ConfigError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.only().and_then(Diagnostic::help)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.only().and_then(Diagnostic::source_code)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.only().and_then(Diagnostic::labels)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match self.mistakes() {
            [] | [_] => None,
            all => Some(Box::new(all.iter().map(|mistake| mistake as &dyn Diagnostic))),
        }
    }
}

/// At least one mistake.
#[derive(Debug)]
pub struct Mistakes(Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => Ok(()),
            [one] => one.fmt(f),
            [first, rest @ ..] => write!(f, "{first} (and {} more)", rest.len()),
        }
    }
}

/// One mistake, with its place.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", file.name())]
pub struct Mistake {
    file: Arc<NamedSource<Arc<str>>>,
    span: Range<usize>,
    line: usize,
    column: usize,
    message: String,
    expected: String,
}

impl Mistake {
    /// The line and the column (in characters), both from 1.
    pub fn place(&self) -> (usize, usize) {
        (self.line, self.column)
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What was expected, or what to do.
    pub fn expected(&self) -> &str {
        &self.expected
    }
}

impl Diagnostic for Mistake {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.expected.is_empty()).then(|| Box::new(&self.expected) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.file)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(None, self.span.clone()))))
    }
}

/// Gathers mistakes in one text.
pub(super) struct Collector {
    file: Arc<NamedSource<Arc<str>>>,
    text: Arc<str>,
    found: Vec<Mistake>,
}

impl Collector {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let text: Arc<str> = text.into();
        Self { file: Arc::new(NamedSource::new(name, text.clone())), text, found: Vec::new() }
    }

    /// Notes that `message` is wrong at `span`; `expected` says what was expected, or what to do.
    pub(super) fn note(&mut self, span: Range<usize>, message: impl Into<String>, expected: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        // At most the first line is underlined: a whole table would hide where to look.
        let first = self.text.get(span.clone()).and_then(|text| text.lines().next()).map_or(0, str::len);
        self.found.push(Mistake {
            file: self.file.clone(),
            span: span.start..span.start + first,
            line,
            column,
            message: message.into(),
            expected: expected.into(),
        });
    }

    /// The key whose value begins at `at`, as it is written there; empty in a list.
    pub(super) fn key(&self, at: usize) -> &str {
        let before = self.text.get(..at).unwrap_or_default().trim_end();
        let key = before.strip_suffix('=').unwrap_or_default().trim_end();
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let key = key.trim_end_matches(['"', '\'']);
        &key[key.trim_end_matches(is_bare).len()..]
    }

    /// How many were noted so far.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// `value`, if nothing was noted.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, ConfigError> {
        if self.found.is_empty() {
            return Ok(value);
        }
        self.found.sort_by_key(|mistake| mistake.span.start);
        Err(ConfigError::Invalid(Mistakes(self.found)))
    }

    /// The mistakes, as an error; the last resort where nothing was noted is an error as well.
    pub(super) fn fail(mut self) -> ConfigError {
        self.found.sort_by_key(|mistake| mistake.span.start);
        ConfigError::Invalid(Mistakes(self.found))
    }
}
