//! From files to a snapshot: everything is read, judged against the schema and against the settings' names, and indexed;
//! every fault is reported, and one is enough to refuse all.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationError, ValidationMode, Validator};
use jiff::tz::TimeZone;
use miette::NamedSource;

use super::annotation::Annotations;
use super::fault::{PolicyErrors, PolicyFault, Wrong, named, place};
use super::lex::{self, Token};
use super::rules::{Rule, Rules};
use super::{Snapshot, Source, State};
use crate::config::Settings;

/// The Cedar schema, in Cedar's own syntax.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

mod askable;
mod names;

use askable::check_askable;
use names::{check_approvers, check_masks, check_names};

/// A policy that Cedar could read.
struct Draft {
    policy: Policy,
    file: Arc<NamedSource<String>>,
    span: Range<usize>,
    annotations: Annotations,
    /// `file:line`, the file without its folder.
    place: String,
    /// Whether it is of `break-glass.d`.
    emergency: bool,
}

impl Snapshot {
    /// Reads and judges policy files. `context.base.minute` and `weekday` are in UTC until [`Snapshot::in_zone`].
    ///
    /// # Errors
    /// Everything that is wrong with them. Warnings of Cedar's validator (a policy that can never apply, look-alike
    /// characters) are errors here.
    pub fn load(settings: Arc<Settings>, sources: Vec<Source>, generation: u64) -> Result<Self, PolicyErrors> {
        Self::load_with(settings, sources, Vec::new(), generation)
    }

    /// As [`Snapshot::load`], with the policies that count while the glass is broken. They are judged as the others are,
    /// and no two of all have one id.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load_with(
        settings: Arc<Settings>,
        mut sources: Vec<Source>,
        break_glass: Vec<Source>,
        generation: u64,
    ) -> Result<Self, PolicyErrors> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| builtin(&error.to_string()))?;
        let mut faults = Vec::new();
        let mut drafts = Vec::new();
        let ordinary = sources.len();
        sources.extend(break_glass);
        for (at, source) in sources.iter().enumerate() {
            let file = named(source);
            for span in lex::policies(&source.text) {
                let draft = read(&file, span, drafts.len(), &mut faults);
                drafts.extend(draft.map(|draft| Draft { emergency: at >= ordinary, ..draft }));
            }
        }
        let mut warnings = Vec::new();
        for draft in &drafts {
            check_askable(draft, &mut warnings);
            check_names(draft, &settings, &mut faults);
            check_masks(draft, &settings, &mut faults);
            check_approvers(draft, &settings, &mut faults);
        }
        validate(&drafts, &schema, &mut faults)?;
        let rules = name(drafts, &mut faults);
        if let Some(errors) = PolicyErrors::from_faults(faults) {
            return Err(errors);
        }
        let (mut emergency, rules): (Vec<_>, Vec<_>) = rules.into_iter().partition(|(rule, _)| rule.emergency);
        let index = |rules| Rules::new(rules, &schema, &settings).map_err(|error| builtin(&error));
        let emergency = if emergency.is_empty() {
            None
        } else {
            emergency.extend(rules.iter().filter(|(rule, _)| rule.annotations.always).cloned());
            Some(Box::new(index(emergency)?))
        };
        let state = State::Open(Box::new(index(rules)?));
        let digest = digest(&sources);
        Ok(Self { generation, settings, zone: TimeZone::UTC, sources, digest, state, emergency, warnings })
    }
}

/// BLAKE3 of the names and texts, each after its length, in hex.
pub(super) fn digest(sources: &[Source]) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in sources.iter().flat_map(|source| [&source.name, &source.text]) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Reads one policy. One with faulty annotations goes on without them, so that its other faults are found as well.
fn read(
    file: &Arc<NamedSource<String>>,
    span: Range<usize>,
    number: usize,
    faults: &mut Vec<PolicyFault>,
) -> Option<Draft> {
    let text = &file.inner()[span.clone()];
    let policy = match Policy::parse(Some(PolicyId::new(format!("p{number}"))), text) {
        Ok(policy) => policy,
        Err(errors) => {
            faults.extend(
                errors
                    .iter()
                    .map(|error| PolicyFault::of_cedar(Wrong::Syntax(error.to_string()), error, file, span.clone())),
            );
            return None;
        }
    };
    let annotations = Annotations::read(&policy).unwrap_or_else(|found| {
        faults.extend(found.into_iter().map(|(name, wrong, help)| {
            let fault = PolicyFault::new(wrong, file, annotation(text, &name, &span));
            if let Some(help) = help { fault.help(help) } else { fault }
        }));
        Annotations::default()
    });
    let short = file.name().rsplit('/').next().unwrap_or_default();
    let (line, _) = place(file.inner(), span.start);
    Some(Draft {
        policy,
        file: Arc::clone(file),
        place: format!("{short}:{line}"),
        span,
        annotations,
        emergency: false,
    })
}

fn validate(drafts: &[Draft], schema: &Schema, faults: &mut Vec<PolicyFault>) -> Result<(), PolicyErrors> {
    let policies = PolicySet::from_policies(drafts.iter().map(|draft| draft.policy.clone()))
        .map_err(|error| builtin(&error.to_string()))?;
    let verdict = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
    let drafts: HashMap<&PolicyId, &Draft> = drafts.iter().map(|draft| (draft.policy.id(), draft)).collect();
    let mut fault = |id: &PolicyId, text: String, cedar: &dyn miette::Diagnostic| {
        let Some(draft) = drafts.get(id) else {
            return Err(builtin(&text));
        };
        // The policies have their names only after this.
        let text = text.strip_prefix(&format!("for policy `{id}`, ")).unwrap_or(&text).to_owned();
        faults.push(PolicyFault::of_cedar(Wrong::Schema(text), cedar, &draft.file, draft.span.clone()));
        Ok(())
    };
    // That a policy with another fault can apply to nothing is a consequence, and would stand before its cause.
    let consequence = |error: &&ValidationError| matches!(error, ValidationError::InvalidActionApplication(_));
    let mut faulty = Vec::new();
    for error in verdict.validation_errors().filter(|error| !consequence(error)) {
        faulty.push(error.policy_id());
        fault(error.policy_id(), error.to_string(), error)?;
    }
    let causes = faulty.clone();
    for error in verdict.validation_errors().filter(consequence).filter(|error| !causes.contains(&error.policy_id())) {
        faulty.push(error.policy_id());
        fault(error.policy_id(), error.to_string(), error)?;
    }
    for warning in verdict.validation_warnings().filter(|warning| !faulty.contains(&warning.policy_id())) {
        fault(warning.policy_id(), warning.to_string(), warning)?;
    }
    Ok(())
}

/// Gives each policy its id: its `@id`, or where it stands.
fn name(drafts: Vec<Draft>, faults: &mut Vec<PolicyFault>) -> Vec<(Rule, Policy)> {
    let mut taken: HashMap<String, String> = HashMap::new();
    let mut rules = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let text = draft.file.inner()[draft.span.clone()].to_owned();
        let id = draft.annotations.id.clone().unwrap_or_else(|| draft.place.clone());
        if let Some(first) = taken.get(&id) {
            let wrong = Wrong::Duplicate { id: id.clone(), first: first.clone() };
            let span = match draft.annotations.id {
                Some(_) => annotation(&text, "id", &draft.span),
                None => draft.span.clone(),
            };
            faults.push(PolicyFault::new(wrong, &draft.file, span).help("give each policy an `@id` of its own"));
            continue;
        }
        taken.insert(id.clone(), draft.place.clone());
        let (line, _) = place(draft.file.inner(), draft.span.start);
        let rule = Rule {
            effect: draft.policy.effect(),
            id,
            annotations: draft.annotations,
            file: draft.file.name().to_owned(),
            line,
            text,
            emergency: draft.emergency,
        };
        rules.push((rule, draft.policy));
    }
    rules
}

/// Where the annotation `@name` stands, with its value.
fn annotation(text: &str, name: &str, policy: &Range<usize>) -> Range<usize> {
    let tokens = lex::tokens(text);
    let Some(at) = tokens.windows(2).position(|pair| pair[0].0 == Token::Sign('@') && pair[1].0 == Token::Word(name))
    else {
        return policy.clone();
    };
    let end = match tokens.get(at + 2..at + 5) {
        Some([(Token::Sign('('), _), (Token::Text(_), _), (Token::Sign(')'), span)]) => span.end,
        _ => tokens[at + 1].1.end,
    };
    policy.start + tokens[at].1.start..policy.start + end
}

fn builtin(message: &str) -> PolicyErrors {
    let file = Arc::new(NamedSource::new("schema.cedarschema", SCHEMA.to_owned()));
    PolicyErrors::one(PolicyFault::new(Wrong::Builtin(message.to_owned()), &file, 0..0))
}

#[cfg(test)]
mod tests;
