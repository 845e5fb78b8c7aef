//! `interceptor sessions export`: recorded sessions for other tools. HAR 1.2 holds HTTP operations; NDJSON holds every
//! operation, a line each; so does OCSF, without what was sent, in the shape that `ocsf` makes.

use std::io::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Failure;
use super::whole::{self, Kept};
use crate::control::client;
use crate::control::protocol::Request;
use crate::record::Link;
use crate::record::payload::Message;
use crate::record::query::{Operation, Session, Story};

mod ocsf;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// HTTP Archive 1.2, one JSON object.
    Har,
    /// One JSON object a line.
    Ndjson,
    /// One event of the Open Cybersecurity Schema Framework a line; reads no payload.
    Ocsf,
}

/// Sessions that are exported where none is named: the latest.
const LATEST: u32 = 10_000;

/// Exports the sessions `ids`, or all that a list holds.
pub(super) fn export(out: &mut dyn Write, socket: &Path, format: Format, ids: &[String]) -> Result<(), Failure> {
    let ids = if ids.is_empty() {
        let value = client::call(socket, &Request::SessionsList { limit: LATEST })?;
        let sessions: Vec<Session> = serde_json::from_value(value)?;
        sessions.into_iter().rev().map(|session| session.session).collect()
    } else {
        ids.to_vec()
    };
    let mut first = true;
    if format == Format::Har {
        let creator = json!({ "name": "interceptor", "version": env!("CARGO_PKG_VERSION") });
        write!(out, "{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"entries\":[")?;
    }
    // One at a time, so that memory doesn't grow with the record.
    for id in ids {
        let story = whole::story(socket, &id)?;
        for operation in &story.operations {
            if format == Format::Ocsf {
                let asked = Request::OperationLink { operation: operation.operation.clone() };
                let link: Link = serde_json::from_value(client::call(socket, &asked)?)?;
                writeln!(out, "{}", ocsf::event(&story, operation, &link))?;
                continue;
            }
            let kept = whole::payload(socket, operation)?;
            match format {
                Format::Ndjson => writeln!(out, "{}", line(&story, operation, &kept)?)?,
                Format::Har if operation.action.starts_with("http") => {
                    let comma = if first { "" } else { "," };
                    write!(out, "{comma}\n{}", entry(&story, operation, &kept))?;
                    first = false;
                }
                Format::Har | Format::Ocsf => {}
            }
        }
    }
    if format == Format::Har {
        writeln!(out, "\n]}}}}")?;
    }
    Ok(out.flush()?)
}

fn line(story: &Story, operation: &Operation, kept: &Kept) -> Result<Value, Failure> {
    let payload = match kept {
        Kept::Content(content) => content.to_json()?,
        Kept::Nothing => Value::Null,
        Kept::Gone(why) => json!({ "gone": why }),
    };
    let session = serde_json::to_value(&story.session)?;
    Ok(json!({ "session": session, "operation": serde_json::to_value(operation)?, "payload": payload }))
}

fn entry(story: &Story, operation: &Operation, kept: &Kept) -> Value {
    let empty = Message::default();
    let (request, response) = match kept {
        Kept::Content(content) => (&content.request, content.response.as_ref().unwrap_or(&empty)),
        Kept::Nothing | Kept::Gone(_) => (&empty, &empty),
    };
    let mut first_line = request.start.split(' ');
    let summary = operation.summary.split_once(' ').unwrap_or(("", operation.summary.as_str()));
    let method = first_line.next().filter(|method| !method.is_empty()).unwrap_or(summary.0);
    let target = first_line.next().unwrap_or(summary.1);
    let host = story.session.host.as_deref().unwrap_or(&story.session.original);
    let port = story.session.original.rsplit(':').next().unwrap_or("443");
    let origin = match port {
        "443" => format!("https://{host}"),
        "80" => format!("http://{host}"),
        port => format!("https://{host}:{port}"),
    };
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let query: Vec<Value> =
        form_urlencoded::parse(query.as_bytes()).map(|(name, value)| field(&name, &value)).collect();
    let took = duration(operation);
    let mut sent = json!({
        "method": method, "url": format!("{origin}{target}"), "httpVersion": first_line.next().unwrap_or("HTTP/1.1"),
        "cookies": [], "headers": fields(&request.headers), "queryString": query,
        "headersSize": -1, "bodySize": operation.request.bytes.map_or(-1, u64::cast_signed),
    });
    if !request.body.is_empty() {
        let (text, _) = text(&request.body);
        sent["postData"] = json!({ "mimeType": kind(request), "text": text });
    }
    let (text, encoding) = text(&response.body);
    let mut content = json!({ "size": response.bytes, "mimeType": kind(response), "text": text });
    if let Some(encoding) = encoding {
        content["encoding"] = encoding.into();
    }
    let status = response.start.split_once(' ').map_or("", |(_, text)| text);
    json!({
        "startedDateTime": operation.decided_at, "time": took, "request": sent,
        "response": {
            "status": operation.status.unwrap_or(0), "statusText": status, "httpVersion": "HTTP/1.1", "cookies": [],
            "headers": fields(&response.headers), "content": content, "redirectURL": "",
            "headersSize": -1, "bodySize": operation.response.bytes.map_or(-1, u64::cast_signed),
        },
        "cache": {}, "timings": { "send": 0, "wait": took, "receive": 0 },
        "_interceptor": {
            "session": story.session.session, "operation": operation.operation, "workload": story.session.workload,
            "target": operation.target, "verdict": operation.verdict, "code": operation.code,
            "policies": operation.basis.policies, "outcome": operation.outcome,
        },
    })
}

fn field(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

fn fields(headers: &[(String, String)]) -> Vec<Value> {
    headers.iter().map(|(name, value)| field(name, value)).collect()
}

fn kind(message: &Message) -> &str {
    let field = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    field.map_or("", |(_, value)| value.as_str())
}

/// A body as text, or in base64 where it isn't.
fn text(body: &[u8]) -> (String, Option<&'static str>) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (STANDARD.encode(body), Some("base64")),
    }
}

/// In milliseconds.
fn duration(operation: &Operation) -> i64 {
    let ended = operation.finished_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
    let began = operation.decided_at.parse::<Timestamp>().ok();
    ended.zip(began).map_or(0, |(ended, began)| (ended.as_millisecond() - began.as_millisecond()).max(0))
}
