//! Secrets in running text: behind a name and a sign, in a clause of SQL, in a URL, or by their own shape.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::MARK;

/// Words of names whose assigned values are secret.
const WORDS: &str = r"(?:password|passwd|passphrase|secret|(?:access|refresh|id|auth|api|session|bearer)[_-]?token|api[_-]?key|account[_-]?key|shared[_-]?access[_-]?(?:key|signature)|private[_-]?key|client[_-]?assertion)";

/// Each pattern, with what takes its place: groups `a` and `b` are kept.
static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"(?s)(?P<a>-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----).*?(?P<b>-----END [A-Z ]{0,32}PRIVATE KEY-----|\z)".to_owned(),
        r"(?P<a>)\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*(?P<b>)".to_owned(),
        r"(?i)(?P<a>\b(?:bearer|basic|sharedkey(?:lite)?)(?:\s|%20|\+)+)[A-Za-z0-9+/=._~:%-]{8,}(?P<b>)".to_owned(),
        format!(
            r#"(?i)(?P<a>{WORDS}[a-z0-9_.-]{{0,64}}\\*["']?\s{{0,8}}(?:[:=]|%3d)\s{{0,8}})(?:\\+"[^"\\]*|"(?:[^"\\]|\\.)*|'(?:[^'\\]|\\.)*|[^\s&;,"'<>\[\]{{}}\\]+)(?P<b>)"#
        ),
        r#"(?i)(?P<a>(?:^|[?&;\s"'])(?:sig|pwd|code|token|uid_pwd)=)[^&;\s"'<>\\]+(?P<b>)"#.to_owned(),
        r#"(?i)(?P<a>\b(?:identified\s+(?:with\s+\S+\s+)?by|password)\s+)(?:'[^']*|"[^"]*)(?P<b>)"#.to_owned(),
        r#"(?P<a>://[^/\s:@"'<>]{0,128}:)[^/\s@"'<>]{1,256}(?P<b>@)"#.to_owned(),
        format!(r"(?i)(?P<a><(?:[a-z0-9_.-]{{1,32}}:)?[a-z0-9_.-]{{0,64}}{WORDS}[^<>]{{0,128}}>)[^<]+(?P<b>)"),
    ]
    .iter()
    .filter_map(|pattern| Regex::new(pattern).ok())
    .collect()
});

/// A field of a multipart body (RFC 7578) with a secret name.
static PART: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let name = r#"(?is)(?P<a>\bname="?[^"\r\n;]{0,64}(?:password|passwd|secret|token|assertion|api_?key|\bpwd|\bcode|\bsig)[^"\r\n;]{0,64}"?[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n).+?(?P<b>\r?\n--|\z)"#;
    Regex::new(name).ok()
});

/// `text` without what looks like a secret.
pub(super) fn redact(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let mut text = text;
    for pattern in PATTERNS.iter() {
        if pattern.is_match(&text) {
            text = Cow::Owned(replace(pattern, &text));
        }
    }
    text
}

/// A multipart body without the content of its secret fields.
pub(super) fn multipart(bytes: &[u8]) -> Cow<'_, [u8]> {
    match PART.as_ref() {
        Some(part) if part.is_match(bytes) => Cow::Owned(replace(part, bytes)),
        Some(_) => Cow::Borrowed(bytes),
        None => Cow::Borrowed(MARK.as_bytes()),
    }
}

fn replace(pattern: &Regex, text: &[u8]) -> Vec<u8> {
    let with = format!("${{a}}{MARK}${{b}}");
    pattern.replace_all(text, with.as_bytes()).into_owned()
}

#[cfg(test)]
pub(super) fn patterns() -> usize {
    PATTERNS.len() + usize::from(PART.is_some())
}
