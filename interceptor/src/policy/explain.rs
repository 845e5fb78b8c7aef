//! Why a verdict is what it is: the same evaluation as [`super::decide`], with every policy that had a say and the
//! question as policy saw it. For people; nothing here makes a permit.

use cedar_policy::Effect;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ask::Ask;
use super::condition::evaluator;
use super::decide::{answer, refuse};
use super::rules::{Rule, Rules};
use super::{Basis, Decision, Grants, Question, Snapshot, State};

/// A verdict and everything that led to it. Its JSON is stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// `allow`, `deny`, or `hold`: people have to say yes first.
    pub verdict: String,
    /// The code of a denial, or of a hold.
    pub code: Option<String>,
    /// What determined it.
    pub basis: Basis,
    /// The determining policies, by id.
    pub determining: Vec<Cited>,
    /// Policies that are for this target and action, and whose condition was false; by id.
    pub near: Vec<Cited>,
    /// The question as policy saw it; none where it couldn't be asked, or isn't known any more.
    pub asked: Option<Asked>,
}

/// A policy, as it stands in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cited {
    /// Its id.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: String,
    /// Its file.
    pub file: String,
    /// The line that it begins on, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// A question as policy saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// When, in UTC.
    pub at: Timestamp,
    /// `Identity::"none"`.
    pub principal: String,
    /// `Action::"http:GET"`.
    pub action: String,
    /// `Target::"graph"`.
    pub resource: String,
    /// The context in Cedar's JSON format.
    pub context: serde_json::Value,
    /// The tags of `context.http.query`: the parameters, decoded.
    pub query: std::collections::BTreeMap<String, Vec<String>>,
}

/// Decides as [`super::decide`] does, and tells why.
pub fn explain(snapshot: &Snapshot, question: &Question<'_>, at: Timestamp) -> Explanation {
    let rules = match &snapshot.state {
        State::Sealed(_) => {
            return verdict(None, super::decide(snapshot, question, &Grants::default(), at), Vec::new(), None);
        }
        State::Open(rules) => rules,
    };
    let ask = match Ask::whole(snapshot, rules, question, at) {
        Ok(ask) => ask,
        Err(unasked) => return verdict(Some(rules), refuse(snapshot, unasked), Vec::new(), None),
    };
    let evaluator = evaluator(&ask);
    let mut near: Vec<_> = ask
        .slice
        .iter()
        .filter(|condition| condition.is_satisfied(&evaluator) != Ok(true))
        .map(|condition| cite(&condition.rule))
        .collect();
    near.sort_by(|a, b| a.id.cmp(&b.id));
    let asked = Asked {
        at,
        principal: ask.request.principal().uid().map(ToString::to_string).unwrap_or_default(),
        action: ask.request.action().uid().map(ToString::to_string).unwrap_or_default(),
        resource: ask.request.resource().uid().map(ToString::to_string).unwrap_or_default(),
        // It was made of literals, so it can be written as literals; were it not, there is nothing to show.
        context: ask.request.context().and_then(|context| context.to_json_value().ok()).unwrap_or_default(),
        query: ask.query.clone(),
    };
    verdict(Some(rules), answer(snapshot, &ask), near, Some(asked))
}

/// Explains a recorded verdict by the snapshot that it was made on: nothing is decided again, the policies that it names
/// are cited. Another generation's policies may have other texts under the same ids, so with it none are cited.
pub fn recall(snapshot: &Snapshot, code: Option<&str>, basis: &Basis) -> Explanation {
    let rules = match &snapshot.state {
        State::Open(rules) if basis.generation == snapshot.generation => Some(rules.as_ref()),
        State::Open(_) | State::Sealed(_) => None,
    };
    Explanation {
        verdict: match code {
            None => "allow",
            Some("approval-pending") => "hold",
            Some(_) => "deny",
        }
        .into(),
        code: code.map(str::to_owned),
        determining: cited(rules, snapshot.emergency.as_deref().filter(|_| rules.is_some()), basis),
        basis: basis.clone(),
        near: Vec::new(),
        asked: None,
    }
}

fn verdict(rules: Option<&Rules>, decision: Decision, near: Vec<Cited>, asked: Option<Asked>) -> Explanation {
    let (verdict, code, basis) = match decision {
        Decision::Allow(permit) => ("allow", None, permit.basis),
        Decision::Deny(denial) => ("deny", Some(denial.code.to_owned()), denial.basis),
        Decision::Hold(hold) => ("hold", Some("approval-pending".to_owned()), hold.basis),
    };
    let determining = cited(rules, None, &basis);
    // A policy that erred is named as what determined the verdict.
    let near = near.into_iter().filter(|cited| !basis.policies.contains(&cited.id)).collect();
    Explanation { verdict: verdict.into(), code, determining, basis, near, asked }
}

fn cited(rules: Option<&Rules>, emergency: Option<&Rules>, basis: &Basis) -> Vec<Cited> {
    let rule = |id| [rules, emergency].into_iter().flatten().find_map(|rules| rules.rule(id));
    basis.policies.iter().filter_map(|id| rule(id)).map(cite).collect()
}

fn cite(rule: &Rule) -> Cited {
    Cited {
        id: rule.id.clone(),
        effect: match rule.effect {
            Effect::Permit => "permit",
            Effect::Forbid => "forbid",
        }
        .into(),
        file: rule.file.clone(),
        line: rule.line,
        text: rule.text.clone(),
    }
}
