//! What an HTTP Archive holds, where it went, and what the format has no fields for.

use std::net::Ipv6Addr;

use serde_json::{Map, Value, json};

use super::fields;
use crate::cli::sessions::whole::Kept;
use crate::record::payload::Message;
use crate::record::query::{Operation, Session};

/// The action of a request for a token.
const TOKEN: &str = "token:request";

/// Whether an archive has an entry for it.
pub(super) fn holds(operation: &Operation) -> bool {
    operation.action.starts_with("http") || operation.action == TOKEN
}

/// The method and the path that its summary tells; that of a request for a token tells neither.
pub(super) fn asked(operation: &Operation) -> (&str, &str) {
    if operation.action == TOKEN {
        return ("", "/");
    }
    let (method, rest) = operation.summary.split_once(' ').unwrap_or(("", &operation.summary));
    (method, rest.split(' ').next().unwrap_or(rest))
}

/// Where a request went: `https://graph.microsoft.com`, `http://[::1]:8080`. What isn't known to have come in TLS, or not
/// to, is told by its port.
pub(super) fn origin(session: Option<&Session>, request: &Message) -> String {
    let original = session.map_or("", |session| session.original.as_str());
    let (address, port) = original.rsplit_once(':').unwrap_or((original, ""));
    let host = session.and_then(|session| session.host.as_deref()).unwrap_or(address);
    let host = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
    // HTTP/2 is spoken in TLS only.
    let is_tls = request.tls.unwrap_or(port != "80" || request.start.ends_with(" HTTP/2"));
    let (scheme, usual) = if is_tls { ("https", "443") } else { ("http", "80") };
    if port.is_empty() || port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
}

/// Adds the summary, trailers, why a body isn't here or not whole, and why nothing is.
pub(super) fn tell(entry: &mut Value, operation: &Operation, kept: &Kept) {
    entry["comment"] = operation.summary.as_str().into();
    let own = &mut entry["_interceptor"];
    match kept {
        Kept::Nothing => {}
        Kept::Gone(why) => own["gone"] = why.as_str().into(),
        Kept::Content(content) => {
            for (side, message) in [("request", Some(&content.request)), ("response", content.response.as_ref())] {
                if let Some(rest) = message.and_then(rest) {
                    own[side] = rest;
                }
            }
        }
    }
}

fn rest(message: &Message) -> Option<Value> {
    let mut rest = Map::new();
    if !message.trailers.is_empty() {
        rest.insert("trailers".into(), json!(fields(&message.trailers)));
    }
    if let Some(partial) = &message.partial {
        rest.insert("partial".into(), partial.as_str().into());
    }
    (!rest.is_empty()).then(|| rest.into())
}

#[cfg(test)]
mod tests;
