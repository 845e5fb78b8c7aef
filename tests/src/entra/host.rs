//! What a host offers its processes in clear: a virtual machine's IMDS, Azure Arc's agent, App Service's endpoint.

use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};

use super::directory::{CONTOSO, Managed, SYSTEM_ASSIGNED, USER_ASSIGNED};
use super::issue::Wanted;
use super::server::{Answer, Question};
use super::state::{Inner, Issued, Service, audience, guid, seconds, value};

/// What App Service's endpoint wants in `X-IDENTITY-HEADER`.
pub const IDENTITY_HEADER: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";
/// Where Arc's clients look for its secrets; they accept no other folder.
pub const ARC_TOKENS: &str = "/var/opt/azcmagent/tokens";

/// Answers a request to one of the three. `tokens` is the folder that Arc's clients see as [`ARC_TOKENS`].
pub(super) fn answer(state: &mut Inner, service: Service, question: &Question, tokens: &Path) -> Answer {
    if let Some(status) = state.faults.pop_front() {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let answer = error(status, "throttled", "Too many requests. Try again later.");
        return if status == StatusCode::TOO_MANY_REQUESTS { answer.header("retry-after", "1") } else { answer };
    }
    match service {
        Service::Imds => imds(state, question),
        Service::Arc => arc(state, question, tokens),
        Service::AppService => app_service(state, question),
        Service::Login => error(StatusCode::NOT_FOUND, "not_found", "nothing here"),
    }
}

fn imds(state: &mut Inner, question: &Question) -> Answer {
    if question.path != "/metadata/identity/oauth2/token" {
        return error(StatusCode::NOT_FOUND, "Not Found", "The requested path isn't served.");
    }
    if let Err(fault) = has_metadata(question) {
        return fault.answer();
    }
    let Some(identity) = identity(question, "msi_res_id") else {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "Identity not found");
    };
    match get(state, question, identity) {
        Ok(issued) => token(&issued, question, |document| document["client_id"] = json!(identity.client)),
        Err(fault) => fault.answer(),
    }
}

/// Proves that the client may read files that only the machine's administrators and services can (api-version
/// 2020-06-01): first a 401 that names a file, then what is in it.
fn arc(state: &mut Inner, question: &Question, tokens: &Path) -> Answer {
    if let Err(fault) = has_metadata(question) {
        return fault.answer();
    }
    let secret = value(&question.headers, "authorization").and_then(|value| value.strip_prefix("Basic "));
    if !secret.is_some_and(|secret| state.arc.remove(secret)) {
        let (name, secret) = (format!("{}.key", guid()), guid());
        if let Err(failed) = std::fs::write(tokens.join(&name), &secret) {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", &failed.to_string());
        }
        state.arc.insert(secret);
        let realm = format!("Basic realm={ARC_TOKENS}/{name}");
        return error(StatusCode::UNAUTHORIZED, "unauthorized", "no secret").header("www-authenticate", &realm);
    }
    let Some(identity) = identity(question, "msi_res_id") else {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "Identity not found");
    };
    match get(state, question, identity) {
        // Clients hold the agent to what they asked for.
        Ok(issued) => token(&issued, question, |document| {
            document["client_id"] = json!(identity.client);
            document["object_id"] = json!(identity.id);
            document["msi_res_id"] = json!(identity.resource);
        }),
        Err(fault) => fault.answer(),
    }
}

fn app_service(state: &mut Inner, question: &Question) -> Answer {
    let refused = |status: StatusCode, message: &str| {
        Answer::json(status, &json!({ "statusCode": status.as_u16(), "message": message }))
    };
    if value(&question.headers, "x-identity-header") != Some(IDENTITY_HEADER) {
        return refused(StatusCode::UNAUTHORIZED, "the X-IDENTITY-HEADER is missing or wrong");
    }
    let Some(identity) = identity(question, "mi_res_id") else {
        return refused(
            StatusCode::BAD_REQUEST,
            "No User Assigned or Delegated Managed Identity found for specified parameters.",
        );
    };
    match get(state, question, identity) {
        Ok(issued) => {
            let document = json!({
                "access_token": issued.token,
                "expires_on": issued.expires.to_string(),
                "resource": value(&question.query, "resource"),
                "token_type": "Bearer",
                "client_id": identity.client,
            });
            Answer::json(StatusCode::OK, &document)
        }
        Err(_) => refused(StatusCode::BAD_REQUEST, "the resource isn't known"),
    }
}

/// A request that somebody was talked into lacks the header, or was forwarded.
fn has_metadata(question: &Question) -> Result<(), Fault> {
    let header = value(&question.headers, "metadata");
    if !header.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(Fault::request("Required metadata header not specified"));
    }
    if value(&question.headers, "x-forwarded-for").is_some() {
        return Err(Fault::request("The request was forwarded"));
    }
    Ok(())
}

/// The identity that the request names; the host's own if it names none.
fn identity(question: &Question, resource: &str) -> Option<&'static Managed> {
    let known = [SYSTEM_ASSIGNED, USER_ASSIGNED];
    let named: Vec<(&str, &str)> = ["client_id", "object_id", resource]
        .into_iter()
        .filter_map(|name| Some((name, value(&question.query, name)?)))
        .collect();
    match named.as_slice() {
        [] => Some(SYSTEM_ASSIGNED),
        [("client_id", id)] => known.into_iter().find(|one| one.client.eq_ignore_ascii_case(id)),
        [("object_id", id)] => known.into_iter().find(|one| one.id.eq_ignore_ascii_case(id)),
        [(_, id)] => known.into_iter().find(|one| one.resource.eq_ignore_ascii_case(id)),
        _ => None,
    }
}

/// The token that the host has, or a new one. As the real ones do, it gives the same token to all that ask, as long as
/// that lives.
fn get(state: &mut Inner, question: &Question, identity: &'static Managed) -> Result<Issued, Fault> {
    if value(&question.query, "api-version").is_none() {
        return Err(Fault::request("Required query variable 'api-version' is missing"));
    }
    let resource = value(&question.query, "resource")
        .ok_or_else(|| Fault::request("Required query variable 'resource' is missing"))?;
    let (resource, audience) = audience(resource).ok_or_else(|| {
        let text = format!("AADSTS500011: The resource principal named {resource} was not found in the tenant.");
        Fault { status: StatusCode::BAD_REQUEST, error: "invalid_resource", text }
    })?;
    let key = (identity.client, audience.clone());
    let fresh = value(&question.query, "bypass_cache").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if let Some(known) = state.imds.get(&key).filter(|known| !fresh && known.expires > seconds() + 300) {
        return Ok(known.clone());
    }
    let issued = state.issue(Wanted { audience, ..Wanted::managed(identity, resource) }).map_err(|failed| Fault {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error: "server_error",
        text: failed.to_string(),
    })?;
    state.imds.insert(key, issued.clone());
    Ok(issued)
}

/// The token as IMDS and Arc word it: all strings.
fn token(issued: &Issued, question: &Question, more: impl FnOnce(&mut Value)) -> Answer {
    let left = (issued.expires - seconds()).to_string();
    let mut document = json!({
        "access_token": issued.token,
        "expires_in": left,
        "expires_on": issued.expires.to_string(),
        "ext_expires_in": left,
        "not_before": (seconds() - 300).to_string(),
        "resource": value(&question.query, "resource"),
        "token_type": "Bearer",
    });
    more(&mut document);
    Answer::json(StatusCode::OK, &document).header("x-ms-tenant", CONTOSO.id)
}

/// Why a host gives no token.
struct Fault {
    status: StatusCode,
    error: &'static str,
    text: String,
}

impl Fault {
    fn request(text: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: "invalid_request", text: text.to_owned() }
    }

    fn answer(&self) -> Answer {
        error(self.status, self.error, &self.text)
    }
}

fn error(status: StatusCode, error: &str, description: &str) -> Answer {
    Answer::json(status, &json!({ "error": error, "error_description": description }))
}
