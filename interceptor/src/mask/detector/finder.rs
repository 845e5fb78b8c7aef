//! Where a rule's regex matches, as fast as the form of it allows. An address is looked for from its `@`, a number from its
//! `+`: that byte is found by a search that takes many bytes at a time, and an automaton sees no more than what is around it.

use std::ops::Range;

use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::primitives::PatternID;
use regex_automata::{Anchored, Input, meta};
use regex_syntax::hir::{Class, Hir, HirKind};

/// How large what a rule's regex is compiled to may be, in bytes, and what is built of it while it is used.
const PROGRAM: usize = 4 << 20;
const CACHE: usize = 1 << 20;

/// A regex, compiled.
#[derive(Debug)]
pub(super) struct Finder(Form);

#[derive(Debug)]
enum Form {
    /// Any. With the number of its group `value`.
    Any(meta::Regex, Option<usize>),
    Pivoted(Box<Pivoted>),
}

/// A byte that each match holds once, with what may stand before and behind it.
#[derive(Debug)]
struct Pivoted {
    pivot: u8,
    /// At least one of these stands before it, and the pivot isn't one of them; none where matches begin with it.
    before: Option<Box<[bool; 256]>>,
    after: meta::Regex,
}

impl Finder {
    /// Compiles the regex.
    ///
    /// # Errors
    /// Why it isn't one, or that it is too large.
    pub(super) fn new(regex: &str) -> Result<Self, String> {
        let hir = regex_syntax::ParserBuilder::new().utf8(false).build().parse(regex);
        let hir = hir.map_err(|error| error.to_string())?;
        if hir.properties().explicit_captures_len() > 0 {
            let any = compiled(&hir, WhichCaptures::All)?;
            let group = any.group_info().to_index(PatternID::ZERO, "value");
            return Ok(Self(Form::Any(any, group)));
        }
        Ok(Self(match Pivoted::new(&hir) {
            Some(pivoted) => Form::Pivoted(Box::new(pivoted)),
            None => Form::Any(compiled(&hir, WhichCaptures::Implicit)?, None),
        }))
    }

    /// Gives each match, or what its group `value` matches, in order: those that the regex finds one after the other.
    pub(super) fn each(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        match &self.0 {
            Form::Any(regex, None) => regex.find_iter(text).for_each(|one| found(one.range())),
            Form::Any(regex, Some(group)) => {
                let values = regex.captures_iter(text).filter_map(|all| all.get_group(*group));
                values.for_each(|one| found(one.range()));
            }
            Form::Pivoted(pivoted) => pivoted.each(text, found),
        }
    }
}

/// Compiles a regex. A table for groups that needs no way back would be faster where one matched, and each takes 40 KiB.
fn compiled(hir: &Hir, captures: WhichCaptures) -> Result<meta::Regex, String> {
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(PROGRAM))
        .hybrid_cache_capacity(CACHE)
        .which_captures(captures)
        .onepass(false);
    let built = meta::Builder::new().configure(config).build_from_hir(hir);
    built.map_err(|error| match error.size_limit() {
        Some(limit) => format!("it takes more than {limit} bytes"),
        None => error.to_string(),
    })
}

impl Pivoted {
    /// The form of a regex that has it: a repeated class of bytes, or nothing, then a byte that neither this class nor
    /// anything behind it can match. So what is looked at from one pivot ends at the next, and all of them together take no
    /// longer than the text is long.
    fn new(hir: &Hir) -> Option<Self> {
        let HirKind::Concat(parts) = hir.kind() else { return None };
        let (before, rest) = match parts.first()?.kind() {
            HirKind::Repetition(repeated) => {
                let any_number = repeated.min == 1 && repeated.max.is_none() && repeated.greedy;
                let HirKind::Class(class) = repeated.sub.kind() else { return None };
                (any_number.then(|| bytes(class)).flatten().map(Some)?, &parts[1..])
            }
            _ => (None, &parts[..]),
        };
        let (HirKind::Literal(literal), behind) = (rest.first()?.kind(), &rest[1..]) else { return None };
        let (&pivot, more) = literal.0.split_first()?;
        let after = Hir::concat([vec![Hir::literal(more)], behind.to_vec()].concat());
        if before.as_ref().is_some_and(|class| class[usize::from(pivot)]) || may_match(&after, pivot) {
            return None;
        }
        let after = compiled(&after, WhichCaptures::Implicit).ok()?;
        Some(Self { pivot, before, after })
    }

    fn each(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        let mut from = 0;
        // The pivot is looked for from here on.
        let mut at = 0;
        while let Some(pivot) = memchr::memchr(self.pivot, &text[at..]).map(|near| at + near) {
            at = pivot + 1;
            let start = match &self.before {
                None => pivot,
                Some(class) => {
                    let before = text[from..pivot].iter().rev().take_while(|byte| class[usize::from(**byte)]).count();
                    pivot - before
                }
            };
            if self.before.is_some() && start == pivot {
                continue;
            }
            let input = Input::new(text).range(at..).anchored(Anchored::Yes);
            if let Some(end) = self.after.search_half(&input) {
                found(start..end.offset());
                (from, at) = (end.offset(), end.offset());
            }
        }
    }
}

/// The bytes of a class, where it is one of single bytes.
fn bytes(class: &Class) -> Option<Box<[bool; 256]>> {
    let class = match class {
        Class::Bytes(class) => class.clone(),
        Class::Unicode(class) => class.to_byte_class()?,
    };
    let mut bytes = Box::new([false; 256]);
    class.iter().flat_map(|range| range.start()..=range.end()).for_each(|byte| bytes[usize::from(byte)] = true);
    Some(bytes)
}

/// Whether a match of it may hold this byte.
fn may_match(hir: &Hir, byte: u8) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&byte),
        HirKind::Class(class) => bytes(class).is_none_or(|bytes| bytes[usize::from(byte)]),
        HirKind::Repetition(repeated) => may_match(&repeated.sub, byte),
        HirKind::Capture(group) => may_match(&group.sub, byte),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(|part| may_match(part, byte)),
    }
}

#[cfg(test)]
mod tests;
