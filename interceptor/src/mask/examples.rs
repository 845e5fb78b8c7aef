//! The examples of detectors, run: each rule has to find something in the texts that it names so, and nothing in the others.

use std::fmt;
use std::sync::Arc;

use super::detector::{Active, BadRule, Detectors, Scratch, Words};
use crate::config::{Rule, Rules, Strategy};

/// What the examples of a set of rules came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many rules there are.
    pub rules: usize,
    /// How many examples were tried.
    pub examples: usize,
    /// The examples that came out otherwise.
    pub failures: Vec<Failure>,
}

/// An example that came out otherwise than its rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The rule.
    pub rule: Box<str>,
    /// The example.
    pub text: Box<str>,
    /// What was found, if nothing should have been.
    pub found: Option<Box<str>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, text, found } = self;
        match found {
            Some(found) => write!(f, "`{rule}` finds `{found}` in `{text}`, where it should find nothing"),
            None => write!(f, "`{rule}` finds nothing in `{text}`"),
        }
    }
}

/// Runs each rule on its own examples.
///
/// # Errors
/// A regex that doesn't compile or is too large.
pub fn run(rules: &Rules) -> Result<Outcome, BadRule> {
    let mut outcome = Outcome::default();
    for rule in rules.iter() {
        let alone = alone(rule)?;
        outcome.rules += 1;
        let mut scratch = Scratch::default();
        let examples = rule.matches.iter().map(|text| (text, true)).chain(rule.misses.iter().map(|text| (text, false)));
        for (text, wanted) in examples {
            outcome.examples += 1;
            alone.find(text.as_bytes(), &Words::default(), &mut scratch);
            let found = scratch.hits.first().map(|hit| &text.as_bytes()[hit.start..hit.end]);
            if found.is_some() != wanted {
                let found = found.map(|found| String::from_utf8_lossy(found).into());
                outcome.failures.push(Failure { rule: rule.id.clone(), text: text.clone(), found });
            }
        }
    }
    Ok(outcome)
}

fn alone(rule: &Arc<Rule>) -> Result<Active, BadRule> {
    let detectors = Detectors::new(vec![Arc::clone(rule)])?;
    Ok(Active::new(Arc::new(detectors), vec![Some(Strategy::Redact)]))
}
