//! Whose answer counts, when there are enough, and what the grant is that comes of them.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Answerer, NoAnswer};
use crate::config::Required;
use crate::ids::GrantId;
use crate::policy::{Behind, Grant, Origin, Scope, Terms, Whose, Width};
use crate::record::approval::{Answer, Approval};
use crate::record::event::ApprovalRequest;

/// What somebody's answer counts for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The groups that they answer for.
    pub(super) groups: Vec<String>,
    /// Whether it is the initiator's own word.
    pub(super) confirms: bool,
}

/// What somebody answers for. An initiator's yes is never more than that.
pub(super) fn may_answer(approval: &Approval, by: &Answerer) -> Result<Standing, NoAnswer> {
    let request = &approval.request;
    let terms = &request.terms;
    let is_initiator = by.uid == request.initiator;
    // One person may have two uids, also by `sudo`.
    if approval.answers.iter().any(|answer| by.is(answer.uid) || answer.loginuid.is_some_and(|uid| by.is(uid))) {
        return Err(NoAnswer::Twice);
    }
    // Root may be several people, who are told apart by their logins as far as both are known.
    let is_another = by.loginuid.zip(request.loginuid).is_some_and(|(one, other)| one != other);
    if is_initiator && !is_another && !terms.confirm.is_empty() {
        return Ok(Standing { groups: Vec::new(), confirms: true });
    }
    let named = request.identity.as_ref().map(|identity| &identity.principal);
    let mut behind = [request.initiator].into_iter().chain(request.loginuid).chain(request.callers.iter().copied());
    if behind.any(|uid| by.is(uid)) || named.is_some_and(|named| by.persons.contains(named)) {
        return Err(NoAnswer::Own);
    }
    let groups: Vec<String> = terms.groups.iter().filter(|group| by.groups.contains(*group)).cloned().collect();
    let Some(person) = by.person.as_ref().filter(|_| !groups.is_empty()).map(ToString::to_string) else {
        return Err(NoAnswer::NotAsked(asked(terms)));
    };
    if approval.answers.iter().any(|answer| answer.person.as_ref() == Some(&person)) {
        return Err(NoAnswer::Twice);
    }
    match (by.required, by.evidence.as_ref().map(|evidence| evidence.bound)) {
        (Required::None, _) | (Required::Login, Some(_)) | (Required::Bound, Some(true)) => {}
        (Required::Login, None) => return Err(NoAnswer::Unsigned("a sign-in: `interceptor login`")),
        (Required::Bound, _) => return Err(NoAnswer::Unsigned("a sign-in of its own: add `--login` to it")),
    }
    Ok(Standing { groups, confirms: false })
}

/// Who is asked, in words.
pub fn asked(terms: &Terms) -> Vec<String> {
    let initiator = (!terms.confirm.is_empty()).then(|| "its initiator".to_owned());
    terms.groups.iter().cloned().chain(initiator).collect()
}

/// Whether as many people of each group have said yes as have to, and the initiator if he has to; and nobody no, which ends
/// it also where that it has ended couldn't be recorded. `lapsed`: who, by uid, isn't in a group any more that they answered for.
pub(super) fn is_enough(approval: &Approval, lapsed: &BTreeSet<(u32, String)>) -> bool {
    let Terms { groups, approvals, confirm, .. } = &approval.request.terms;
    let said_yes = || approval.answers.iter().filter(|answer| answer.yes);
    let is_in = |answer: &Answer, group: &String| {
        answer.groups.contains(group) && !lapsed.contains(&(answer.uid, group.clone()))
    };
    // Nobody answers twice.
    let yes = |group: &String| said_yes().filter(|answer| is_in(answer, group)).count() as u64;
    let is_denied = approval.answers.iter().any(|answer| !answer.yes);
    !is_denied
        && groups.iter().all(|group| yes(group) >= *approvals)
        && (confirm.is_empty() || said_yes().any(|one| one.confirms))
}

/// What people let through when they have said yes: the narrowest of what they chose.
pub(super) fn granted(approval: &Approval, at: Timestamp) -> Grant {
    let request = &approval.request;
    let chosen = approval.answers.iter().filter_map(|answer| Width::of(answer.width.as_deref()?)).min();
    let scope = scope(request, chosen.unwrap_or(Width::Operation));
    let whose = request.identity.as_ref().map_or(Whose::Nobody, |who| Whose::Principal(who.principal.clone()));
    let terms = &request.terms;
    Grant {
        id: GrantId::new(),
        workload: request.workload.clone(),
        whose,
        behind: Behind::Asker {
            initiator: request.initiator,
            loginuid: request.loginuid,
            client: request.identity.as_ref().and_then(|who| who.client),
        },
        target: request.target.clone(),
        scope,
        origin: Origin::Approval {
            approval: request.approval,
            groups: terms.groups.clone(),
            approvals: terms.approvals,
            confirm: terms.confirm.clone(),
            lasts: Some(terms.grant_for),
            given: Some(terms.grant_uses),
        },
        until: at.saturating_add(seconds(terms.grant_for)).unwrap_or(Timestamp::MAX),
        uses: Some(terms.grant_uses),
        bytes: None,
        rows: None,
    }
}

/// What a yes of this width lets through, in plain words: of a WebSocket, that nobody looks at what is said over it.
pub fn lets_through(request: &ApprovalRequest, width: Width) -> String {
    match width {
        Width::Operation if request.shape.websocket => {
            "this WebSocket, exactly: the same URL and headers, and whatever is said over it afterwards".into()
        }
        Width::Target => format!("everything on `{}`, also WebSockets and whatever is said over them", request.target),
        width => scope(request, width).told(&request.target),
    }
}

/// What a yes of this width lets through.
fn scope(request: &ApprovalRequest, width: Width) -> Scope {
    match width {
        Width::Operation => Scope::Operation { digest: request.digest },
        Width::Shape => Scope::Shape { shape: request.shape.clone() },
        Width::Action => Scope::Action { action: request.action.clone(), path: None },
        Width::Target => Scope::Target,
    }
}

/// A span of so many seconds.
pub fn seconds(count: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
