//! The table: a row for each way, a cell for who tried it, with what the process saw and what caught it.

use std::collections::BTreeMap;
use std::fmt;

use super::itself;
use super::workload::{Kind, MODES, Outcome};

/// The governed, as columns.
const GOVERNED: [Kind; 2] = [Kind::Launched, Kind::Adopted];

/// Rows whose arrival is none: what answers somebody who connected.
const INBOUND: &[&str] = &["being connected to"];

/// What caught an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caught {
    /// It reached the daemon's listener, and policy refused it.
    Proxy,
    /// Our resolver answered it.
    Resolver,
    /// A hook refused the call.
    Hook,
    /// A hook dropped what was sent.
    Gate,
    /// A filter on system calls refused it.
    Seccomp,
    /// There is no such thing, or no way to it, in its namespaces and its view of the filesystem.
    Namespace,
    /// The kernel itself refuses it to this process, with or without us.
    Kernel,
    /// The call went well, or wasn't answered, and nothing came of it outside.
    Nothing,
    /// Nothing: it arrived, or that it went well is the escape itself.
    Escaped,
}

impl Caught {
    fn word(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Resolver => "resolver",
            Self::Hook => "hook",
            Self::Gate => "gate",
            Self::Seccomp => "seccomp",
            Self::Namespace => "namespace",
            Self::Kernel => "kernel",
            Self::Nothing => "-",
            Self::Escaped => "ESCAPE",
        }
    }
}

/// All cells.
pub(crate) struct Table {
    names: Vec<String>,
    columns: BTreeMap<(&'static str, &'static str), Vec<Outcome>>,
}

impl Table {
    pub(crate) fn new(names: &[String]) -> Self {
        Self { names: names.to_vec(), columns: BTreeMap::new() }
    }

    /// A column.
    pub(crate) fn add(&mut self, kind: Kind, mode: &'static str, outcomes: Vec<Outcome>) {
        self.columns.insert((kind.word(), mode), outcomes);
    }

    /// How many ways get outside by an unprivileged process that nobody governs.
    pub(crate) fn control(&self) -> usize {
        self.columns[&(Kind::Free.word(), "user")].iter().filter(|outcome| !outcome.arrived.is_empty()).count()
    }

    /// How many cells say that the proxy refused.
    pub(crate) fn proxied(&self) -> usize {
        self.cells().filter(|(.., caught)| *caught == Caught::Proxy).count()
    }

    /// The columns of those who should have become root of a namespace of their own, and couldn't: they tried nothing.
    pub(crate) fn unentered(&self) -> Vec<String> {
        let able = self.columns.iter().filter(|((kind, _), _)| *kind != Kind::Launched.word());
        let outside = able.filter(|(_, outcomes)| outcomes.iter().any(|outcome| outcome.said.starts_with("unshare ")));
        outside.map(|((kind, mode), outcomes)| format!("{kind} {mode}: {}", outcomes[0].said)).collect()
    }

    /// The cells of what arrived, or is an escape by itself, in words.
    pub(crate) fn escapes(&self) -> Vec<String> {
        let escaped = self.cells().filter(|(.., caught)| *caught == Caught::Escaped);
        escaped
            .map(|(row, kind, mode, _)| {
                let outcome = &self.columns[&(kind.word(), mode)][row];
                let arrived = outcome.arrived.join(", ");
                format!("{} {mode}, {}: it saw {}; arrived: {arrived}", kind.word(), self.names[row], outcome.said)
            })
            .collect()
    }

    /// Plain questions to servers of both families that the resolver didn't answer, in words.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        let asked = |row: &usize| ["dns", "dns v6", "dns to loopback"].contains(&self.names[*row].as_str());
        let cells = self.cells().filter(|(row, _, mode, _)| *mode == "user" && asked(row));
        let unanswered = cells.filter(|(.., caught)| *caught != Caught::Resolver);
        unanswered.map(|(row, kind, ..)| format!("{} {}", kind.word(), self.names[row])).collect()
    }

    fn cells(&self) -> impl Iterator<Item = (usize, Kind, &'static str, Caught)> {
        (0..self.names.len())
            .flat_map(move |row| columns().map(move |(kind, mode)| (row, kind, mode, self.caught(row, kind, mode))))
    }

    fn caught(&self, row: usize, kind: Kind, mode: &'static str) -> Caught {
        let outcome = &self.columns[&(kind.word(), mode)][row];
        let free = &self.columns[&(Kind::Free.word(), mode)][row];
        if !outcome.arrived.is_empty() && !INBOUND.contains(&self.names[row].as_str()) {
            return Caught::Escaped;
        }
        if itself::is_escape(&self.names[row], kind, mode, &outcome.said) {
            return Caught::Escaped;
        }
        match (outcome.said.as_str(), kind) {
            (said, _) if said.starts_with("unshare ") => Caught::Seccomp,
            // Only a listener resets a connection, and nobody's but the daemon's was reached.
            ("ECONNRESET" | "end", _) => Caught::Proxy,
            ("answer", _) => Caught::Resolver,
            (said, _) if said == free.said && free.arrived.is_empty() && !goes_well(said) => Caught::Kernel,
            (said, _) if goes_well(said) => Caught::Nothing,
            // No answer, and nothing outside that could have given one.
            ("EAGAIN", _) => Caught::Nothing,
            ("SIGSYS" | "ENOSYS" | "EAFNOSUPPORT" | "ESOCKTNOSUPPORT", _) => Caught::Seccomp,
            ("EPERM" | "EPROTONOSUPPORT", Kind::Launched) => Caught::Seccomp,
            ("EACCES", Kind::Launched) if self.names[row].starts_with("unix") => Caught::Hook,
            (_, Kind::Launched) => Caught::Namespace,
            ("ECONNREFUSED" | "EPROTONOSUPPORT" | "EACCES", _) => Caught::Hook,
            // What is sent and dropped is EPERM to a datagram, and no answer to a connect.
            ("EPERM" | "EINPROGRESS" | "ETIMEDOUT", _) => Caught::Gate,
            _ => Caught::Kernel,
        }
    }
}

fn goes_well(said: &str) -> bool {
    said.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
}

fn columns() -> impl Iterator<Item = (Kind, &'static str)> {
    GOVERNED.into_iter().flat_map(|kind| MODES.map(|mode| (kind, mode)))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<50} {:<22}", "", "(free user)")?;
        for (kind, mode) in columns() {
            write!(f, "{:<26}", format!("{} {mode}", kind.word()))?;
        }
        writeln!(f)?;
        for (row, name) in self.names.iter().enumerate() {
            let free = &self.columns[&(Kind::Free.word(), "user")][row];
            let control = if free.arrived.is_empty() { String::new() } else { " arrives".into() };
            write!(f, "{name:<50} {:<22}", format!("{}{control}", free.said))?;
            for (kind, mode) in columns() {
                let said = &self.columns[&(kind.word(), mode)][row].said;
                write!(f, "{:<26}", format!("{said} {}", self.caught(row, kind, mode).word()))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\n{LEGEND}")?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (.., caught) in self.cells() {
            *counts.entry(caught.word()).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
        writeln!(f, "caught by: {}", counts.join(", "))?;
        let (rows, cells) = (self.names.len(), self.cells().count());
        let control = self.control();
        write!(f, "{rows} behaviours ({control} arrive without us), {cells} cells, {} escapes", self.escapes().len())
    }
}

const LEGEND: &str = "\
what the process saw, and what caught it:
proxy      it got to the daemon's listener, and policy refused it     resolver   the daemon's resolver answered it
hook       a hook refused the call                                    gate       a hook dropped the packet
seccomp    a filter on system calls refused it                        namespace  not there, or no way to it, from where it is
kernel     the kernel itself refuses it, with or without us             -          no error, or no answer: nothing arrived outside";

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Launched => "launched",
            Self::Adopted => "adopted",
        }
    }
}
