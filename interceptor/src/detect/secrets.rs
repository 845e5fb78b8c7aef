//! The secret places: where a message carries what must never be recorded, whatever the configuration says. Client
//! secrets, assertions, tokens, codes, cookies, passwords, signatures: found by the name of their place (a header, a
//! query key, a field of a form or of JSON, a clause of SQL), and where they have no place, by their shape. What is
//! found is replaced by [`MARK`]. Rather too much than too little: a record that hides a page token is still a record.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

mod field;
mod text;

/// What stands in the record where a secret was.
pub const MARK: &str = "[secret]";

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
    if is_secret_header(name) { Cow::Borrowed(MARK.as_bytes()) } else { text::redact(Cow::Borrowed(value)) }
}

/// A query, or a form body, as it may be recorded: the values of secret keys are replaced, and what looks like a
/// secret elsewhere.
pub fn query(raw: &str) -> String {
    let pairs = raw.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if is_secret_parameter(&decoded(key)) => format!("{key}={MARK}"),
        _ => pair.to_owned(),
    });
    let kept = pairs.collect::<Vec<_>>().join("&");
    String::from_utf8_lossy(&text::redact(Cow::Borrowed(kept.as_bytes()))).into_owned()
}

/// A path as it may be recorded.
pub fn path(raw: &str) -> String {
    String::from_utf8_lossy(&text::redact(Cow::Borrowed(raw.as_bytes()))).into_owned()
}

/// A body as it may be recorded, decoded from its content codings. It may be cut short at its end. `content_type` is
/// the header's value, or empty.
pub fn body(content_type: &str, bytes: &[u8]) -> Vec<u8> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let first = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    let placed: Cow<'_, [u8]> = if essence == "application/x-www-form-urlencoded" {
        Cow::Owned(query(&String::from_utf8_lossy(bytes)).into_bytes())
    } else if essence == "text/event-stream" || EVENT_FIELDS.iter().any(|field| bytes.starts_with(field.as_bytes())) {
        Cow::Owned(field::events(bytes))
    } else if essence.contains("json") || matches!(first, Some(b'{' | b'[' | RECORD_SEPARATOR)) {
        Cow::Owned(field::json(bytes))
    } else if matches!(&*essence, "text/csv" | "application/csv" | "text/tab-separated-values") {
        Cow::Owned(field::table(bytes))
    } else if essence.starts_with("multipart/") {
        text::multipart(bytes)
    } else {
        Cow::Borrowed(bytes)
    };
    text::redact(placed).into_owned()
}

/// A key as servers read it: percent-decoded, `+` for a blank.
fn decoded(key: &str) -> String {
    percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests;
