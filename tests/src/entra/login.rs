//! The login hosts: discovery (OpenID Connect Discovery 1.0, and of the instance), keys, and the way to the grants.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::is_shared;
use super::directory;
use super::grants::{self, Endpoint, Form};
use super::key::{CLUSTER_KEY, Key};
use super::refusal::Refusal;
use super::server::{Answer, Question};
use super::signin;
use super::state::{Inner, value};

/// The hosts that Entra's public cloud is reached at.
pub(super) const HOSTS: [&str; 4] =
    ["login.microsoftonline.com", "login.windows.net", "sts.windows.net", "login.microsoft.com"];

/// Answers a request to a login host or to the cluster's provider.
pub(super) fn answer(state: &mut Inner, question: &Question) -> Answer {
    let name = question.host.split(':').next().unwrap_or_default();
    let path = question.path.trim_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    if name == directory::CLUSTER_HOST {
        return cluster(&segments);
    }
    let result = match (&question.method, segments.as_slice()) {
        (&Method::GET, ["common", "discovery", "instance"]) => instance(question),
        (&Method::GET, ["common", "userrealm", user]) => Ok(realm(user)),
        (&Method::GET, [tenant, "v2.0", ".well-known", "openid-configuration"]) => discovery(question, tenant, 2),
        (&Method::GET, [tenant, ".well-known", "openid-configuration"]) => discovery(question, tenant, 1),
        (&Method::GET, [tenant, "discovery", "v2.0", "keys"] | [tenant, "discovery", "keys"]) => keys(state, tenant),
        (&Method::GET, [tenant, "oauth2", "v2.0", "authorize"]) => {
            let endpoint = Endpoint { tenant, version: 2 };
            match signin::authorize(state, endpoint, &Form(&question.query)) {
                Ok(back) => return Answer::json(StatusCode::FOUND, &json!({})).header("location", &back),
                Err(refusal) => Err(refusal),
            }
        }
        (&Method::POST, [tenant, "oauth2", rest @ ..]) => post(state, question, tenant, rest),
        _ => Err(Refusal {
            status: StatusCode::NOT_FOUND,
            ..Refusal::new("invalid_request", 900_561, "The endpoint doesn't exist, or doesn't take this method.")
        }),
    };
    match result {
        Ok(document) => Answer::json(StatusCode::OK, &document).header("cache-control", "no-store, no-cache"),
        Err(refusal) => {
            let correlation =
                value(&question.form, "client-request-id").or_else(|| value(&question.headers, "client-request-id"));
            Answer::json(refusal.status, &refusal.body(correlation))
        }
    }
}

fn post(state: &mut Inner, question: &Question, tenant: &str, rest: &[&str]) -> Result<Value, Refusal> {
    let form = Form(&question.form);
    match rest {
        ["v2.0", "token"] => grants::token(state, Endpoint { tenant, version: 2 }, &form),
        ["token"] => grants::token(state, Endpoint { tenant, version: 1 }, &form),
        ["v2.0", "devicecode"] => signin::device(state, Endpoint { tenant, version: 2 }, &form),
        ["devicecode"] => signin::device(state, Endpoint { tenant, version: 1 }, &form),
        _ => Err(Refusal {
            status: StatusCode::NOT_FOUND,
            ..Refusal::new("invalid_request", 900_561, "The endpoint doesn't exist.")
        }),
    }
}

/// The segment of the URLs and the tenant id that discovery tells for it.
fn tenant(segment: &str) -> Result<(String, String), Refusal> {
    match directory::tenant(segment) {
        Some(tenant) => Ok((tenant.id.to_owned(), tenant.id.to_owned())),
        None if segment.eq_ignore_ascii_case("consumers") => {
            Ok((segment.to_owned(), directory::CONSUMERS.id.to_owned()))
        }
        None if is_shared(segment) => Ok((segment.to_owned(), "{tenantid}".to_owned())),
        None => {
            let text = format!("Tenant '{segment}' not found. Check to make sure you have the correct tenant ID.");
            Err(Refusal::new("invalid_tenant", 90_002, text))
        }
    }
}

fn discovery(question: &Question, segment: &str, version: u8) -> Result<Value, Refusal> {
    let (segment, tid) = tenant(segment)?;
    let host = &question.host;
    let base = format!("https://{host}/{segment}");
    let (path, issuer, keys) = match version {
        2 => ("/v2.0", format!("https://login.microsoftonline.com/{tid}/v2.0"), "discovery/v2.0/keys"),
        _ => ("", format!("https://sts.windows.net/{tid}/"), "discovery/keys"),
    };
    Ok(json!({
        "token_endpoint": format!("{base}/oauth2{path}/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": format!("{base}/{keys}"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": issuer,
        "request_uri_parameter_supported": false,
        "authorization_endpoint": format!("{base}/oauth2{path}/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2{path}/devicecode"),
        "end_session_endpoint": format!("{base}/oauth2{path}/logout"),
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "auth_time", "acr", "nonce", "name", "tid", "ver"],
        "tenant_region_scope": "EU",
        "cloud_instance_name": "microsoftonline.com",
        "cloud_graph_host_name": "graph.windows.net",
        "msgraph_host": "graph.microsoft.com",
        "rbac_url": "https://pas.windows.net",
    }))
}

fn keys(state: &Inner, segment: &str) -> Result<Value, Refusal> {
    let (_, tid) = tenant(segment)?;
    let issuer = format!("https://login.microsoftonline.com/{tid}/v2.0");
    let keys: Vec<Value> = state.keys.published.iter().map(|key| key.jwk(&issuer)).collect();
    Ok(json!({ "keys": keys }))
}

/// Tells whether a login host is one of Entra's, and by which names it goes.
fn instance(question: &Question) -> Result<Value, Refusal> {
    let asked = value(&question.query, "authorization_endpoint").unwrap_or_default();
    let rest = asked.strip_prefix("https://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name = authority.split(':').next().unwrap_or_default();
    let own = question.host.split(':').next().unwrap_or_default();
    if !HOSTS.contains(&name) && name != own {
        let text = format!("Unknown or invalid instance: `{asked}`.");
        return Err(Refusal::new("invalid_instance", 50_049, text));
    }
    let (tenant, _) = tenant(path.split('/').next().unwrap_or_default())?;
    let version = if path.contains("/v2.0") { "/v2.0" } else { "" };
    Ok(json!({
        "tenant_discovery_endpoint":
            format!("https://{authority}/{tenant}{version}/.well-known/openid-configuration"),
        "api-version": value(&question.query, "api-version").unwrap_or("1.1"),
        "metadata": [{
            "preferred_network": "login.microsoftonline.com",
            "preferred_cache": "login.windows.net",
            "aliases": HOSTS,
        }],
    }))
}

fn realm(user: &str) -> Value {
    let domain = user.rsplit('@').next().unwrap_or_default();
    json!({ "ver": "1.0", "account_type": "Managed", "domain_name": domain, "cloud_instance_name": "microsoftonline.com" })
}

/// The provider of a cluster's service accounts.
fn cluster(segments: &[&str]) -> Answer {
    let issuer = directory::CLUSTER;
    let document = match segments {
        [".well-known", "openid-configuration"] => json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }),
        ["openid", "v1", "jwks"] => match Key::number(CLUSTER_KEY) {
            Ok(key) => json!({ "keys": [key.jwk(issuer)] }),
            Err(error) => {
                return Answer::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error.to_string() }));
            }
        },
        _ => return Answer::json(StatusCode::NOT_FOUND, &json!({ "error": "not found" })),
    };
    Answer::json(StatusCode::OK, &document)
}
