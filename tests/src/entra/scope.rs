//! What a client asks a token for: a resource by its name (v1), or scopes of one (v2).

use super::directory::{self, Resource};
use super::grants::Form;
use super::refusal::Refusal;

/// What the scopes or the resource of a request mean.
pub(super) struct Target {
    pub(super) resource: &'static Resource,
    pub(super) audience: String,
    pub(super) scopes: Vec<String>,
    /// All that was consented to, as `/.default` asks.
    pub(super) is_default: bool,
}

/// What is asked for: by `resource` at v1, by `scope` at v2.
pub(super) fn target(form: &Form<'_>, version: u8) -> Result<Target, Refusal> {
    if version == 2 {
        return by_scope(form.need("scope")?);
    }
    let name = form.need("resource")?;
    let resource = directory::resource(name).ok_or_else(|| no_resource(name))?;
    Ok(Target { resource, audience: name.to_owned(), scopes: Vec::new(), is_default: true })
}

pub(super) fn by_scope(scope: &str) -> Result<Target, Refusal> {
    let mut found: Option<Target> = None;
    for word in scope.split_whitespace().filter(|word| !is_reserved(word)) {
        // A name without a resource is Graph's.
        let (name, scope) = word.rsplit_once('/').unwrap_or((directory::GRAPH.uris[0], word));
        let resource = directory::resource(name).ok_or_else(|| no_resource(name))?;
        let target = found.get_or_insert_with(|| Target {
            resource,
            audience: name.to_owned(),
            scopes: Vec::new(),
            is_default: false,
        });
        if target.resource != resource {
            let text = "The provided value for the input parameter 'scope' is not valid: more than one resource.";
            return Err(Refusal::new("invalid_scope", 28_000, text));
        }
        if scope == ".default" {
            target.is_default = true;
        } else {
            target.scopes.push(scope.to_owned());
        }
    }
    match found {
        Some(target) => Ok(target),
        None if scope.trim().is_empty() => Err(Refusal::new(
            "invalid_scope",
            70_011,
            "The provided value for the input parameter 'scope' is not valid.",
        )),
        // Who someone is, is Graph's to tell.
        None => Ok(Target {
            resource: directory::GRAPH,
            audience: directory::GRAPH.uris[0].to_owned(),
            scopes: vec!["User.Read".to_owned()],
            is_default: false,
        }),
    }
}

fn is_reserved(scope: &str) -> bool {
    ["openid", "profile", "email", "offline_access"].contains(&scope)
}

fn no_resource(name: &str) -> Refusal {
    let text = format!("The resource principal named {name} was not found in the tenant.");
    Refusal::new("invalid_resource", 500_011, text)
}

pub(super) fn consented(target: &Target) -> Result<Vec<String>, Refusal> {
    let all = target.resource.scopes;
    if target.is_default {
        return Ok(all.iter().map(|&scope| scope.to_owned()).collect());
    }
    if let Some(scope) = target.scopes.iter().find(|scope| !all.contains(&scope.as_str())) {
        let text = format!("The user or administrator has not consented to use the application with scope '{scope}'.");
        return Err(Refusal::new("invalid_grant", 65_001, text));
    }
    Ok(target.scopes.clone())
}
