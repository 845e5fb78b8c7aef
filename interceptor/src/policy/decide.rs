//! The one function that says yes.

use std::collections::BTreeSet;

use cedar_policy::{PolicySet, Response};
use jiff::Timestamp;

use super::ask::{Ask, Unasked};
use super::rules::{Rule, Rules};
use super::{Basis, Decision, Denial, Obligations, Permit, Question, Snapshot, State};

/// Decides: permitted by a policy that is satisfied, forbidden by none, and every evaluation without an error. Total: it
/// answers every question, and depends on nothing but its arguments.
pub fn decide(snapshot: &Snapshot, question: &Question<'_>, at: Timestamp) -> Decision {
    match &snapshot.state {
        State::Sealed(why) => deny(snapshot, "policy-sealed", Vec::new(), vec![why.clone()]),
        State::Open(rules) => match Ask::new(snapshot, rules, question, at) {
            Ok(ask) => answer(snapshot, rules, &ask, ask.slice),
            Err(unasked) => refuse(snapshot, unasked),
        },
    }
}

/// What is denied because it can't be asked.
pub(super) fn refuse(snapshot: &Snapshot, unasked: Unasked) -> Decision {
    match unasked {
        Unasked::Unknown(why) => deny(snapshot, "denied-by-default", Vec::new(), vec![why]),
        Unasked::Broken(why) => deny(snapshot, "policy-error", Vec::new(), vec![why]),
        Unasked::GroupsUnknown => deny(snapshot, "groups-unknown", Vec::new(), Vec::new()),
    }
}

/// What these policies answer.
pub(super) fn answer(snapshot: &Snapshot, rules: &Rules, ask: &Ask<'_>, policies: &PolicySet) -> Decision {
    let response = rules.authorizer().is_authorized(&ask.request, policies, &ask.entities);
    // Cedar skips a policy that errs. A forbid must not be skipped, and who knows what a permit would have said.
    let mut errors: Vec<_> = response
        .diagnostics()
        .errors()
        .map(|cedar_policy::AuthorizationError::PolicyEvaluationError(error)| {
            (error.policy_id().to_string(), error.to_string())
        })
        .collect();
    if !errors.is_empty() {
        errors.sort();
        let (ids, texts) = errors.into_iter().unzip();
        return deny(snapshot, "policy-error", ids, texts);
    }
    let determining = determining(rules, &response);
    let ids = || determining.iter().map(|rule| rule.id.clone()).collect::<Vec<_>>();
    let reasons = || determining.iter().filter_map(|rule| rule.annotations.reason.clone()).collect::<Vec<_>>();
    match response.decision() {
        cedar_policy::Decision::Deny if determining.is_empty() => {
            deny(snapshot, "denied-by-default", Vec::new(), Vec::new())
        }
        cedar_policy::Decision::Deny => deny(snapshot, "denied-by-policy", ids(), reasons()),
        cedar_policy::Decision::Allow => {
            let unbuilt: Vec<_> = determining.iter().filter(|rule| !rule.annotations.unbuilt.is_empty()).collect();
            if !unbuilt.is_empty() {
                let ids = unbuilt.iter().map(|rule| rule.id.clone()).collect();
                let why = |rule: &&&Rule| {
                    let names: Vec<_> = rule.annotations.unbuilt.iter().map(|name| format!("`@{name}`")).collect();
                    format!("`{}` obliges to {}, which this version can't do", rule.id, names.join(", "))
                };
                return deny(snapshot, "obligation-not-built", ids, unbuilt.iter().map(why).collect());
            }
            let record = determining.iter().filter_map(|rule| rule.annotations.record).max();
            let max_session = determining.iter().filter_map(|rule| rule.annotations.max_session).min();
            // What any of them masks is masked, and what the target masks for everybody.
            let named = determining.iter().flat_map(|rule| &rule.annotations.masks);
            let masks: BTreeSet<_> = named.chain(&ask.masks).cloned().collect();
            let obligations = Obligations { max_session, record, masks: masks.into_iter().collect() };
            Decision::Allow(Permit {
                basis: Basis { generation: snapshot.generation, policies: ids(), reasons: reasons(), obligations },
            })
        }
    }
}

/// The determining policies, by id.
fn determining<'a>(rules: &'a Rules, response: &Response) -> Vec<&'a Rule> {
    let mut determining: Vec<_> = response
        .diagnostics()
        .reason()
        .filter_map(|id| {
            let id: &str = id.as_ref();
            rules.rule(id)
        })
        .collect();
    determining.sort_by(|a, b| a.id.cmp(&b.id));
    determining
}

fn deny(snapshot: &Snapshot, code: &'static str, policies: Vec<String>, reasons: Vec<String>) -> Decision {
    let obligations = Obligations::default();
    Decision::Deny(Denial { code, basis: Basis { generation: snapshot.generation, policies, reasons, obligations } })
}

#[cfg(test)]
mod tests;
