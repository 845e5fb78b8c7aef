//! What a service checks of the tokens that it is called with, and how it answers to those that won't do.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::key::Key;
use super::state::{State, seconds};
use super::token::{encode, hashed};

const AUTHORIZATION_URI: &str = "https://login.microsoftonline.com/common/oauth2/authorize";

type Claims = Map<String, Value>;

/// Demands a token of this Entra for one of its audiences.
#[derive(Clone)]
pub struct Guard {
    state: Arc<State>,
    audiences: Vec<String>,
}

/// Who called, as the token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Caller {
    /// The tenant.
    pub tid: String,
    /// The principal.
    pub oid: String,
    /// The client.
    pub appid: String,
    /// The token's id.
    pub uti: String,
    /// The app roles.
    pub roles: Vec<String>,
    /// The scopes; `None` for an application's own token.
    pub scopes: Option<String>,
}

/// A 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The `WWW-Authenticate` header (RFC 6750 section 3).
    pub www_authenticate: String,
    /// What the body says.
    pub text: String,
}

impl Guard {
    pub(super) fn new(state: Arc<State>, audiences: &[&str]) -> Self {
        Self { state, audiences: audiences.iter().map(|&one| one.to_owned()).collect() }
    }

    /// Checks the `Authorization` header.
    ///
    /// # Errors
    /// The token is missing or wrong, or must be renewed.
    pub fn check(&self, authorization: Option<&str>) -> Result<Caller, Challenge> {
        let bearer = authorization.and_then(|value| value.split_once(' '));
        let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let Some(token) = token else {
            return Err(Challenge::new("", "Access token is empty."));
        };
        let mut state = self.state.lock();
        let claims =
            verify(&state.keys.published, token).map_err(|text| Challenge::new("error=\"invalid_token\"", text))?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if !self.audiences.iter().any(|known| known.trim_end_matches('/') == text("aud").trim_end_matches('/')) {
            return Err(Challenge::new(
                "error=\"invalid_token\"",
                "Access token validation failure. Invalid audience.",
            ));
        }
        let has_cae = claims.get("xms_cc").and_then(Value::as_array).is_some_and(|all| all.contains(&json!("CP1")));
        let is_chosen = state.challenges > 0;
        state.challenges = state.challenges.saturating_sub(1);
        if is_chosen || (has_cae && state.dead.contains(&text("uti"))) {
            return Err(Challenge::renew(seconds()));
        }
        let appid = if claims.contains_key("appid") { text("appid") } else { text("azp") };
        let roles = claims.get("roles").and_then(Value::as_array).into_iter().flatten();
        Ok(Caller {
            tid: text("tid"),
            oid: text("oid"),
            appid,
            uti: text("uti"),
            roles: roles.filter_map(|role| role.as_str().map(str::to_owned)).collect(),
            scopes: claims.get("scp").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

impl Challenge {
    fn new(more: &str, text: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        let www_authenticate = format!("Bearer realm=\"\", authorization_uri=\"{AUTHORIZATION_URI}\"{comma}{more}");
        Self { www_authenticate, text: text.to_owned() }
    }

    /// A claims challenge: a token that is newer than this instant is wanted.
    fn renew(now: i64) -> Self {
        let claims = json!({ "access_token": { "nbf": { "essential": true, "value": now.to_string() } } });
        let claims = STANDARD.encode(claims.to_string());
        let text = "Continuous access evaluation resulted in challenge with result: InteractionRequired and code: \
                    TokenIssuedBeforeRevocationTimestamp";
        Self::new(&format!("error=\"insufficient_claims\", claims=\"{claims}\""), text)
    }
}

/// The header and the claims of a token, unverified.
pub(super) fn open(token: &str) -> Option<(Claims, Claims)> {
    let mut parts = token.split('.');
    let mut part = || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
    Some((part()?, part()?))
}

/// The claims of a token, if it is one of ours and lives.
pub(super) fn verify(keys: &[Arc<Key>], token: &str) -> Result<Claims, &'static str> {
    let (mut header, claims) = open(token).ok_or("CompactToken parsing failed with error code: 80049217")?;
    let (head, body, signature) = match token.split('.').collect::<Vec<_>>().as_slice() {
        [head, body, signature] => ((*head).to_owned(), *body, *signature),
        _ => return Err("CompactToken parsing failed with error code: 80049217"),
    };
    if header.get("alg") != Some(&json!("RS256")) {
        return Err("Access token validation failure. Invalid algorithm.");
    }
    let key = keys.iter().find(|key| header.get("kid") == Some(&json!(key.kid())));
    let key = key.ok_or("Access token validation failure. Invalid key.")?;
    // What was signed has the nonce's digest in its place.
    let head = match header.get("nonce").and_then(Value::as_str).map(hashed) {
        Some(nonce) => {
            header.insert("nonce".to_owned(), json!(nonce));
            encode(&Value::Object(header).to_string())
        }
        None => head,
    };
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    if !key.verifies(format!("{head}.{body}").as_bytes(), &signature) {
        return Err("Access token validation failure. Invalid signature.");
    }
    let tid = claims.get("tid").and_then(Value::as_str).unwrap_or_default();
    let issuers = [format!("https://sts.windows.net/{tid}/"), format!("https://login.microsoftonline.com/{tid}/v2.0")];
    if !issuers.iter().any(|issuer| claims.get("iss") == Some(&json!(issuer))) {
        return Err("Access token validation failure. Invalid issuer.");
    }
    let (now, time) = (seconds(), |name: &str| claims.get(name).and_then(Value::as_i64));
    if time("exp").is_none_or(|end| end <= now) || time("nbf").is_none_or(|begin| begin > now + 300) {
        return Err("Lifetime validation failed, the token is expired.");
    }
    Ok(claims)
}
