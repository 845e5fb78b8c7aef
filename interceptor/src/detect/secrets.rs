//! The secret places: where a message carries what must never be recorded, whatever the configuration says. Client
//! secrets, assertions, tokens, codes, cookies, passwords, signatures: found by the name of their place (a header, a
//! query key, a field of a form or of JSON, a clause of SQL), and where they have no place, by their shape. What is
//! found is replaced by [`MARK`]. Rather too much than too little: a record that hides a page token is still a record.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;

mod field;
mod text;

/// What stands in the record where a secret was.
pub const MARK: &str = "[secret]";

/// A part of a text, and how many bytes stand in its place.
pub type Replaced = (Range<usize>, usize);

/// Request headers, in lower case, whose values authenticate: by themselves, or beside an `Authorization` as somebody else.
const HEADERS: [&str; 34] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "api-key",
    "apikey",
    "x-api-key",
    "x-api-token",
    "x-auth-key",
    "x-auth-token",
    "x-access-token",
    "x-functions-key",
    "x-zumo-auth",
    "x-zumo-master",
    "x-ms-authorization-auxiliary",
    "x-ms-client-principal",
    "x-ms-copy-source-authorization",
    "x-ms-token-aad-access-token",
    "aeg-sas-key",
    "aeg-sas-token",
    "ocp-apim-subscription-key",
    "x-amz-access-token",
    "x-amz-security-token",
    "x-goog-api-key",
    "x-vault-token",
    "x-consul-token",
    "x-nomad-token",
    "private-token",
    "job-token",
    "deploy-token",
    "dd-api-key",
    "dd-application-key",
    "x-figma-token",
    "x-jfrog-art-api",
    "x-shopify-access-token",
];

/// More headers, of either direction, whose values are secret without authenticating the request they are in.
const SECRET_HEADERS: [&str; 7] = [
    "set-cookie",
    "authentication-info",
    "proxy-authentication-info",
    "x-identity-header",
    "x-ms-encryption-key",
    "x-amz-server-side-encryption-customer-key",
    "secret",
];

/// Keys of a query, in lower case, whose values authenticate: SAS and other signatures, keys, tokens.
const PARAMETERS: [&str; 13] = [
    "sig",
    "signature",
    "access_token",
    "id_token",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "key",
    "code",
    "subscription-key",
    "x-amz-signature",
    "x-goog-signature",
];

/// What an event stream begins with, where its type isn't told.
const EVENT_FIELDS: [&str; 4] = ["data:", "event:", "id:", "retry:"];

/// What stands before each document of a sequence (RFC 7464).
const RECORD_SEPARATOR: u8 = 0x1e;

/// Whether a request header of this name authenticates: some servers know `-` and `_` as the `_` of CGI, so both are one.
pub fn authenticates_header(name: &str) -> bool {
    let same = |known: &str| {
        let folded = name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() });
        known.len() == name.len() && folded.eq(known.bytes())
    };
    HEADERS.into_iter().any(same)
}

/// Whether a query key of this name (decoded) authenticates.
pub fn authenticates_parameter(key: &str) -> bool {
    PARAMETERS.iter().any(|known| key.eq_ignore_ascii_case(known))
}

/// Whether the value of a header of this name, in a request or a response, is never recorded.
pub fn is_secret_header(name: &str) -> bool {
    let listed = SECRET_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known));
    listed || authenticates_header(name) || field::is_secret(name)
}

/// Whether the value of a query key or form field of this name (decoded) is never recorded.
pub fn is_secret_parameter(key: &str) -> bool {
    authenticates_parameter(key) || field::is_secret(key)
}

/// The value of a header as it may be recorded.
pub fn header<'a>(name: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
    if is_secret_header(name) {
        return Cow::Borrowed(MARK.as_bytes());
    }
    text::redact(Cow::Borrowed(value), &mut |_| {})
}

/// A query, or a form body, as it may be recorded: the values of secret keys are replaced, and what looks like a
/// secret elsewhere.
pub fn query(raw: &str) -> String {
    let kept = pairs(raw, &mut |_| {});
    String::from_utf8_lossy(&text::redact(Cow::Borrowed(kept.as_bytes()), &mut |_| {})).into_owned()
}

/// `raw` without the values of secret keys.
fn pairs(raw: &str, told: &mut dyn FnMut(&[Replaced])) -> String {
    let (mut kept, mut replaced, mut at) = (String::with_capacity(raw.len()), Vec::new(), 0);
    for pair in raw.split('&') {
        if at > 0 {
            kept.push('&');
        }
        match pair.split_once('=') {
            Some((key, value)) if is_secret_parameter(&decoded(key)) => {
                let start = at + key.len() + 1;
                replaced.push((start..start + value.len(), MARK.len()));
                kept.extend([key, "=", MARK]);
            }
            _ => kept.push_str(pair),
        }
        at += pair.len() + 1;
    }
    told(&replaced);
    kept
}

/// A path as it may be recorded.
pub fn path(raw: &str) -> Cow<'_, str> {
    match text::redact(Cow::Borrowed(raw.as_bytes()), &mut |_| {}) {
        Cow::Borrowed(_all) => Cow::Borrowed(raw),
        Cow::Owned(kept) => Cow::Owned(String::from_utf8_lossy(&kept).into_owned()),
    }
}

/// A body as it may be recorded, decoded from its content codings. It may be cut short at its end. `content_type` is
/// the header's value, or empty.
pub fn body(content_type: &str, bytes: &[u8]) -> Vec<u8> {
    body_telling(content_type, bytes, &mut |_| {})
}

/// The same. `told` hears what each pass over the body replaces in what the one before left, in order and without overlap.
pub fn body_telling(content_type: &str, bytes: &[u8], told: &mut dyn FnMut(&[Replaced])) -> Vec<u8> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let first = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    let placed: Cow<'_, [u8]> = if essence == "application/x-www-form-urlencoded" {
        let kept = pairs(&readable(bytes, told), told);
        text::redact(Cow::Owned(kept.into_bytes()), told)
    } else if essence == "text/event-stream" || EVENT_FIELDS.iter().any(|field| bytes.starts_with(field.as_bytes())) {
        Cow::Owned(telling(told, |replaced| field::events(bytes, replaced)))
    } else if essence.contains("json") || matches!(first, Some(b'{' | b'[' | RECORD_SEPARATOR)) {
        Cow::Owned(telling(told, |replaced| field::json(bytes, 0, replaced)))
    } else if matches!(&*essence, "text/csv" | "application/csv" | "text/tab-separated-values") {
        Cow::Owned(telling(told, |replaced| field::table(bytes, replaced)))
    } else if essence.starts_with("multipart/") {
        text::multipart(bytes, told)
    } else {
        Cow::Borrowed(bytes)
    };
    text::redact(placed, told).into_owned()
}

/// Makes a pass, and tells what it replaced.
fn telling(told: &mut dyn FnMut(&[Replaced]), pass: impl FnOnce(&mut Vec<Replaced>) -> Vec<u8>) -> Vec<u8> {
    let mut replaced = Vec::new();
    let kept = pass(&mut replaced);
    told(&replaced);
    kept
}

/// `bytes` as text: what isn't UTF-8 is replaced.
fn readable<'a>(bytes: &'a [u8], told: &mut dyn FnMut(&[Replaced])) -> Cow<'a, str> {
    let text = String::from_utf8_lossy(bytes);
    if matches!(text, Cow::Owned(_)) {
        let (mut replaced, mut at) = (Vec::new(), 0);
        for chunk in bytes.utf8_chunks() {
            let start = at + chunk.valid().len();
            at = start + chunk.invalid().len();
            if start < at {
                replaced.push((start..at, char::REPLACEMENT_CHARACTER.len_utf8()));
            }
        }
        told(&replaced);
    }
    text
}

/// A key as servers read it: percent-decoded, `+` for a blank.
fn decoded(key: &str) -> String {
    percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests;
