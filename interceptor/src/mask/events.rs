//! Server-sent events (WHATWG HTML section 9.2), each passed on as soon as it is complete. The data of one event is masked
//! as a whole, whatever lines it is cut into.

use super::Withheld;
use super::detector::Words;
use super::edit::{Edits, Offsets, Sink};
use super::engine::{Engine, apply_edits};
use super::escape::Escape;
use super::json::Json;

/// The most that is held of one event.
const LARGEST: usize = 1024 * 1024;

/// A stream of events.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The event that is coming in.
    held: Vec<u8>,
    /// Where its current line starts.
    line: usize,
    /// How far line ends were looked for.
    read: usize,
}

impl Events {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// An event that is too large, or that can't be masked.
    pub(super) fn push<S: Sink>(&mut self, bytes: &[u8], engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let passed = self.pass_on(&held, engine, sink)?;
        held.drain(..passed);
        self.held = held;
        Ok(())
    }

    /// Passes on the events that are complete, and says how long they are.
    fn pass_on<S: Sink>(&mut self, held: &[u8], engine: &mut Engine, sink: &mut S) -> Result<usize, Withheld> {
        let mut from = 0;
        while let Some(found) = memchr::memchr2(b'\n', b'\r', &held[self.read..]) {
            let mut end = self.read + found + 1;
            if held[end - 1] == b'\r' {
                match held.get(end) {
                    Some(b'\n') => end += 1,
                    Some(_) => {}
                    // The line feed that may follow belongs to it.
                    None => break,
                }
            }
            let blank = matches!(held[self.line], b'\n' | b'\r');
            self.line = end;
            self.read = end;
            if blank {
                mask(bounded(&held[from..end])?, engine, sink)?;
                from = end;
            }
        }
        bounded(&held[from..])?;
        self.line -= from;
        // A carriage return at the end is looked at again.
        self.read = held.len() - from - usize::from(held.last() == Some(&b'\r') && from < held.len());
        Ok(from)
    }

    /// The stream is complete. What isn't an event yet is none that a client would take, but is masked all the same.
    ///
    /// # Errors
    /// As [`Events::push`].
    pub(super) fn finish<S: Sink>(&mut self, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        let rest = std::mem::take(&mut self.held);
        mask(&rest, engine, sink)
    }
}

/// The event, or what has come of it.
///
/// # Errors
/// It is too large: judged by its own length, whatever came together with it.
fn bounded(event: &[u8]) -> Result<&[u8], Withheld> {
    if event.len() > LARGEST { Err(Withheld::too_large("an event")) } else { Ok(event) }
}

/// The data of an event, with its places in the event's lines.
#[derive(Default)]
struct Data {
    text: Vec<u8>,
    map: Offsets,
    start: usize,
    end: usize,
}

fn mask<S: Sink>(event: &[u8], engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
    let data = data(event, engine.plan.names_paths())?;
    plainly(&event[..data.start], engine, sink);
    let raw = &event[data.start..data.end];
    let edits = if is_harmless(&event[..data.start], &data.text) { None } else { as_json(&data.text, engine)? };
    if let Some(edits) = edits {
        apply_edits(&edits, raw, &data.map, Escape::Plain, sink);
    } else {
        engine.find(&data.text, &Words::default());
        engine.apply_hits(&data.text, raw, &data.map, Escape::Plain, false, sink);
    }
    plainly(&event[data.end..], engine, sink);
    Ok(())
}

/// Masks lines that hold no data.
fn plainly<S: Sink>(text: &[u8], engine: &mut Engine, sink: &mut S) {
    engine.find(text, &Words::default());
    engine.apply_hits(text, text, &Offsets::default(), Escape::Plain, false, sink);
}

/// Whether data says nothing of anybody: none, how many model APIs end their streams, what keeps a connection, and where the
/// client of an MCP server is to send its messages (2024-11-05, HTTP with SSE). `before`: the lines before it.
fn is_harmless(before: &[u8], data: &[u8]) -> bool {
    let data = data.trim_ascii();
    let is_endpoint = || {
        let mut named =
            before.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| line.strip_prefix(b"event:"));
        let is_place = [&b"/"[..], b"http://", b"https://"].iter().any(|start| data.starts_with(start));
        is_place
            && !data.iter().any(u8::is_ascii_whitespace)
            && named.next_back().is_some_and(|name| name.trim_ascii() == b"endpoint")
    };
    matches!(data, b"" | b"[DONE]" | b"ping" | b"pong" | b"heartbeat" | b"keepalive" | b"keep-alive") || is_endpoint()
}

/// What is masked in data that is JSON; none if it is text.
fn as_json(data: &[u8], engine: &mut Engine) -> Result<Option<Edits>, Withheld> {
    let mut edits = Edits::default();
    let before = engine.counts().clone();
    let done = Json::new(engine, false).push(data, true, engine, &mut edits);
    match done {
        Ok(_) => Ok(Some(edits)),
        // As a text it would pass with what a path leads to.
        Err(Withheld::Invalid(_)) if !engine.plan.names_paths() => {
            engine.restore(before);
            Ok(None)
        }
        Err(withheld) => Err(withheld),
    }
}

/// Gathers the data lines of an event. With `paths`, the others have to be such that no path could lead into them.
///
/// # Errors
/// Other lines between them, or others than an event has.
fn data(event: &[u8], paths: bool) -> Result<Data, Withheld> {
    let mut data = Data::default();
    let mut found = false;
    let mut at = 0;
    // A byte order mark may stand before the first line.
    if event.starts_with(b"\xef\xbb\xbf") {
        at = 3;
    }
    while at < event.len() {
        let length = memchr::memchr2(b'\n', b'\r', &event[at..]).unwrap_or(event.len() - at);
        let line = &event[at..at + length];
        let mut next = at + length;
        if event.get(next) == Some(&b'\r') && event.get(next + 1) == Some(&b'\n') {
            next += 1;
        }
        next = (next + 1).min(event.len());
        let value = match line {
            b"data" => Some(4),
            [b'd', b'a', b't', b'a', b':', b' ', ..] => Some(6),
            [b'd', b'a', b't', b'a', b':', ..] => Some(5),
            _ => None,
        };
        if let Some(skipped) = value {
            let start = at + skipped;
            if !found {
                data.start = start;
                found = true;
            } else if line_break(&event[data.end..at]) {
                data.map.escape(data.text.len(), data.end - data.start);
                data.text.push(b'\n');
            } else {
                return Err(Withheld::invalid("other lines between the data lines of an event"));
            }
            data.map.plain(data.text.len(), start - data.start);
            data.text.extend_from_slice(&event[start..at + length]);
            data.end = at + length;
        } else if paths && !is_memberless(line) {
            return Err(Withheld::invalid("a line in an event that isn't data and may hold members"));
        }
        at = next;
    }
    if !found {
        data.start = event.len();
        data.end = event.len();
    }
    Ok(data)
}

/// Whether a line without data is one that events have, and holds nothing like JSON.
fn is_memberless(line: &[u8]) -> bool {
    let name = memchr::memchr(b':', line).map_or(line, |colon| &line[..colon]);
    matches!(name, b"" | b"event" | b"id" | b"retry") && !line.iter().any(|byte| matches!(byte, b'{' | b'[' | b'"'))
}

fn line_break(between: &[u8]) -> bool {
    matches!(between, b"\n" | b"\r" | b"\r\n")
}

#[cfg(test)]
mod tests;
