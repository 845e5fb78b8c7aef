//! The one function that says yes.

use jiff::Timestamp;

use super::ask::{Ask, Unasked};
use super::condition;
use super::rules::{Rule, Rules};
use super::{Basis, Decision, Denial, Grant, Grants, Hold, Obligations, Permit, Question, Snapshot, State, Terms};

/// Decides: permitted by a policy that is satisfied, forbidden by none, every evaluation without an error, and what has to
/// be approved let through by one of the `grants`. While the glass is broken for the workload, what `break-glass.d` permits
/// is permitted as well, unless a policy forbids it `@always`. Total: it answers every question, and depends on nothing but its
/// arguments.
pub fn decide(snapshot: &Snapshot, question: &Question<'_>, grants: &Grants, at: Timestamp) -> Decision {
    let rules = match &snapshot.state {
        State::Sealed(why) => return deny(snapshot, "policy-sealed", Vec::new(), vec![why.clone()]),
        State::Open(rules) => rules,
    };
    let ordinary = by(snapshot, rules, question, grants, at);
    if matches!(ordinary, Decision::Allow(_)) {
        return ordinary;
    }
    let Some(emergency) = &snapshot.emergency else { return ordinary };
    let Some(broken) = grants.broken(&question.asker.workload, at) else { return ordinary };
    match by(snapshot, emergency, question, grants, at) {
        Decision::Allow(Permit { basis }) => {
            Decision::Allow(Permit { basis: Basis { break_glass: Some(broken), ..basis } })
        }
        hold @ Decision::Hold(_) if matches!(ordinary, Decision::Deny(_)) => hold,
        Decision::Hold(_) | Decision::Deny(_) => ordinary,
    }
}

/// What these rules answer, with the grants that cover what is asked.
fn by(snapshot: &Snapshot, rules: &Rules, question: &Question<'_>, grants: &Grants, at: Timestamp) -> Decision {
    let ask = |granted| match Ask::new(snapshot, rules, question, granted, at) {
        Ok(ask) => answer(snapshot, &ask),
        Err(unasked) => refuse(snapshot, unasked),
    };
    let plain = ask(false);
    if let Decision::Allow(_) = plain {
        return plain;
    }
    let covering = grants.covering(question, at);
    let plain = match plain {
        Decision::Hold(hold) => match covering.iter().find(|grant| grant.discharges(&hold.terms)) {
            Some(grant) => return allow(hold.basis, grant),
            None => Decision::Hold(hold),
        },
        other => other,
    };
    // What an operator issued may be what a policy waits for.
    let Some(issued) = covering.into_iter().find(|grant| grant.is_issued()) else { return plain };
    match ask(true) {
        Decision::Allow(permit) => allow(permit.basis, issued),
        Decision::Hold(hold) => allow(hold.basis, issued),
        Decision::Deny(_) => plain,
    }
}

fn allow(basis: Basis, grant: &Grant) -> Decision {
    Decision::Allow(Permit { basis: Basis { grant: Some(grant.id), ..basis } })
}

/// What is denied because it can't be asked.
pub(super) fn refuse(snapshot: &Snapshot, unasked: Unasked) -> Decision {
    match unasked {
        Unasked::Unknown(why) => deny(snapshot, "denied-by-default", Vec::new(), vec![why]),
        Unasked::Broken(why) => deny(snapshot, "policy-error", Vec::new(), vec![why]),
        Unasked::GroupsUnknown => deny(snapshot, "groups-unknown", Vec::new(), Vec::new()),
    }
}

/// What the policies of its slice answer to a question.
pub(super) fn answer(snapshot: &Snapshot, ask: &Ask<'_>) -> Decision {
    let condition::Said { mut permits, mut forbids, mut errors } = condition::ask(ask);
    // Cedar skips a policy that errs. A forbid must not be skipped, and who knows what a permit would have said.
    if !errors.is_empty() {
        errors.sort();
        let (ids, texts) = errors.into_iter().unzip();
        return deny(snapshot, "policy-error", ids, texts);
    }
    let ids = |rules: &[&Rule]| rules.iter().map(|rule| rule.id.clone()).collect::<Vec<_>>();
    let reasons = |rules: &[&Rule]| rules.iter().filter_map(|rule| rule.annotations.reason.clone()).collect::<Vec<_>>();
    forbids.sort_by(|a, b| a.id.cmp(&b.id));
    permits.sort_by(|a, b| a.id.cmp(&b.id));
    match (&forbids[..], &permits[..]) {
        ([], []) => deny(snapshot, "denied-by-default", Vec::new(), Vec::new()),
        ([], determining) => {
            let record = determining.iter().filter_map(|rule| rule.annotations.record).max();
            let max_session = determining.iter().filter_map(|rule| rule.annotations.max_session).min();
            // What any of them masks is masked, and what the target masks for everybody.
            let named = determining.iter().flat_map(|rule| &rule.annotations.masks);
            let mut masks: Vec<_> = named.chain(ask.masks).cloned().collect();
            masks.sort_unstable();
            masks.dedup();
            let approval = Terms::of(determining.iter().filter_map(|rule| rule.annotations.approval.as_ref()));
            let obligations = Obligations { max_session, record, masks, approval: approval.clone().map(Box::new) };
            let (policies, reasons) = (ids(determining), reasons(determining));
            let basis = Basis { generation: snapshot.generation, policies, reasons, obligations, ..Basis::default() };
            match approval {
                Some(terms) => Decision::Hold(Hold { basis, terms }),
                None => Decision::Allow(Permit { basis }),
            }
        }
        (determining, _) => deny(snapshot, "denied-by-policy", ids(determining), reasons(determining)),
    }
}

fn deny(snapshot: &Snapshot, code: &'static str, policies: Vec<String>, reasons: Vec<String>) -> Decision {
    let basis = Basis { generation: snapshot.generation, policies, reasons, ..Basis::default() };
    Decision::Deny(Denial { code, basis })
}

#[cfg(test)]
mod tests;
