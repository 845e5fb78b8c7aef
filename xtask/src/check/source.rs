//! Reading Rust sources just well enough to judge them: comments and literals blanked out, words, line numbers.

use super::Finding;

/// A source file.
pub(crate) struct Source {
    /// Its path below the workspace's root.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// The same with comments and literals blanked out; every line stands where it stood.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = blank(&text);
        Self { path, text, code }
    }

    pub(crate) fn finding(&self, line: usize, message: String) -> Finding {
        Finding { path: self.path.clone(), line, message }
    }

    /// Whether it holds tests only.
    pub(crate) fn is_test(&self) -> bool {
        self.stem() == "tests" || self.path.contains("/tests/")
    }

    /// The file's name without `.rs`.
    pub(crate) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        name.strip_suffix(".rs").unwrap_or(name)
    }
}

/// The words of a line: runs of letters, digits and underscores.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Blanks comments, strings and characters, and keeps the line breaks.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + literal(&bytes[at..], at == 0 || !is_word(bytes[at - 1]));
        if end > at {
            code.extend(bytes[at..end].iter().map(|&c| if c == b'\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            // Outside of comments and literals only ASCII matters here.
            code.push(if bytes[at].is_ascii() { bytes[at] as char } else { ' ' });
            at += 1;
        }
    }
    code
}

/// How many bytes the comment or literal takes that begins here; 0 if none does. `fresh`: no word runs into it.
fn literal(rest: &[u8], fresh: bool) -> usize {
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|&c| c == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => 1 + quoted(&rest[1..], b'"'),
        [b'r', b'"' | b'#', ..] if fresh => raw_string(&rest[1..]).map_or(0, |taken| 1 + taken),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if fresh => raw_string(&rest[2..]).map_or(0, |taken| 2 + taken),
        [b'\'', b'\\', ..] => 1 + quoted(&rest[1..], b'\''),
        [b'\'', ..] => character(rest),
        _ => 0,
    }
}

/// A character of up to four bytes; what has no closing quote there is a lifetime.
fn character(rest: &[u8]) -> usize {
    let close = rest.iter().skip(2).take(4).position(|&c| c == b'\'').map(|found| found + 2);
    match close {
        Some(2) => 3,
        Some(close) if !rest[1].is_ascii() => close + 1,
        _ => 0,
    }
}

/// Up to and with the closing quote.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|&&c| c == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[hashes + 1..];
    let found = body.windows(close.len()).position(|window| window == close)?;
    Some(hashes + 1 + found + close.len())
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while at < rest.len() && depth > 0 {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_'
}
