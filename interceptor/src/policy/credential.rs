//! Which parts of a request authenticate it, by their names: of a value only the scheme is read. The names
//! are `detect`'s.

use super::Credential;
use crate::detect::secrets::{authenticates_header, authenticates_parameter};

/// Headers whose value is a URL of the service's own, which may be signed like one of a request ("Copy Blob").
const COPY_SOURCES: [&str; 2] = ["x-ms-copy-source", "x-amz-copy-source"];

/// What a request authenticates with besides `Authorization: Bearer`, by name, in lower case, sorted: the scheme of
/// another `Authorization`, a header, a key of the query after a question mark. Empty where nothing does.
///
/// `headers` are names and values; of a value nothing but the scheme is looked at, and nothing kept.
pub fn foreign<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>, query: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in headers {
        match scheme(name, value) {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer") => {}
            Some(scheme) => found.push(String::from_utf8_lossy(scheme).to_ascii_lowercase()),
            None if authenticates(name, value) => found.push(name.to_ascii_lowercase()),
            None => {}
        }
    }
    match query.map(super::path::parameters) {
        None => {}
        Some(Ok(parameters)) => {
            found.extend(
                parameters
                    .iter()
                    .filter(|(key, _)| authenticates_parameter(key))
                    .map(|(key, _)| format!("?{}", key.to_ascii_lowercase())),
            );
        }
        // What can't be read might authenticate.
        Some(Err(_)) => found.push("?".into()),
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn authenticates(name: &str, value: &[u8]) -> bool {
    let copies = COPY_SOURCES.iter().any(|known| name.eq_ignore_ascii_case(known));
    authenticates_header(name) || (copies && value.contains(&b'?'))
}

/// The scheme of an `Authorization` header (RFC 9110 section 11.4); one that isn't a token is the header's own name.
fn scheme<'a>(name: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    if !name.eq_ignore_ascii_case("authorization") {
        return None;
    }
    let end = value.iter().position(|c| *c == b' ').unwrap_or(value.len());
    let token = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let scheme = &value[..end];
    let plain = (1..=32).contains(&scheme.len()) && end < value.len() && scheme.iter().all(token);
    // Without a space it is the secret itself.
    Some(if plain { scheme } else { &b"authorization"[..] })
}

impl Credential {
    /// Its name, as policies compare it.
    pub fn as_str(self) -> &'static str {
        match self {
            Credential::None => "none",
            Credential::Entra => "entra",
            Credential::Injected => "injected",
            Credential::Foreign => "foreign",
        }
    }
}
