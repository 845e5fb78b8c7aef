//! A body over several lines: a JSON document by its members, JSON Lines and the data of events each by themselves, a form
//! by its fields. Only white space between tokens changes. What isn't what it seems to be stays as it is.

use std::ops::Range;

use super::json;
use super::page::{Line, Page};
use crate::record::payload::Message;

/// `text`, the body of `message`, for people.
pub(super) fn lines(message: &Message, text: &str) -> Vec<Line> {
    let breaks_off = matches!(message.partial.as_deref(), Some("cut" | "memory"));
    let mut page = Page::new(message.masked.as_ref());
    match kind(message).as_str() {
        "application/x-www-form-urlencoded" => {
            for (field, place) in pieces(text, &['&', '\n']) {
                page.write(field, place);
                page.end_line();
            }
        }
        "text/event-stream" => by_line(text, breaks_off, &mut page, data),
        _ if json::is_whole(text) => whole(text, &mut page),
        _ if has_lines(text) => by_line(text, breaks_off, &mut page, document),
        _ if breaks_off && json::is_cut(text) => whole(text, &mut page),
        _ => by_line(text, breaks_off, &mut page, |line, place, _breaks_off, page| page.write(line, place)),
    }
    page.finish(text.len())
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
    lines.next().is_some_and(json::is_whole) && lines.next().is_some()
}

/// What ends in one of these, or at the end of the text, without line ends; and its place with them. What stands at the very
/// end is in the last piece.
fn pieces<'a>(text: &'a str, ends: &'a [char]) -> impl Iterator<Item = (&'a str, Range<usize>)> {
    let mut at = 0;
    text.split_inclusive(ends).map(move |piece| {
        let start = at;
        at += piece.len();
        let line = piece.strip_suffix('\n').map_or(piece, |line| line.strip_suffix('\r').unwrap_or(line));
        (line, start..at + usize::from(at == text.len()))
    })
}

/// Each line by itself; `show` gets it, its place, and whether it breaks off.
fn by_line(text: &str, breaks_off: bool, page: &mut Page<'_>, show: impl Fn(&str, Range<usize>, bool, &mut Page<'_>)) {
    let mut lines = pieces(text, &['\n']).peekable();
    while let Some((line, place)) = lines.next() {
        show(line, place, breaks_off && lines.peek().is_none(), page);
        page.end_line();
    }
}

fn whole(text: &str, page: &mut Page<'_>) {
    json::spread(text, 0, page);
    page.end_line();
}

fn document(line: &str, place: Range<usize>, breaks_off: bool, page: &mut Page<'_>) {
    if json::is_whole(line) || (breaks_off && json::is_cut(line)) {
        json::spread(line, place.start, page);
    } else {
        page.write(line, place);
    }
}

/// A line of an event stream.
fn data(line: &str, place: Range<usize>, breaks_off: bool, page: &mut Page<'_>) {
    let Some(data) = line.strip_prefix("data:") else { return page.write(line, place) };
    let data = data.strip_prefix(' ').unwrap_or(data);
    let start = place.start + line.len() - data.len();
    page.write(&line[..line.len() - data.len()], place.start..start);
    document(data, start..place.end, breaks_off, page);
}
