//! Azure storage's Shared Key: the string to sign for blobs, queues and files (version 2015-02-21 and later) and for
//! tables, and its signature. Source: "Authorize with Shared Key", Azure Storage REST reference.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// The service version that a request is sent with which names none.
const VERSION: &str = "2023-11-03";

/// The standard headers that are signed, in their order.
const SIGNED: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// The key, or a time, isn't one.
#[derive(Debug)]
pub(super) struct Invalid;

/// Dates a request and gives its signature, in base64.
pub(super) fn sign(parts: &mut Parts, account: &str, key: &[u8], at: Timestamp) -> Result<Zeroizing<String>, Invalid> {
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).map_err(|_| Invalid)?;
    parts.headers.insert("x-ms-date", HeaderValue::try_from(date).map_err(|_| Invalid)?);
    if !parts.headers.contains_key("x-ms-version") {
        parts.headers.insert("x-ms-version", HeaderValue::from_static(VERSION));
    }
    let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| Invalid)?);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signature = hmac::sign(&key, string_to_sign(parts, account).as_bytes());
    Ok(Zeroizing::new(STANDARD.encode(signature.as_ref())))
}

/// What is signed.
pub(super) fn string_to_sign(parts: &Parts, account: &str) -> String {
    let tables = authority(parts).split('.').nth(1) == Some("table");
    let header = |name: &str| joined(&parts.headers, name);
    let mut out = parts.method.as_str().to_owned();
    if tables {
        for value in [header("content-md5"), header("content-type"), header("x-ms-date")] {
            out = out + "\n" + &value;
        }
        out = format!("{out}\n/{account}{}", parts.uri.path());
        if let Some(component) = parameters(parts).into_iter().find(|(name, _)| name == "comp") {
            out = format!("{out}?comp={}", component.1);
        }
        return out;
    }
    for name in SIGNED {
        let value = match (name, header(name)) {
            // The time is in x-ms-date.
            ("date", _) => String::new(),
            ("content-length", length) if length == "0" => String::new(),
            (_, value) => value,
        };
        out = out + "\n" + &value;
    }
    out.push('\n');
    let mut own: Vec<&str> =
        parts.headers.keys().map(|name| name.as_str()).filter(|n| n.starts_with("x-ms-")).collect();
    own.sort_unstable();
    for name in own {
        out = out + name + ":" + &header(name) + "\n";
    }
    out = format!("{out}/{account}{}", parts.uri.path());
    let mut parameters = parameters(parts);
    parameters.sort();
    let mut last = None;
    for (name, value) in parameters {
        if last.as_ref() == Some(&name) {
            out = out + "," + &value;
        } else {
            out = out + "\n" + &name + ":" + &value;
        }
        last = Some(name);
    }
    out
}

/// The host that a request is for: HTTP/2 has it in the URI.
fn authority(parts: &Parts) -> String {
    parts.uri.authority().map_or_else(|| joined(&parts.headers, "host"), ToString::to_string)
}

/// A header's values, each without white space around it and with single blanks inside.
fn joined(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter().map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if text.contains('"') { text.trim().to_owned() } else { text.split_whitespace().collect::<Vec<_>>().join(" ") }
    });
    values.collect::<Vec<_>>().join(",")
}

/// The query's parameters, decoded, names in lower case.
fn parameters(parts: &Parts) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name).to_lowercase(), decoded(value)))
        .collect()
}
