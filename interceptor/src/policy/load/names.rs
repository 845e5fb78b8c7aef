//! What policies name has to exist: a misspelt name would make a forbid that never applies.

use std::ops::Range;

use super::super::fault::{PolicyFault, Wrong};
use super::super::lex::{self, Token};
use super::Draft;
use crate::config::{Identities, Named, Settings};
use crate::ids::{ObjectId, PrincipalId};

/// Notes every target, workload, identity, group and role of a policy that the settings don't know.
pub(super) fn check_names(draft: &Draft, settings: &Settings, faults: &mut Vec<PolicyFault>) {
    let mut seen = Vec::new();
    for literal in draft.policy.entity_literals() {
        let (kind, name) = (literal.type_name().to_string(), literal.id().unescaped().to_owned());
        if seen.contains(&(kind.clone(), name.clone())) {
            continue;
        }
        let targets = || settings.targets.iter().map(|target| target.name.as_str());
        let workloads = || settings.workloads.iter().map(|workload| workload.name.as_str());
        let fault = match kind.as_str() {
            "Target" if !targets().any(|target| target == name) => {
                Some((format!("no `[[target]]` is named `{name}`"), list("targets", targets())))
            }
            "Workload" if !workloads().any(|workload| workload == name) => {
                Some((format!("no `[[workload]]` is named `{name}`"), list("workloads", workloads())))
            }
            "Identity" => unknown_identity(&name, &settings.identities),
            "Group" | "Role" => unknown_membership(&kind, &name, &settings.identities),
            "Query" => Some((
                "a query has no name".into(),
                "look at its parameters: `context.http.query.hasTag(\"…\")`".into(),
            )),
            _ => None,
        };
        if let Some((wrong, help)) = fault {
            let span = entity(&draft.file.inner()[draft.span.clone()], &kind, &name, &draft.span);
            faults.push(PolicyFault::new(Wrong::Name(wrong), &draft.file, span).help(help));
        }
        seen.push((kind, name));
    }
}

/// Why a policy can't mean this identity, and what it could mean.
fn unknown_identity(name: &str, identities: &Identities) -> Option<(String, String)> {
    if name == "none" {
        return None;
    }
    if let Some(Named::Identity(id)) = identities.names.get(name) {
        let wrong = format!("`{name}` is a name, and an identity is compared by its id");
        return Some((wrong, format!("write `Identity::\"{id}\"`")));
    }
    let Ok(id) = name.parse::<PrincipalId>() else {
        let help = "an identity is `<tenant>/<object>` in GUIDs, or `<issuer>/<subject>`";
        return Some((format!("`{name}` is no identity"), help.into()));
    };
    if !identities.has_realm(id.realm()) {
        return Some((format!("no `[[tenant]]` has the id `{}`", id.realm()), tenants(identities)));
    }
    let help = format!("write `Identity::\"{id}\"`");
    (id.as_str() != name).then(|| (format!("`{name}` has capitals, which ids are compared without"), help))
}

/// The same of a group or a role.
fn unknown_membership(kind: &str, name: &str, identities: &Identities) -> Option<(String, String)> {
    let is_own = |named: &Named| matches!((kind, named), ("Group", Named::Group(_)) | ("Role", Named::Role(_)));
    if identities.names.get(name).is_some_and(is_own) {
        return None;
    }
    let what = kind.to_lowercase();
    let Some((tenant, rest)) = name.split_once('/') else {
        let names = identities.names.iter().filter(|(_, named)| is_own(named)).map(|(name, _)| name.as_str());
        return Some((format!("`[names]` has no {what} `{name}`"), list("names for these", names)));
    };
    if !tenant.parse().is_ok_and(|tenant| identities.tenant(tenant).is_some()) {
        return Some((format!("no `[[tenant]]` has the id `{tenant}`"), tenants(identities)));
    }
    let (fits, expected) = if kind == "Group" {
        let fits = rest.parse::<ObjectId>().is_ok() && !name.bytes().any(|c| c.is_ascii_uppercase());
        (fits, "`<tenant>/<id>` in GUIDs of lower case")
    } else {
        let fits = rest.rsplit_once('/').is_some_and(|(audience, value)| !audience.is_empty() && !value.is_empty());
        (fits, "`<tenant>/<audience>/<value>`")
    };
    (!fits).then(|| (format!("`{name}` is no {what}"), format!("a {what} is {expected}")))
}

fn tenants(identities: &Identities) -> String {
    let ids: Vec<String> = identities.tenants.iter().map(|tenant| tenant.id.to_string()).collect();
    list("tenants", ids.iter().map(String::as_str))
}

/// A mask that a policy names has to exist: what it should hide would be seen.
pub(super) fn check_masks(draft: &Draft, settings: &Settings, faults: &mut Vec<PolicyFault>) {
    let masks = || settings.masks.iter().map(|mask| mask.name.as_str());
    for name in draft.annotations.masks.iter().filter(|name| !masks().any(|mask| mask == name.as_str())) {
        let span = super::annotation(&draft.file.inner()[draft.span.clone()], "mask", &draft.span);
        let wrong = Wrong::Name(format!("no `[[mask]]` is named `{name}`"));
        faults.push(PolicyFault::new(wrong, &draft.file, span).help(list("masks", masks())));
    }
}

/// Approvers that a policy names have to exist: an operation that waits for nobody waits without end.
pub(super) fn check_approvers(draft: &Draft, settings: &Settings, faults: &mut Vec<PolicyFault>) {
    let Some(approval) = &draft.annotations.approval else { return };
    let Some(group) = &approval.group else { return };
    let approvers = &settings.identities.approvers;
    let wrong = match approvers.get(group) {
        None => format!("no `[approvers]` are named `{group}`"),
        Some(members) if members.count().is_some_and(|count| (count as u64) < approval.approvals.unwrap_or(1)) => {
            format!("the `[approvers]` named `{group}` are fewer than have to say yes")
        }
        Some(_) => return,
    };
    let span = super::annotation(&draft.file.inner()[draft.span.clone()], "approval", &draft.span);
    let help = list("approvers", approvers.keys().map(String::as_str));
    faults.push(PolicyFault::new(Wrong::Name(wrong), &draft.file, span).help(help));
}

fn list<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    names.truncate(12);
    if names.is_empty() {
        format!("the configuration has no {what}")
    } else {
        format!("the configuration's {what} are {}", names.join(", "))
    }
}

/// Where the entity `kind::"name"` stands.
fn entity(text: &str, kind: &str, name: &str, policy: &Range<usize>) -> Range<usize> {
    let tokens = lex::tokens(text);
    let found = tokens.windows(3).find(|triple| {
        triple[0].0 == Token::Word(kind) && triple[1].0 == Token::Path && triple[2].0 == Token::Text(name)
    });
    // A name with escapes isn't found so, and the whole policy is underlined.
    found.map_or(policy.clone(), |triple| policy.start + triple[0].1.start..policy.start + triple[2].1.end)
}
