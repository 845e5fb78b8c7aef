//! JSON over several lines. Only white space between tokens changes: numbers, escapes and the order of keys stay as they
//! were.

use serde::de::IgnoredAny;

/// `text` with a member a line; none if it isn't JSON.
pub(in crate::cli::sessions) fn pretty(text: &str) -> Option<String> {
    (is_container(text) && serde_json::from_str::<IgnoredAny>(text).is_ok()).then(|| spread(text))
}

/// The same of JSON that breaks off somewhere.
pub(super) fn cut(text: &str) -> Option<String> {
    let breaks_off = || serde_json::from_str::<IgnoredAny>(text).is_err_and(|error| error.is_eof());
    (is_container(text) && breaks_off()).then(|| spread(text))
}

fn is_container(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

fn spread(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    indent(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                indent(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                indent(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.push('\n');
    // A hostile depth must not become a hostile width.
    out.extend(std::iter::repeat_n("  ", depth.min(40)));
}
