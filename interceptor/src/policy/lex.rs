//! Where policies and their parts stand in a file. Cedar's parser gives no positions of what it accepted, so this cuts
//! a file into its policies and a policy into tokens, as Cedar's grammar does (cedar-policy-core, `grammar.lalrpop`,
//! `match`). It judges nothing: what isn't well-formed is handed on for Cedar to refuse.

use std::ops::Range;

/// One token. Comments and white space are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An identifier, a keyword or a number.
    Word(&'a str),
    /// What stands between the quotes of a string literal, still escaped.
    Text(&'a str),
    /// `::`.
    Path,
    /// Any other character.
    Sign(char),
}

/// The tokens of a text, each with the bytes it covers (a string literal's with its quotes).
pub(super) fn tokens(text: &str) -> Vec<(Token<'_>, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = if rest.starts_with("//") {
            rest.find(['\n', '\r']).unwrap_or(rest.len())
        } else if first == '"' {
            let length = literal(rest);
            found.push((Token::Text(rest[1..length].strip_suffix('"').unwrap_or(&rest[1..length])), at..at + length));
            length
        } else if first == '_' || first.is_ascii_alphanumeric() {
            let length = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            found.push((Token::Word(&rest[..length]), at..at + length));
            length
        } else if rest.starts_with("::") {
            found.push((Token::Path, at..at + 2));
            2
        } else {
            if !first.is_whitespace() {
                found.push((Token::Sign(first), at..at + first.len_utf8()));
            }
            first.len_utf8()
        };
        at += length;
    }
    found
}

/// The policies of a file: each from its first token through its `;`. What follows the last `;` is one more, if there
/// is a token in it.
pub(super) fn policies(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut begun: Option<Range<usize>> = None;
    for (token, span) in tokens(text) {
        let policy = begun.get_or_insert(span.clone());
        policy.end = span.end;
        if token == Token::Sign(';') {
            found.extend(begun.take());
        }
    }
    found.extend(begun);
    found
}

/// How long the string literal is that `text` begins with; all of it if it doesn't end.
fn literal(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests;
