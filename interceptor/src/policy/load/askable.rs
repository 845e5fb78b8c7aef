//! People can be asked about requests only: what else waits for their yes is denied, and that is better known before.

use cedar_policy::{ActionConstraint, EntityUid};

use super::super::fault::{PolicyFault, Wrong};
use super::Draft;

/// Notes the `@approval` or `@confirm` of a policy whose scope lets in nothing that people can be asked about.
pub(super) fn check_askable(draft: &Draft, warnings: &mut Vec<PolicyFault>) {
    let Some(approval) = &draft.annotations.approval else { return };
    let actions = match draft.policy.action_constraint() {
        ActionConstraint::Any => return,
        ActionConstraint::Eq(action) => vec![action],
        ActionConstraint::In(actions) => actions,
    };
    // Without any it can never apply, which is an error.
    if actions.is_empty() || actions.iter().any(is_askable) {
        return;
    }
    let name = if approval.group.is_some() { "approval" } else { "confirm" };
    let names: Vec<String> = actions.iter().map(|action| format!("`{}`", action.id().unescaped())).collect();
    let wrong = Wrong::Unaskable { name, actions: names.join(", ") };
    let span = super::annotation(&draft.file.inner()[draft.span.clone()], name, &draft.span);
    let help = "people can be asked about HTTP requests, also those that open a WebSocket; permit the rest without \
                asking, or leave it to `interceptor grants issue`";
    warnings.push(PolicyFault::new(wrong, &draft.file, span).help(help));
}

/// Whether it is an action of requests, or a group of them.
fn is_askable(action: &EntityUid) -> bool {
    let name = action.id().unescaped();
    name == "http" || name.starts_with("http:")
}

#[cfg(test)]
mod tests;
