//! What is sent at once, and how each kind of sink wants it written. The body of an event goes as it stands in the
//! chain, as text, so that the receiver can compute the chain from what it got.

use std::fmt::Write;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::BatchFormat;
use crate::record::Link;
use crate::record::checkpoint::Signed;

/// The facility of every message: log audit (RFC 5424 section 6.2.1).
const FACILITY: u8 = 13;

/// The name of the structured data (RFC 5424 section 7.2.2); 32473 is the enterprise number of examples (RFC 5612), as the
/// project has none.
const STRUCTURED: &str = "interceptor@32473";

/// The kind of a checkpoint's message.
const CHECKPOINT: &str = "checkpoint";

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// An event of the chain.
    Event(Link),
    /// A signed checkpoint.
    Checkpoint(Signed),
}

/// How much an event matters, where a sink has a word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Plain,
    Denied,
    Fault,
}

/// What of an event's body a sink is told besides it.
#[derive(Deserialize)]
struct Head {
    at: Timestamp,
    event: String,
    #[serde(default)]
    verdict: Option<String>,
}

/// A message's parts.
struct Parts<'a> {
    at: Option<Timestamp>,
    kind: String,
    weight: Weight,
    seq: u64,
    hash: &'a str,
    text: &'a str,
}

impl Item {
    /// When it happened, or was signed; none of an event that this version can't read.
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.parts().at
    }

    fn parts(&self) -> Parts<'_> {
        match self {
            Item::Event(link) => {
                let head: Option<Head> = serde_json::from_str(&link.body).ok();
                let weight = match &head {
                    Some(Head { event, .. }) if event.starts_with("record.damaged") => Weight::Fault,
                    Some(Head { verdict: Some(verdict), .. }) if verdict == "deny" => Weight::Denied,
                    _ => Weight::Plain,
                };
                let at = head.as_ref().map(|head| head.at);
                let kind = head.map_or_else(|| "event".to_owned(), |head| head.event);
                Parts { at, kind, weight, seq: link.seq, hash: &link.hash, text: &link.body }
            }
            Item::Checkpoint(signed) => Parts {
                at: Some(signed.checkpoint.at),
                kind: CHECKPOINT.to_owned(),
                weight: Weight::Plain,
                seq: signed.checkpoint.seq,
                hash: &signed.checkpoint.hash,
                text: &signed.line,
            },
        }
    }
}

/// As syslog messages (RFC 5424), each with its length before it (RFC 5425 section 4.3).
pub(super) fn syslog(items: &[Item], host: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for item in items {
        let parts = item.parts();
        let severity = match parts.weight {
            Weight::Fault => 3,
            Weight::Denied => 4,
            Weight::Plain => 6,
        };
        let priority = FACILITY * 8 + severity;
        // Six digits of a second are the most that a message may have.
        let at = parts.at.map_or_else(|| "-".to_owned(), |at| format!("{at:.6}"));
        let (host, kind) = (word(host, 255), word(&parts.kind, 32));
        let mut message = format!("<{priority}>1 {at} {host} interceptor - {kind} ");
        // Writing to a string doesn't fail.
        let _ = write!(message, "[{STRUCTURED} seq=\"{}\" hash=\"{}\"] {}", parts.seq, parts.hash, parts.text);
        all.extend_from_slice(format!("{} ", message.len()).as_bytes());
        all.extend_from_slice(message.as_bytes());
    }
    all
}

/// A header's field: printable ASCII without spaces, `-` for none.
fn word(text: &str, most: usize) -> String {
    let plain: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if plain.is_empty() { "-".into() } else { plain }
}

/// As JSON objects, a line each or in an array.
pub(super) fn objects(items: &[Item], format: BatchFormat) -> Vec<u8> {
    let objects = items.iter().map(|item| {
        let Parts { at, kind, seq, hash, text, .. } = item.parts();
        let what = if matches!(item, Item::Event(_)) { "body" } else { CHECKPOINT };
        json!({ "at": at, "event": kind, "seq": seq, "hash": hash, what: text })
    });
    match format {
        BatchFormat::Lines => objects.map(|object| format!("{object}\n")).collect::<String>().into_bytes(),
        BatchFormat::Array => Value::Array(objects.collect()).to_string().into_bytes(),
    }
}

/// As a request of OTLP/HTTP with JSON (`ExportLogsServiceRequest`; 64-bit numbers are text there).
pub(super) fn otlp(items: &[Item], host: &str) -> Vec<u8> {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let records: Vec<Value> = items
        .iter()
        .map(|item| {
            let parts = item.parts();
            let (number, name) = match parts.weight {
                Weight::Fault => (17, "ERROR"),
                Weight::Denied => (13, "WARN"),
                Weight::Plain => (9, "INFO"),
            };
            let nanoseconds = parts.at.map_or_else(|| "0".to_owned(), |at| at.as_nanosecond().max(0).to_string());
            json!({
                "timeUnixNano": nanoseconds, "observedTimeUnixNano": nanoseconds,
                "severityNumber": number, "severityText": name, "eventName": parts.kind,
                "body": { "stringValue": parts.text },
                "attributes": [
                    text("event.name", &parts.kind),
                    { "key": "interceptor.seq", "value": { "intValue": parts.seq.to_string() } },
                    text("interceptor.hash", parts.hash),
                ],
            })
        })
        .collect();
    let request = json!({ "resourceLogs": [{
        "resource": { "attributes": [text("service.name", "interceptor"), text("host.name", host)] },
        "scopeLogs": [{
            "scope": { "name": "interceptor.record", "version": env!("CARGO_PKG_VERSION") },
            "logRecords": records,
        }],
    }] });
    request.to_string().into_bytes()
}

#[cfg(test)]
mod tests;
