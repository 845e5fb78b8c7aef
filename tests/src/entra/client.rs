//! Which application asks at a token endpoint, and how it proves that it is it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::directory::{self, Application, Tenant};
use super::grants::{Endpoint, Form};
use super::guard::open;
use super::key::{CLUSTER_KEY, Key};
use super::refusal::Refusal;
use super::state::seconds;

/// The application with this id, if the tenant is one.
pub(super) fn client(id: &str, endpoint: Endpoint<'_>) -> Result<&'static Application, Refusal> {
    let tenant = directory::tenant(endpoint.tenant);
    if tenant.is_none() && !is_shared(endpoint.tenant) {
        return Err(no_tenant(endpoint));
    }
    let client = directory::application(id).filter(|app| tenant.is_none_or(|tenant| app.principal(tenant).is_some()));
    client.ok_or_else(|| match tenant {
        Some(tenant) => unknown(id, tenant),
        None => {
            Refusal::new("unauthorized_client", 700_016, format!("Application with identifier '{id}' was not found."))
        }
    })
}

/// Whether the segment stands for more than one tenant.
pub(super) fn is_shared(segment: &str) -> bool {
    ["common", "organizations", "consumers"].contains(&segment.to_ascii_lowercase().as_str())
}

pub(super) fn no_tenant(endpoint: Endpoint<'_>) -> Refusal {
    if is_shared(endpoint.tenant) {
        let text =
            "No tenant-identifying information found in either the request or implied by any provided credentials.";
        return Refusal::new("invalid_request", 50_059, text);
    }
    let text = format!("Tenant '{}' not found. Check to make sure you have the correct tenant ID.", endpoint.tenant);
    Refusal::new("invalid_request", 90_002, text)
}

pub(super) fn unknown(client: &str, tenant: &Tenant) -> Refusal {
    let text = format!("Application with identifier '{client}' was not found in the directory '{}'.", tenant.domain);
    Refusal::new("unauthorized_client", 700_016, text)
}

/// How the client proved itself; a public client needn't.
pub(super) fn authenticate(client: &Application, form: &Form<'_>) -> Result<&'static str, Refusal> {
    if let Some(secret) = form.field("client_secret") {
        if client.secret == Some(secret) {
            return Ok("1");
        }
        let text = format!("Invalid client secret provided for app '{}'.", client.id);
        return Err(Refusal::client(7_000_215, text));
    }
    let Some(assertion) = form.field("client_assertion") else {
        let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
        return Err(Refusal::client(7_000_218, text));
    };
    if form.field("client_assertion_type") != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") {
        return Err(Refusal::client(50_027, "The 'client_assertion_type' isn't one that is known."));
    }
    federated(client, assertion)?;
    Ok("2")
}

/// A token of another provider in place of a secret.
fn federated(client: &Application, assertion: &str) -> Result<(), Refusal> {
    let (_, claims) = open(assertion).ok_or_else(|| Refusal::client(50_027, "JWT token is invalid or malformed."))?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("iss") != directory::CLUSTER {
        let text =
            format!("No matching federated identity record found for presented assertion issuer '{}'.", text("iss"));
        return Err(Refusal::client(700_211, text));
    }
    let key = Key::number(CLUSTER_KEY).map_err(|error| Refusal::broken(&error))?;
    if !signed_by(assertion, &key) {
        return Err(Refusal::client(700_027, "Client assertion failed signature validation."));
    }
    if !names(&claims["aud"], directory::FEDERATION_AUDIENCE) {
        let text = "No matching federated identity record found for presented assertion audience.";
        return Err(Refusal::client(700_212, text));
    }
    if client.federated != Some(text("sub")) {
        let text =
            format!("No matching federated identity record found for presented assertion subject '{}'.", text("sub"));
        return Err(Refusal::client(700_213, text));
    }
    if claims.get("exp").and_then(Value::as_i64).is_none_or(|end| end <= seconds()) {
        return Err(Refusal::client(700_024, "Client assertion is not within its valid time range."));
    }
    Ok(())
}

fn signed_by(token: &str, key: &Key) -> bool {
    let Some((signed, signature)) = token.rsplit_once('.') else { return false };
    URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| key.verifies(signed.as_bytes(), &signature))
}

/// Whether `aud`, a text or a list of them, names `audience`.
fn names(aud: &Value, audience: &str) -> bool {
    aud == audience || aud.as_array().is_some_and(|all| all.iter().any(|one| one == audience))
}
