//! JSON over several lines. Only white space between tokens changes: numbers, escapes and the order of keys stay as they
//! were. Where members or elements were taken out, a line says so.

use serde::de::IgnoredAny;

use super::page::Page;

/// `text` with a member a line; none if it isn't JSON.
pub(in crate::cli::sessions) fn pretty(text: &str) -> Option<String> {
    is_whole(text).then(|| {
        let mut page = Page::new(None);
        spread(text, 0, &mut page);
        page.end_line();
        let lines: Vec<String> = page.finish(text.len()).into_iter().map(|line| line.text).collect();
        lines.join("\n")
    })
}

/// Whether it is an object or an array.
pub(super) fn is_whole(text: &str) -> bool {
    is_container(text) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether it is the beginning of one.
pub(super) fn is_cut(text: &str) -> bool {
    is_container(text) && serde_json::from_str::<IgnoredAny>(text).is_err_and(|error| error.is_eof())
}

fn is_container(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// Writes JSON, or its beginning, which stands in the body from `from` on, with a member a line. The last line doesn't end.
pub(super) fn spread(text: &str, from: usize, page: &mut Page<'_>) {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = blanks(bytes, 0);
    while let Some(byte) = bytes.get(at) {
        let end = token_end(bytes, at);
        let next = blanks(bytes, end);
        let (token, place) = (&text[at..end], from + at..from + end);
        match byte {
            b'{' | b'[' => {
                page.write(token, place);
                let dropped = page.dropped(from + next);
                let is_empty = matches!(bytes.get(next), Some(b'}' | b']'));
                if is_empty && dropped == 0 {
                    page.write(&text[next..=next], from + next..from + next + 1);
                    at = blanks(bytes, next + 1);
                    continue;
                }
                depth += 1;
                tell_dropped(dropped, depth, page);
                if !is_empty {
                    page.break_line(depth);
                }
            }
            b'}' | b']' => {
                let dropped = page.dropped(from + at);
                tell_dropped(dropped, depth, page);
                depth = depth.saturating_sub(1);
                page.break_line(depth);
                page.write(token, place);
            }
            b',' => {
                let dropped = page.dropped(from + at);
                page.write(token, place);
                tell_dropped(dropped, depth, page);
                page.break_line(depth);
            }
            b':' => page.write(": ", place),
            _ => page.write(token, place),
        }
        at = next;
    }
    let dropped = page.dropped(from + text.len());
    tell_dropped(dropped, depth, page);
}

/// A line for what was taken out, if anything was.
fn tell_dropped(count: u64, depth: usize, page: &mut Page<'_>) {
    if count > 0 {
        page.break_line(depth);
        page.tell_dropped(count);
    }
}

fn blanks(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Behind the token that begins at `at`: a string, a sign, or what else stands up to one.
fn token_end(bytes: &[u8], at: usize) -> usize {
    let is_sign = |byte: &u8| matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':');
    match bytes[at] {
        b'"' => {
            let mut end = at + 1;
            while let Some(byte) = bytes.get(end) {
                match byte {
                    b'"' => return end + 1,
                    b'\\' => end += 2,
                    _ => end += 1,
                }
            }
            bytes.len()
        }
        byte if is_sign(&byte) => at + 1,
        _ => {
            let ends = |byte: &u8| is_sign(byte) || *byte == b'"' || byte.is_ascii_whitespace();
            bytes[at..].iter().position(ends).map_or(bytes.len(), |length| at + length)
        }
    }
}
