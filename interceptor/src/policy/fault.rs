//! What is wrong with policy files, each fault with its place, so that it can be underlined.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceSpan};

use super::Source;

/// Everything that is wrong with a set of policy files; never empty. Shown, it is one line: the first fault, and how
/// many more there are.
#[derive(Debug)]
pub struct PolicyErrors(Vec<PolicyFault>);

/// One fault, or what is warned of. Shown, it is one line: `file:line:column: what is wrong; what was expected`.
#[derive(Debug, Clone)]
pub struct PolicyFault {
    wrong: Wrong,
    file: Arc<NamedSource<String>>,
    span: Range<usize>,
    label: Option<String>,
    help: Option<String>,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Cedar can't read it; Cedar's words.
    #[error("{0}")]
    Syntax(String),
    /// It doesn't fit the schema, or can never apply; Cedar's words.
    #[error("{0}")]
    Schema(String),
    /// Two policies have one id.
    #[error("the policy id `{id}` is taken by {first}")]
    Duplicate {
        /// The id.
        id: String,
        /// Where the other policy stands: `file:line`.
        first: String,
    },
    /// An annotation that doesn't exist, or not on this effect.
    #[error("{0}")]
    Annotation(String),
    /// An annotation's value that can't be read.
    #[error("`@{name}(\"{value}\")` isn't {expected}")]
    Value {
        /// The annotation.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// A target, workload or identity that doesn't exist.
    #[error("{0}")]
    Name(String),
    /// What is permitted is to be approved first, and nobody can be asked about any of it. It loads, and is warned of.
    #[error("nobody can be asked about {actions}: what `@{name}` is on is denied until an operator issues a grant")]
    Unaskable {
        /// The annotation: `approval` or `confirm`.
        name: &'static str,
        /// The actions, in words.
        actions: String,
    },
    /// The built-in schema can't be used; a fault of this build.
    #[error("{0}")]
    Builtin(String),
}

impl PolicyErrors {
    /// The faults, by file and place.
    pub fn faults(&self) -> &[PolicyFault] {
        &self.0
    }

    /// All of it for people: each fault with its line of text, the place underlined. `width` is in columns.
    pub fn render(&self, color: bool, width: usize) -> String {
        self.0.iter().map(|fault| fault.render(color, width)).collect()
    }

    pub(super) fn one(fault: PolicyFault) -> Self {
        Self(vec![fault])
    }

    /// The faults by file and place; none: nothing is wrong.
    pub(super) fn from_faults(mut faults: Vec<PolicyFault>) -> Option<Self> {
        fn key(fault: &PolicyFault) -> (&str, usize, usize, String) {
            (fault.file.name(), fault.span.start, fault.span.end, fault.wrong.to_string())
        }
        faults.sort_by(|a, b| key(a).cmp(&key(b)));
        // Cedar finds a fault once for every action that a policy is for; it is told once.
        faults.dedup_by(|a, b| {
            a.file.name() == b.file.name()
                && a.span == b.span
                && std::mem::discriminant(&a.wrong) == std::mem::discriminant(&b.wrong)
        });
        if faults.is_empty() { None } else { Some(Self(faults)) }
    }
}

impl PolicyFault {
    /// What is wrong.
    pub fn wrong(&self) -> &Wrong {
        &self.wrong
    }

    /// The file's name, and line and column (in characters), both from 1.
    pub fn place(&self) -> (&str, usize, usize) {
        let (line, column) = place(self.file.inner(), self.span.start);
        (self.file.name(), line, column)
    }

    /// It for people: its line of text, the place underlined. `width` is in columns.
    pub fn render(&self, color: bool, width: usize) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
        let mut text = String::new();
        match handler.render_report(&mut text, self) {
            Ok(()) => text,
            Err(fmt::Error) => format!("{self}\n"),
        }
    }

    pub(super) fn new(wrong: Wrong, file: &Arc<NamedSource<String>>, span: Range<usize>) -> Self {
        let end = file.inner().len();
        // A span of nothing can't be seen; a file may end where something was expected.
        let span = span.start.min(end)..span.end.max(span.start).min(end);
        Self { wrong, file: Arc::clone(file), span, label: None, help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What Cedar says of a policy whose text begins at `base` in the file.
    pub(super) fn of_cedar(
        wrong: Wrong,
        cedar: &dyn Diagnostic,
        file: &Arc<NamedSource<String>>,
        base: Range<usize>,
    ) -> Self {
        let label = cedar.labels().and_then(|mut labels| labels.next());
        let span = label.as_ref().map_or(base.clone(), |label| {
            let start = base.start + label.offset();
            start..start + label.len()
        });
        let mut fault = Self::new(wrong, file, span);
        fault.label = label.and_then(|label| label.label().map(str::to_owned));
        fault.help = cedar.help().map(|help| help.to_string());
        fault
    }
}

/// A source as miette shows it.
pub(super) fn named(source: &Source) -> Arc<NamedSource<String>> {
    Arc::new(NamedSource::new(&source.name, source.text.clone()))
}

/// Line and column of a byte, both from 1; columns count characters.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[begin..].chars().count() + 1)
}

impl std::error::Error for PolicyErrors {}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.0.first() {
            first.fmt(f)?;
        }
        match self.0.len() {
            0 | 1 => Ok(()),
            many => write!(f, " (and {} more)", many - 1),
        }
    }
}

impl Diagnostic for PolicyErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.0.iter().map(|fault| fault as &dyn Diagnostic)))
    }
}

impl std::error::Error for PolicyFault {}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, line, column) = self.place();
        write!(f, "{name}:{line}:{column}: {}", self.wrong)?;
        if let Some(label) = &self.label {
            write!(f, ": {label}")?;
        }
        Ok(())
    }
}

impl Diagnostic for PolicyFault {
    fn severity(&self) -> Option<Severity> {
        matches!(self.wrong, Wrong::Unaskable { .. }).then_some(Severity::Warning)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(self.file.as_ref())
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = SourceSpan::from(self.span.clone());
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(self.label.clone(), span))))
    }
}
