//! The claims challenge of continuous access evaluation: a 401 by which a service makes a client sign in anew. We send
//! it for a token that nobody saw, so that the SDK fetches one through us; and we see it pass when a service sends it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::json;
use super::verify::Cloud;

/// The most bytes of a header that are read.
const MAX_HEADER: usize = 16 * 1024;

/// What a service asks for when it refuses a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// A newer token (`nbf`), or it doesn't say what: the one that it was sent is dead.
    Renew,
    /// More than the token says (an authentication context, …): for other operations it is as good as before.
    StepUp,
}

/// The value of `WWW-Authenticate` that makes a client ask for a token that isn't older than `now`.
pub fn value(cloud: &Cloud, now: Timestamp) -> String {
    let claims = json!({ "access_token": { "nbf": { "essential": true, "value": now.as_second().to_string() } } });
    format!(
        r#"Bearer realm="", authorization_uri="{}/common/oauth2/authorize", error="insufficient_claims", claims="{}""#,
        cloud.login,
        STANDARD.encode(claims.to_string())
    )
}

/// What the values of `WWW-Authenticate` in a 401 ask for, if one of them is a claims challenge.
pub fn find<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    values.into_iter().find_map(|value| {
        let parameters = parameters(value);
        let is =
            |name: &str| parameters.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        if is("error") != Some("insufficient_claims") {
            return None;
        }
        Some(if is("claims").is_some_and(wants_more) { Challenge::StepUp } else { Challenge::Renew })
    })
}

/// Whether claims are asked for, and `nbf` isn't among them.
fn wants_more(claims: &str) -> bool {
    let bare = claims.trim_end_matches('=');
    let decoded = STANDARD_NO_PAD.decode(bare).or_else(|_| URL_SAFE_NO_PAD.decode(bare));
    let Some(claims) = decoded.ok().and_then(|bytes| json::object(&bytes).ok()) else { return false };
    let wanted = claims.get("access_token").and_then(Value::as_object);
    wanted.is_some_and(|wanted| !wanted.is_empty() && !wanted.contains_key("nbf"))
}

/// All `name=value` in a header of challenges (RFC 9110 section 11.6.1), whichever scheme they belong to; what is quoted
/// is one value, whatever is in it.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header.get(..header.len().min(MAX_HEADER)).unwrap_or_default();
    while let Some(equals) = rest.find('=') {
        let name = rest[..equals].rsplit([' ', ',', '\t']).next().unwrap_or_default().to_owned();
        rest = &rest[equals + 1..];
        let value = if let Some(quoted) = rest.strip_prefix('"') {
            let (value, after) = unquote(quoted);
            rest = after;
            value
        } else {
            let end = rest.find([' ', ',', '\t']).unwrap_or(rest.len());
            let (value, after) = rest.split_at(end);
            rest = after;
            value.to_owned()
        };
        found.push((name, value));
    }
    found
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests;
