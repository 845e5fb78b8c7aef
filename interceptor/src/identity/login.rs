//! How a person signs in to the daemon itself, at Entra's v2.0 endpoints, as a public client: by a code that a browser
//! brings to a loopback address (RFC 6749 section 4.1 with RFC 7636 and RFC 8252), or at another device (RFC 8628). Here
//! are the requests and the answers; who waits for which is the daemon's to know, and the network is elsewhere.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{MAX_DOCUMENT, Secret, json};
use crate::config::Tenant;
use crate::ids::ClientId;

/// `profile` is what Entra puts `oid` into an ID token for. No `offline_access`: there is to be no refresh token.
const SCOPE: &str = "openid profile";

/// How long a device may wait between two questions where the answer doesn't say (RFC 8628 section 3.2), and at most.
const INTERVAL: u64 = 5;
const LONGEST_INTERVAL: u64 = 60;

/// The most characters of what the login host says about an error.
const MAX_TOLD: usize = 300;

/// Why a sign-in fails. The text repeats nothing that was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The person hasn't signed in at the other device yet.
    #[error("nobody has signed in yet")]
    Pending {
        /// Whether to ask more rarely from now on.
        slower: bool,
    },
    /// The login host says no.
    #[error("the login host says no: {told}")]
    Denied {
        /// The error's code, such as `access_denied`; `other` where it is written in another way.
        code: String,
        /// What it says of it.
        told: String,
    },
    /// What came back isn't the answer to what was asked.
    #[error("what the browser brought isn't of this sign-in")]
    Foreign,
    /// An answer that isn't understood.
    #[error("the login host's answer isn't understood: {0}")]
    Malformed(&'static str),
    /// There was no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// A text that nobody can guess: 32 random bytes in base64url, 43 characters.
///
/// # Errors
/// [`LoginError::Random`].
pub fn random() -> Result<Secret, LoginError> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_unspecified| LoginError::Random)?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_ref())))
}

/// The challenge of a code verifier by `S256` (RFC 7636 section 4.2).
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

/// The address that a browser is sent back to. Entra doesn't compare the port of `localhost`; an application can have it
/// registered without editing its manifest, unlike 127.0.0.1 (RFC 8252 section 7.3).
pub fn redirect(port: u16) -> String {
    format!("http://localhost:{port}")
}

/// What a browser asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where it is sent back to.
    pub redirect: &'a str,
    /// What it brings back.
    pub state: &'a str,
    /// What the ID token will have in it.
    pub nonce: &'a str,
    /// The challenge of the code verifier.
    pub challenge: &'a str,
}

/// The address that a person opens. `select_account` makes a page appear also where the browser is signed in already: no
/// sign-in happens without a person's hand.
pub fn authorize_url(tenant: &Tenant, client: ClientId, ask: Ask<'_>) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("client_id", &client.to_string())
        .append_pair("response_type", "code")
        .append_pair("response_mode", "query")
        .append_pair("redirect_uri", ask.redirect)
        .append_pair("scope", SCOPE)
        .append_pair("state", ask.state)
        .append_pair("nonce", ask.nonce)
        .append_pair("code_challenge", ask.challenge)
        .append_pair("code_challenge_method", "S256")
        .append_pair("prompt", "select_account")
        .finish();
    format!("{}?{query}", endpoint(tenant, "authorize"))
}

/// The address of an endpoint: `authorize`, `devicecode`, `token`.
pub fn endpoint(tenant: &Tenant, name: &str) -> String {
    format!("https://{}/{}/oauth2/v2.0/{name}", tenant.login, tenant.id)
}

/// The code in what a browser brought back: the query of the address (RFC 6749 section 4.1.2).
///
/// # Errors
/// It isn't of this sign-in, or the login host says no.
pub fn code(query: &str, state: &str) -> Result<Secret, LoginError> {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let only = |name: &str| {
        let mut all = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        all.next().filter(|_| all.next().is_none())
    };
    let is_ours = |known: &str| aws_lc_rs::constant_time::verify_slices_are_equal(known.as_bytes(), state.as_bytes());
    if only("state").is_none_or(|known| is_ours(known).is_err()) {
        return Err(LoginError::Foreign);
    }
    if let Some(error) = only("error") {
        return Err(denied(error, only("error_description").unwrap_or_default()));
    }
    only("code").filter(|code| !code.is_empty()).map(|code| Secret::new(code.to_owned())).ok_or(LoginError::Foreign)
}

/// What the token endpoint is sent for a code of a browser.
pub fn code_form(client: ClientId, code: &Secret, redirect: &str, verifier: &Secret) -> Zeroizing<String> {
    form(
        client,
        &[
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect),
            ("code_verifier", verifier.expose()),
            ("scope", SCOPE),
        ],
    )
}

/// What the endpoint of device codes is sent.
pub fn device_form(client: ClientId) -> Zeroizing<String> {
    form(client, &[("scope", SCOPE)])
}

/// What the token endpoint is sent for a device code.
pub fn device_code_form(client: ClientId, code: &Secret) -> Zeroizing<String> {
    form(client, &[("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code.expose())])
}

fn form(client: ClientId, pairs: &[(&str, &str)]) -> Zeroizing<String> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("client_id", &client.to_string());
    form.extend_pairs(pairs);
    Zeroizing::new(form.finish())
}

/// A device code (RFC 8628 section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What the daemon asks with.
    pub code: Secret,
    /// What the person enters.
    pub user_code: String,
    /// Where.
    pub uri: String,
    /// How long it is good for.
    pub lasts: Duration,
    /// How long to wait between two questions.
    pub interval: Duration,
}

impl Device {
    /// Reads the answer of the endpoint of device codes.
    ///
    /// # Errors
    /// The login host says no, or it isn't understood.
    pub fn parse(body: &[u8]) -> Result<Device, LoginError> {
        let members = members(body)?;
        let text = |name: &'static str| {
            let text = members.get(name).and_then(Value::as_str).filter(|text| (1..=2048).contains(&text.len()));
            text.filter(|text| !text.chars().any(char::is_control)).ok_or(LoginError::Malformed(name))
        };
        let uri = text("verification_uri")?;
        if !uri.starts_with("https://") {
            return Err(LoginError::Malformed("verification_uri"));
        }
        let lasts = members.get("expires_in").and_then(Value::as_u64).ok_or(LoginError::Malformed("expires_in"))?;
        let interval = members.get("interval").and_then(Value::as_u64).unwrap_or(INTERVAL).clamp(1, LONGEST_INTERVAL);
        Ok(Device {
            code: Secret::new(text("device_code")?.to_owned()),
            user_code: text("user_code")?.to_owned(),
            uri: uri.to_owned(),
            lasts: Duration::from_secs(lasts),
            interval: Duration::from_secs(interval),
        })
    }
}

/// The ID token in an answer of the token endpoint. What else is in it is dropped.
///
/// # Errors
/// The login host says no or not yet, or it isn't understood.
pub fn id_token(body: &[u8]) -> Result<Secret, LoginError> {
    match members(body)?.remove("id_token") {
        Some(Value::String(token)) if !token.is_empty() => Ok(Secret::new(token)),
        _ => Err(LoginError::Malformed("id_token")),
    }
}

/// The members of an answer that isn't an error (RFC 6749 section 5.2, RFC 8628 section 3.5).
fn members(body: &[u8]) -> Result<Map<String, Value>, LoginError> {
    if body.len() > MAX_DOCUMENT {
        return Err(LoginError::Malformed("it has more than 1 MiB"));
    }
    let members = json::object(body).map_err(|_| LoginError::Malformed("it isn't a JSON object"))?;
    match members.get("error") {
        None | Some(Value::Null) => Ok(members),
        Some(error) => match error.as_str().unwrap_or_default() {
            "authorization_pending" => Err(LoginError::Pending { slower: false }),
            "slow_down" => Err(LoginError::Pending { slower: true }),
            error => {
                let told = members.get("error_description").and_then(Value::as_str);
                Err(denied(error, told.unwrap_or_default()))
            }
        },
    }
}

fn denied(error: &str, told: &str) -> LoginError {
    let is_word = (1..=64).contains(&error.len()) && error.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    let code = if is_word { error.to_owned() } else { "other".to_owned() };
    let line: String = told.lines().next().unwrap_or_default().chars().take(MAX_TOLD).collect();
    let told = if line.is_empty() { code.clone() } else { line };
    LoginError::Denied { code, told }
}

#[cfg(test)]
mod tests;
