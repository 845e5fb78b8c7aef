//! Detectors, compiled: from a text to the parts of it that are something to mask. Most texts are nothing, and most of
//! those are told by one pass over their bytes; what is left goes through a search for all keywords at once, and only
//! then through the regexes that it calls for.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};

use self::finder::Finder;
use self::sieve::Sieve;
use super::validate::{entropy, is_guid, validate};
use crate::config::{Rule, Strategy, Validator};

mod finder;
mod sieve;

/// How far before a value its keyword may stand, in bytes.
pub(super) const REACH: usize = 64;

/// All rules of a configuration, compiled once.
#[derive(Debug, Default)]
pub(super) struct Detectors {
    rules: Vec<Compiled>,
    words: Option<(Sieve, AhoCorasick)>,
    /// For each pattern of `words`, the rules that have it as a keyword.
    of_word: Vec<Vec<u16>>,
}

#[derive(Debug)]
struct Compiled {
    rule: Arc<Rule>,
    finder: Finder,
}

/// Why a rule can't be used.
#[derive(Debug, thiserror::Error)]
#[error("rule `{id}`: {why}; simplify its regex")]
pub struct BadRule {
    id: Box<str>,
    why: Box<str>,
}

/// A part of a text that is something to mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) rule: u16,
    pub(super) strategy: Strategy,
}

/// Rules whose keyword is in a name (of a member, a column, a field): one bit each.
pub(super) type Words = [u64; 4];

/// There are at most this many rules, so that [`Words`] has a bit for each.
const MOST_RULES: usize = 256;

impl Detectors {
    /// Compiles the rules; each `Arc` once.
    ///
    /// # Errors
    /// A regex that doesn't compile or is too large, or more than 256 rules.
    pub(super) fn new(rules: Vec<Arc<Rule>>) -> Result<Self, BadRule> {
        let bad = |rule: &Rule, why: String| BadRule { id: rule.id.clone(), why: why.into() };
        let mut words: Vec<Box<str>> = Vec::new();
        let mut of_word: Vec<Vec<u16>> = Vec::new();
        let mut compiled = Vec::with_capacity(rules.len());
        for rule in rules {
            let number = u16::try_from(compiled.len()).unwrap_or(u16::MAX);
            if compiled.len() >= MOST_RULES {
                return Err(bad(&rule, "there are more than 256 rules in all".into()));
            }
            for keyword in &rule.keywords {
                match words.iter().position(|word| word == keyword) {
                    Some(at) => of_word[at].push(number),
                    None => {
                        words.push(keyword.clone());
                        of_word.push(vec![number]);
                    }
                }
            }
            let finder = Finder::new(&rule.regex).map_err(|why| bad(&rule, why))?;
            compiled.push(Compiled { rule, finder });
        }
        let bytes = || words.iter().map(|word| word.as_bytes());
        let words = (!words.is_empty())
            .then(|| {
                let all = AhoCorasickBuilder::new()
                    .ascii_case_insensitive(true)
                    .kind(Some(AhoCorasickKind::ContiguousNFA))
                    .build(bytes())?;
                Ok((Sieve::new(bytes()), all))
            })
            .transpose()
            .map_err(|error: aho_corasick::BuildError| BadRule {
                id: "keywords".into(),
                why: error.to_string().into(),
            })?;
        Ok(Self { rules: compiled, words, of_word })
    }

    /// Where the rule stands, if it is one of these.
    pub(super) fn position(&self, rule: &Rule) -> Option<usize> {
        self.rules.iter().position(|known| *known.rule == *rule)
    }

    pub(super) fn id(&self, rule: u16) -> &str {
        self.rules.get(usize::from(rule)).map_or("", |known| &known.rule.id)
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }
}

/// The rules that look at a document, and what becomes of what they find.
#[derive(Debug, Default)]
pub(super) struct Active {
    detectors: Arc<Detectors>,
    strategies: Vec<Option<Strategy>>,
    /// Rules that need no keyword.
    plain: Vec<u16>,
    /// Whether any rule needs one.
    worded: bool,
    /// The least length that any rule needs; of those with keywords.
    shortest: usize,
    shortest_worded: usize,
}

/// What is kept between texts, so that nothing is allocated for each.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) hits: Vec<Hit>,
    words: Vec<(u16, usize, usize)>,
    ranges: Vec<Range<usize>>,
}

impl Active {
    pub(super) fn new(detectors: Arc<Detectors>, strategies: Vec<Option<Strategy>>) -> Self {
        let rules = || detectors.rules.iter().zip(&strategies).enumerate().filter(|(_, (_, wanted))| wanted.is_some());
        let needed = |worded: bool| {
            rules()
                .filter(|(_, (known, _))| !worded || !known.rule.keywords.is_empty())
                .map(|(_, (known, _))| known.rule.needs.length)
                .min()
                .unwrap_or(usize::MAX)
        };
        let plain = rules()
            .filter(|(_, (known, _))| known.rule.keywords.is_empty())
            .filter_map(|(at, _)| u16::try_from(at).ok())
            .collect();
        let worded = rules().any(|(_, (known, _))| !known.rule.keywords.is_empty());
        let (shortest, shortest_worded) = (needed(false), needed(true));
        Self { detectors, strategies, plain, worded, shortest, shortest_worded }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_empty() && !self.worded
    }

    pub(super) fn detectors(&self) -> &Detectors {
        &self.detectors
    }

    /// The rules whose keyword is in this name.
    pub(super) fn words_in(&self, name: &[u8]) -> Words {
        let mut words = Words::default();
        if let Some((_, search)) = self.detectors.words.as_ref().filter(|_| self.worded) {
            for found in search.find_overlapping_iter(name) {
                for rule in &self.detectors.of_word[found.pattern().as_usize()] {
                    words[usize::from(*rule) / 64] |= 1 << (rule % 64);
                }
            }
        }
        words
    }

    /// Finds what is to be masked in `text`, whose name has these `words`, into `scratch.hits`: sorted, without overlap.
    pub(super) fn find(&self, text: &[u8], words: &Words, scratch: &mut Scratch) {
        scratch.hits.clear();
        if text.len() < self.shortest {
            return;
        }
        if !self.plain.is_empty() {
            let traits = Traits::of(text);
            let is_guid = is_guid(text);
            for &rule in &self.plain {
                let known = &self.detectors.rules[usize::from(rule)];
                if known.worth(text.len(), &traits, text) && !(is_guid && known.is_never_guid()) {
                    self.try_rule(rule, text, None, scratch);
                }
            }
        }
        if self.worded && text.len() >= self.shortest_worded {
            self.worded(text, words, scratch);
        }
        if scratch.hits.len() > 1 {
            merge(&mut scratch.hits);
        }
    }

    fn worded(&self, text: &[u8], named: &Words, scratch: &mut Scratch) {
        let Some((sieve, search)) = &self.detectors.words else { return };
        scratch.words.clear();
        let mut called = *named;
        // Most texts have no keyword, which is told faster than which ones there are.
        if called == Words::default() && !sieve.lets_through(text) {
            return;
        }
        for found in search.find_overlapping_iter(text) {
            for &rule in &self.detectors.of_word[found.pattern().as_usize()] {
                called[usize::from(rule) / 64] |= 1 << (rule % 64);
                scratch.words.push((rule, found.start(), found.end()));
            }
        }
        if called == Words::default() {
            return;
        }
        let traits = Traits::of(text);
        for (at, mut bits) in called.into_iter().enumerate() {
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let rule = u16::try_from(at * 64).unwrap_or_default() + u16::try_from(bit).unwrap_or_default();
                let Some(known) = self.detectors.rules.get(usize::from(rule)) else { continue };
                // In a name's keyword all of its text is in reach.
                let near = (named[at] & (1 << bit) == 0).then_some(());
                if !known.rule.keywords.is_empty() && known.worth(text.len(), &traits, text) {
                    self.try_rule(rule, text, near, scratch);
                }
            }
        }
    }

    /// Notes what the rule finds; with `near`, only where one of its keywords is in reach.
    fn try_rule(&self, rule: u16, text: &[u8], near: Option<()>, scratch: &mut Scratch) {
        let Some(strategy) = self.strategies.get(usize::from(rule)).copied().flatten() else { return };
        let known = &self.detectors.rules[usize::from(rule)];
        let Scratch { hits, words, ranges } = scratch;
        known.finder.each(text, |range| {
            if near.is_some() {
                let from = range.start.saturating_sub(REACH);
                if !words.iter().any(|&(of, start, end)| of == rule && start >= from && end <= range.end) {
                    return;
                }
            }
            ranges.clear();
            match known.rule.validator {
                Some(validator) => validate(validator, text, range, ranges),
                None => ranges.push(range),
            }
            for range in ranges.iter() {
                if known.rule.entropy == 0.0 || entropy(&text[range.clone()]) >= known.rule.entropy {
                    hits.push(Hit { start: range.start, end: range.end, rule, strategy });
                }
            }
        });
    }
}

impl Compiled {
    /// Whether what has as many digits as it asks for may still be a GUID, and then isn't what it is looked for.
    fn is_never_guid(&self) -> bool {
        matches!(self.rule.validator, Some(Validator::PaymentCard | Validator::UsSsn | Validator::Iban))
    }

    fn worth(&self, length: usize, traits: &Traits, text: &[u8]) -> bool {
        let needs = &self.rule.needs;
        length >= needs.length
            && traits.digits >= needs.digits
            && needs.byte.is_none_or(|byte| match byte {
                b'@' => traits.classes & AT != 0,
                b'+' => traits.classes & PLUS != 0,
                byte => memchr::memchr(byte, text).is_some(),
            })
    }
}

/// What one pass over a text tells.
struct Traits {
    /// Which of [`AT`] and [`PLUS`] are in it.
    classes: u8,
    /// The most digits with nothing but separators between them; where there are hardly any, all of them.
    digits: usize,
}

const DIGIT: u8 = 1;
const SEPARATOR: u8 = 2;
const AT: u8 = 4;
const PLUS: u8 = 8;

/// What stands between the digits of a number. At the end the bytes of spaces and dashes that don't break.
pub(super) const SEPARATORS: &[u8] = b" -.()/\xc2\xa0\xe2\x80\x90\x91\xaf";

/// The class of each byte.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = b'0';
    while byte <= b'9' {
        classes[byte as usize] = DIGIT;
        byte += 1;
    }
    let mut at = 0;
    while at < SEPARATORS.len() {
        classes[SEPARATORS[at] as usize] = SEPARATOR;
        at += 1;
    }
    classes[b'@' as usize] = AT;
    classes[b'+' as usize] = PLUS;
    classes
};

/// Fewer digits than this are counted as they are: no built-in rule needs as few.
const FEW: usize = 7;

impl Traits {
    fn of(text: &[u8]) -> Self {
        // Many bytes at a time; which texts hardly any digit is in is told by that.
        let (chunks, rest) = text.as_chunks::<16>();
        let (mut counted, mut classes) = (0, 0);
        for chunk in chunks {
            let (mut digits, mut at, mut plus) = (0_u8, 0_u8, 0_u8);
            for byte in chunk {
                digits += u8::from(byte.is_ascii_digit());
                at |= u8::from(*byte == b'@');
                plus |= u8::from(*byte == b'+');
            }
            counted += usize::from(digits);
            classes |= (at * AT) | (plus * PLUS);
        }
        for byte in rest {
            let class = CLASSES[usize::from(*byte)];
            counted += usize::from(class & DIGIT);
            classes |= class & (AT | PLUS);
        }
        let digits = if counted < FEW { counted } else { longest_run(text) };
        Self { classes, digits }
    }
}

/// The most digits with nothing but separators between them.
fn longest_run(text: &[u8]) -> usize {
    let (mut run, mut longest) = (0_usize, 0);
    for &byte in text {
        let class = CLASSES[usize::from(byte)];
        // Without a branch: a digit counts up, a separator leaves the run as it is, all else ends it.
        run = (run + usize::from(class & DIGIT)) & 0_usize.wrapping_sub(usize::from(class & (DIGIT | SEPARATOR) != 0));
        longest = longest.max(run);
    }
    longest
}

/// Sorts the hits; those that overlap become one, with the stricter of the strategies.
fn merge(hits: &mut Vec<Hit>) {
    hits.sort_by_key(|hit| (hit.start, usize::MAX - hit.end, std::cmp::Reverse(hit.strategy), hit.rule));
    let mut kept: usize = 0;
    for at in 1..hits.len() {
        let hit = hits[at];
        if hit.start < hits[kept].end {
            hits[kept].end = hits[kept].end.max(hit.end);
            hits[kept].strategy = hits[kept].strategy.max(hit.strategy);
        } else {
            kept += 1;
            hits[kept] = hit;
        }
    }
    hits.truncate(kept + 1);
}

#[cfg(test)]
mod tests;
