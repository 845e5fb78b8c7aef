//! A body over several lines: a JSON document by its members, JSON Lines and the data of events each by themselves, a form
//! by its fields. Only white space between tokens changes. What isn't what it seems to be stays as it is.

use super::json;
use crate::record::payload::Message;

/// `text`, the body of `message`, for people.
pub(super) fn spread(message: &Message, text: &str) -> String {
    let breaks_off = matches!(message.partial.as_deref(), Some("cut" | "memory"));
    match kind(message).as_str() {
        "application/x-www-form-urlencoded" => text.replace('&', "&\n"),
        "text/event-stream" => by_line(text, breaks_off, data),
        _ => json::pretty(text)
            .or_else(|| has_lines(text).then(|| by_line(text, breaks_off, document)))
            .or_else(|| breaks_off.then(|| json::cut(text)).flatten())
            .unwrap_or_else(|| text.to_owned()),
    }
}

/// The media type, without its parameters.
fn kind(message: &Message) -> String {
    let field = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let value = field.map_or("", |(_, value)| value.as_str());
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the first of several lines is a JSON document.
fn has_lines(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.next().is_some_and(|first| json::pretty(first).is_some()) && lines.next().is_some()
}

/// Each line by itself; `shown` gets it, and whether it breaks off.
fn by_line(text: &str, breaks_off: bool, shown: impl Fn(&str, bool) -> String) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        out.push_str(&shown(line, breaks_off && lines.peek().is_none()));
        out.push('\n');
    }
    out
}

fn document(line: &str, breaks_off: bool) -> String {
    let pretty = json::pretty(line).or_else(|| breaks_off.then(|| json::cut(line)).flatten());
    pretty.unwrap_or_else(|| line.to_owned())
}

/// A line of an event stream.
fn data(line: &str, breaks_off: bool) -> String {
    let Some(data) = line.strip_prefix("data:") else { return line.to_owned() };
    let (space, data) = data.strip_prefix(' ').map_or(("", data), |data| (" ", data));
    format!("data:{space}{}", document(data, breaks_off))
}
