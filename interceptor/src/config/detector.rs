//! Detectors as data: the rules by which values are known for what they are, wherever they stand. The built-in ones are in
//! `detectors.toml`; a mask can name a file of its own. `mask` compiles them.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::mistake::Collector;
use super::raw::At;
use super::{ConfigError, Trust, trust};

/// The built-in rules, as text.
const BUILTIN: &str = include_str!("detectors.toml");

/// Rules in one file are at most this many, so that a set of them stays small.
const MOST_RULES: usize = 128;

/// How a value is known for what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its id: a name such as `payment-card`.
    pub id: Box<str>,
    /// A name under which several rules are asked for together, such as `api-key`.
    pub group: Option<Box<str>>,
    /// What it looks like, in the syntax of the `regex` crate over bytes. The group `value`, if there is one, is the part
    /// that is masked.
    pub regex: Box<str>,
    /// Words of which one has to stand at most 64 bytes before the value, in it, or in the name of the member, column or
    /// field that holds it; in any case. Empty: no word is needed.
    pub keywords: Box<[Box<str>]>,
    /// What has to hold besides.
    pub validator: Option<Validator>,
    /// The least entropy of the value, in bits for each byte (Shannon, over its own bytes).
    pub entropy: f64,
    /// What a text needs for the regex to be tried at all.
    pub needs: Needs,
    /// Texts in which it finds something.
    pub matches: Box<[Box<str>]>,
    /// Texts in which it finds nothing.
    pub misses: Box<[Box<str>]>,
}

/// What a text needs for a rule's regex to be tried: cheap to tell, and true of everything that the regex matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// So many bytes.
    pub length: usize,
    /// So many digits with nothing but spaces, also those that don't break, and `-().` between them.
    pub digits: usize,
    /// This byte.
    pub byte: Option<u8>,
}

/// What has to hold of a value besides its looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validator {
    /// Luhn's check digit, and a number range that a card network issues.
    PaymentCard,
    /// An area, group and serial number that the US Social Security Administration issues.
    UsSsn,
    /// The country's length and the check digits (ISO 13616, mod 97).
    Iban,
    /// A country code of E.164, and 8 to 15 digits.
    Phone,
    /// A domain that isn't a file name's end, and lengths as in RFC 5321.
    Email,
    /// A header that is JSON with an `alg` (RFC 7519).
    Jwt,
    /// Letters as well as digits.
    Mixed,
    /// The same, and neither a GUID, a version, an address of the web nor a digest that is called one.
    Secret,
}

/// The rules of one file.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Arc<Rule>>);

impl Rules {
    /// The built-in rules.
    ///
    /// # Errors
    /// None in a release: a test reads them.
    pub fn builtin() -> Result<Self, ConfigError> {
        Self::parse("detectors.toml", BUILTIN)
    }

    /// The rules of the file at `path`.
    ///
    /// # Errors
    /// It can't be read, isn't trusted, or says what can't be used.
    pub fn load(path: &Path, trust: Trust) -> Result<Self, ConfigError> {
        Self::parse(&path.display().to_string(), &trust::read(path, trust)?)
    }

    /// The rules of a text. `name` is its path, for the errors.
    ///
    /// # Errors
    /// All that can't be used, each with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let mut collector = Collector::new(name, text);
        let raw = match toml::from_str::<RawRules>(text) {
            Ok(raw) => raw,
            Err(error) => return Err(super::load::refused(collector, &error, text)),
        };
        let mut rules: Vec<Arc<Rule>> = Vec::new();
        if let Some(raw) = raw.rule.get(MOST_RULES) {
            collector.note(raw.id.span(), "there are more than 128 rules", "two files, for two masks");
        }
        for raw in raw.rule {
            if rules.iter().any(|rule| *rule.id == **raw.id.value()) {
                let message = format!("there are two rules `{}`", raw.id.value());
                collector.note(raw.id.span(), message, "another id");
            }
            rules.extend(resolve(raw, &mut collector).map(Arc::new));
        }
        collector.finish(Self(rules))
    }

    /// The rules with this id, or of this group.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.0.iter().filter(move |rule| *rule.id == *name || rule.group.as_deref() == Some(name))
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.0.iter()
    }

    /// What can be asked for: the groups, and the ids of rules without one.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for rule in &self.0 {
            let name = rule.group.as_deref().unwrap_or(&rule.id);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: At<String>,
    group: Option<At<String>>,
    regex: At<String>,
    #[serde(default)]
    keywords: Vec<At<String>>,
    validator: Option<At<String>>,
    entropy: Option<At<f64>>,
    #[serde(default)]
    needs: RawNeeds,
    #[serde(rename = "match")]
    matches: At<Vec<String>>,
    #[serde(rename = "no_match")]
    misses: At<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNeeds {
    length: Option<usize>,
    digits: Option<usize>,
    byte: Option<At<String>>,
}

fn resolve(raw: RawRule, collector: &mut Collector) -> Option<Rule> {
    for at in std::iter::once(&raw.id).chain(&raw.group) {
        if let Err(error) = at.value().parse::<crate::ids::MaskName>() {
            collector.note(at.span(), error.to_string(), "a name such as `employee-number`");
        }
    }
    match regex::bytes::Regex::new(raw.regex.value()) {
        Ok(regex) if regex.is_match(b"") => {
            collector.note(raw.regex.span(), "the regex matches the empty text", "one that takes at least a character");
        }
        Ok(_) => {}
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            collector.note(raw.regex.span(), format!("the regex can't be used: {why}"), "the `regex` crate's syntax");
        }
    }
    for at in raw.keywords.iter().filter(|at| at.value().len() < 2 || !at.value().is_ascii()) {
        let message = format!("`{}` isn't a keyword", at.value());
        collector.note(at.span(), message, "at least two characters of ASCII");
    }
    for (list, name) in [(&raw.matches, "match"), (&raw.misses, "no_match")] {
        if list.value().is_empty() {
            collector.note(
                list.span(),
                format!("`{name}` is empty"),
                "at least one example, which shows what is meant",
            );
        }
    }
    let validator = raw.validator.and_then(|at| {
        let found = match at.value().as_str() {
            "payment-card" => Validator::PaymentCard,
            "us-ssn" => Validator::UsSsn,
            "iban" => Validator::Iban,
            "phone" => Validator::Phone,
            "email" => Validator::Email,
            "jwt" => Validator::Jwt,
            "mixed" => Validator::Mixed,
            "secret" => Validator::Secret,
            other => {
                let expected = "`payment-card`, `us-ssn`, `iban`, `phone`, `email`, `jwt`, `mixed` or `secret`";
                collector.note(at.span(), format!("`{other}` isn't a validator"), expected);
                return None;
            }
        };
        Some(found)
    });
    let entropy = raw.entropy.map_or(0.0, |at| {
        if !(0.0..=8.0).contains(at.value()) {
            collector.note(at.span(), format!("`{}` isn't an entropy", at.value()), "0.0 to 8.0 bits for each byte");
        }
        *at.value()
    });
    let byte = raw.needs.byte.and_then(|at| match at.value().as_bytes() {
        [byte] => Some(*byte),
        _ => {
            collector.note(at.span(), format!("`{}` isn't one byte", at.value()), "one ASCII character");
            None
        }
    });
    let needs = Needs { length: raw.needs.length.unwrap_or(1), digits: raw.needs.digits.unwrap_or(0), byte };
    let texts = |list: &Vec<String>| list.iter().map(|text| text.as_str().into()).collect();
    Some(Rule {
        id: raw.id.value().as_str().into(),
        group: raw.group.map(|at| at.value().as_str().into()),
        regex: raw.regex.value().as_str().into(),
        keywords: raw.keywords.iter().map(|at| at.value().to_ascii_lowercase().into()).collect(),
        validator,
        entropy,
        needs,
        matches: texts(raw.matches.value()),
        misses: texts(raw.misses.value()),
    })
}

#[cfg(test)]
mod tests;
