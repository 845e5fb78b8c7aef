//! `interceptor sessions export`: recorded sessions for other tools, and operations that belong to none. HAR 1.2 holds HTTP
//! operations and requests for tokens; NDJSON holds every operation, a line each; so does OCSF, without what was sent, in
//! the shape that `ocsf` makes.

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
use crate::record::Placed;
use crate::record::payload::Message;
use crate::record::query::{Operation, Session, Story};
use crate::record::search::{Hits, Search};

mod har;
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

/// How much of the way through the record is asked for at once, at most.
const PIECE: u32 = 10_000;

/// Exports the sessions `ids`, or all that is recorded.
pub(super) fn export(out: &mut dyn Write, socket: &Path, format: Format, ids: &[String]) -> Result<(), Failure> {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut export = Export { out, socket, format, host, first: true };
    if format == Format::Har {
        let creator = json!({ "name": "interceptor", "version": env!("CARGO_PKG_VERSION") });
        write!(export.out, "{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"entries\":[")?;
    }
    if ids.is_empty() {
        walk(
            |search| {
                let value = client::call(socket, &Request::SessionsSearch { search: Box::new(search.clone()) })?;
                Ok(serde_json::from_value(value)?)
            },
            |first| export.what_begins_with(first),
        )?;
    }
    // One at a time, so that memory doesn't grow with the record.
    for id in ids {
        export.story(&whole::story(socket, id)?)?;
    }
    if format == Format::Har {
        writeln!(export.out, "\n]}}}}")?;
    }
    Ok(export.out.flush()?)
}

/// Gives `each` what begins a session or belongs to none, of all that is recorded by now, in as many answers as it takes.
fn walk(
    mut ask: impl FnMut(&Search) -> Result<Hits, Failure>,
    mut each: impl FnMut(Operation) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut search = Search { begins: Some(0), limit: PIECE, ..Search::default() };
    loop {
        let Hits { hits, next, end } = ask(&search)?;
        // What comes meanwhile isn't waited for: there may be no end of it.
        search.before = search.before.or(end);
        for hit in hits {
            each(hit.operation)?;
        }
        if next.is_none() {
            return Ok(());
        }
        search.begins = next;
    }
}

/// What is being written.
struct Export<'a> {
    out: &'a mut dyn Write,
    socket: &'a Path,
    format: Format,
    /// The name of this host.
    host: String,
    /// Whether nothing is written yet that a comma has to follow.
    first: bool,
}

impl Export<'_> {
    /// The session that begins with this operation, or the operation, if it belongs to none.
    fn what_begins_with(&mut self, first: Operation) -> Result<(), Failure> {
        let Some(id) = first.session.clone() else { return self.operation(None, &first) };
        match whole::story(self.socket, &id) {
            Ok(story) => self.story(&story),
            // How it was opened is in a part of the record that is damaged.
            Err(error) if whole::is_unknown(&error) => {
                let operations = whole::rest(self.socket, &id, first)?;
                operations.iter().try_for_each(|operation| self.operation(None, operation))
            }
            Err(error) => Err(error),
        }
    }

    fn story(&mut self, story: &Story) -> Result<(), Failure> {
        story.operations.iter().try_for_each(|operation| self.operation(Some(&story.session), operation))
    }

    fn operation(&mut self, session: Option<&Session>, operation: &Operation) -> Result<(), Failure> {
        if self.format == Format::Ocsf {
            let asked = Request::OperationLink { operation: operation.operation.clone() };
            let placed: Placed = serde_json::from_value(client::call(self.socket, &asked)?)?;
            writeln!(self.out, "{}", ocsf::event(session, operation, &placed, &self.host))?;
            return Ok(());
        }
        let kept = whole::payload(self.socket, operation)?;
        match self.format {
            Format::Ndjson => writeln!(self.out, "{}", line(session, operation, &kept)?)?,
            Format::Har if har::holds(operation) => {
                let comma = if self.first { "" } else { "," };
                write!(self.out, "{comma}\n{}", entry(session, operation, &kept))?;
                self.first = false;
            }
            Format::Har | Format::Ocsf => {}
        }
        Ok(())
    }
}

fn line(session: Option<&Session>, operation: &Operation, kept: &Kept) -> Result<Value, Failure> {
    let payload = match kept {
        Kept::Content(content) => content.to_json()?,
        Kept::Nothing => Value::Null,
        Kept::Gone(why) => json!({ "gone": why }),
    };
    let (session, operation) = (serde_json::to_value(session)?, serde_json::to_value(operation)?);
    Ok(json!({ "session": session, "operation": operation, "payload": payload }))
}

fn entry(session: Option<&Session>, operation: &Operation, kept: &Kept) -> Value {
    let empty = Message::default();
    let (request, response) = match kept {
        Kept::Content(content) => (&content.request, content.response.as_ref().unwrap_or(&empty)),
        Kept::Nothing | Kept::Gone(_) => (&empty, &empty),
    };
    let mut first_line = request.start.split(' ');
    let summary = har::asked(operation);
    let method = first_line.next().filter(|method| !method.is_empty()).unwrap_or(summary.0);
    let target = first_line.next().unwrap_or(summary.1);
    let origin = har::origin(session, request);
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
        let (text, encoding) = text(&request.body);
        sent["postData"] = json!({ "mimeType": kind(request), "text": text });
        if let Some(encoding) = encoding {
            // HAR has a field for it in answers only.
            sent["postData"]["_encoding"] = encoding.into();
        }
    }
    let (text, encoding) = text(&response.body);
    let mut content = json!({ "size": response.bytes, "mimeType": kind(response), "text": text });
    if let Some(encoding) = encoding {
        content["encoding"] = encoding.into();
    }
    let status = response.start.split_once(' ').map_or("", |(_, text)| text);
    let mut entry = json!({
        "startedDateTime": operation.decided_at, "time": took, "request": sent,
        "response": {
            "status": operation.status.unwrap_or(0), "statusText": status, "httpVersion": "HTTP/1.1", "cookies": [],
            "headers": fields(&response.headers), "content": content, "redirectURL": "",
            "headersSize": -1, "bodySize": operation.response.bytes.map_or(-1, u64::cast_signed),
        },
        "cache": {}, "timings": { "send": 0, "wait": took, "receive": 0 },
        "_interceptor": {
            "session": operation.session, "operation": operation.operation, "workload": operation.workload,
            "target": operation.target, "verdict": operation.verdict, "code": operation.code,
            "policies": operation.basis.policies, "outcome": operation.outcome,
            "uti": operation.identity.as_ref().and_then(|identity| identity.uti.as_ref()),
            "service_request": operation.service_request,
        },
    });
    har::tell(&mut entry, operation, kept);
    entry
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

#[cfg(test)]
mod tests;
