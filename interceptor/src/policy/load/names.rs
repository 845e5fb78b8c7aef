//! What policies name has to exist: a misspelt name would make a forbid that never applies.

use std::ops::Range;

use super::super::fault::{PolicyFault, Wrong};
use super::super::lex::{self, Token};
use super::Draft;
use crate::config::{Named, Settings};
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
            "Group" | "Role" | "Identity" => unknown_identity(&kind, &name, settings),
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

/// Why a policy can't mean this identity, group or role, and what it could mean.
fn unknown_identity(kind: &str, name: &str, settings: &Settings) -> Option<(String, String)> {
    let identities = &settings.identities;
    let tenants = || list("tenants", identities.tenants.iter().map(|tenant| tenant.id.as_str()));
    if kind == "Identity" {
        if name == "none" {
            return None;
        }
        if let Some(Named::Identity(id)) = identities.names.get(name) {
            return Some((
                format!("`{name}` is a name, and an identity is compared by its id"),
                format!("write `{kind}::\"{id}\"`"),
            ));
        }
        let Ok(id) = name.parse::<PrincipalId>() else {
            let help = "an identity is `<tenant>/<object>` in GUIDs, or `<issuer>/<subject>`".into();
            return Some((format!("`{name}` is no identity"), help));
        };
        let realm = id.realm();
        let listed = identities.tenants.iter().any(|tenant| tenant.id.as_str() == realm)
            || identities.issuers.iter().any(|issuer| issuer.name.as_str() == realm);
        return match () {
            () if !listed => Some((format!("no `[[tenant]]` has the id `{realm}`"), tenants())),
            () if id.as_str() != name => Some((format!("`{name}` has capitals"), format!("write `{kind}::\"{id}\"`"))),
            () => None,
        };
    }
    let named = identities.names.get(name);
    if matches!((kind, named), ("Group", Some(Named::Group(_))) | ("Role", Some(Named::Role(_)))) {
        return None;
    }
    let Some((tenant, rest)) = name.split_once('/') else {
        let own = |named: &Named| matches!((kind, named), ("Group", Named::Group(_)) | ("Role", Named::Role(_)));
        let names = identities.names.iter().filter(|(_, named)| own(named)).map(|(name, _)| name.as_str());
        return Some((format!("`[names]` has no {} `{name}`", kind.to_lowercase()), list("names for these", names)));
    };
    if !identities.tenants.iter().any(|known| known.id.as_str() == tenant) {
        return Some((format!("no `[[tenant]]` has the id `{tenant}`"), tenants()));
    }
    let (fits, expected) = match kind {
        "Group" => {
            (rest.parse::<ObjectId>().is_ok_and(|id| id.as_str() == rest), "`<tenant>/<id>` in GUIDs of lower case")
        }
        _ => (
            rest.rsplit_once('/').is_some_and(|(aud, role)| !aud.is_empty() && !role.is_empty()),
            "`<tenant>/<audience>/<value>`",
        ),
    };
    (!fits).then(|| {
        (format!("`{name}` is no {}", kind.to_lowercase()), format!("a {} is {expected}", kind.to_lowercase()))
    })
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
