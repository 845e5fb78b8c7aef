//! Secrets in running text: behind a name and a sign, in a clause of SQL, in a URL, or by their own shape.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Span, packed};
use regex::bytes::Regex;

use super::{MARK, Replaced};

/// Words of names whose assigned values are secret.
const WORDS: &str = r"(?:password|passwd|passphrase|secret|(?:access|refresh|id|auth|api|session|bearer)[_-]?token|api[_-]?key|account[_-]?key|shared[_-]?access[_-]?(?:key|signature)|private[_-]?key|client[_-]?assertion|code[_-]?verifier)";

/// Each pattern: what its groups `a` and `b` hold stays.
static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    // A name, and the sign behind it.
    let named = format!(r#"{WORDS}[a-z0-9_.-]{{0,64}}\\*["']?\s{{0,8}}(?:[:=]|%3d)\s{{0,8}}"#);
    [
        r"(?s)(?P<a>-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----).*?(?P<b>-----END [A-Z ]{0,32}PRIVATE KEY-----|\z)".into(),
        r"(?P<a>)\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*(?P<b>)".into(),
        r"(?i)(?P<a>\b(?:bearer|basic|sharedkey(?:lite)?)(?:\s|%20|\+)+)[A-Za-z0-9+/=._~:%-]{8,}(?P<b>)".into(),
        // In quotes that are escaped, in quotes, without.
        format!(r#"(?i)(?P<a>{named}\\+")[^"\\]+(?P<b>)"#),
        format!(r#"(?i)(?P<a>{named}")(?:[^"\\]|\\.)+(?P<b>)"#),
        format!(r#"(?i)(?P<a>{named}')(?:[^'\\]|\\.)+(?P<b>)"#),
        format!(r#"(?i)(?P<a>{named})[^\s&;,"'<>\[\]{{}}\\]+(?P<b>)"#),
        r#"(?i)(?P<a>(?:^|[?&;/#\s"'])(?:sig|pwd|code|token)=)[^&;\s"'<>\[\\]+(?P<b>)"#.into(),
        r#"(?i)(?P<a>\b(?:identified\s+(?:with\s+\S+\s+)?by|password)\s+['"])[^'"]+(?P<b>)"#.into(),
        r#"(?P<a>://[^/\s:@"'<>]{0,128}:)[^/\s@"'<>]{1,256}(?P<b>@)"#.into(),
        format!(r"(?i)(?P<a><(?:[a-z0-9_.-]{{1,32}}:)?[a-z0-9_.-]{{0,64}}{WORDS}[^<>]{{0,128}}>)[^<]+(?P<b>)"),
        // A field of a multipart body inside of a JSON string.
        r#"(?i)(?P<a>\bname=\\+"[^"\\]{0,64}(?:passw|secret|token)[^"\\]{0,64}\\+"(?:\\r)?\\n(?:\\r)?\\n)[^\\"]+(?P<b>)"#.into(),
        // Addresses that are all that their callers need: webhooks of Slack, Teams and Discord, Telegram's bots.
        r"(?P<a>/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/)[A-Za-z0-9]{8,}(?P<b>)".into(),
        r"(?i)(?P<a>/(?:incomingwebhook|webhooks/[0-9]{5,})/)[A-Z0-9_-]{16,}(?P<b>)".into(),
        r"(?i)(?P<a>/bot[0-9]{5,}(?::|%3a))[A-Z0-9_-]{16,}(?P<b>)".into(),
    ]
    .iter()
    .filter_map(|pattern: &String| Regex::new(pattern).ok())
    .collect()
});

/// A field of a multipart body (RFC 7578) with a secret name.
static PART: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let name = r#"(?is)(?P<a>\bname="?[^"\r\n;]{0,64}(?:password|passwd|secret|token|assertion|api_?key|\bpwd|\bcode|\bsig)[^"\r\n;]{0,64}"?[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n).+?(?P<b>\r?\n--|\z)"#;
    Regex::new(name).ok()
});

/// Literals, in lower case, each with the patterns that can't match without it or another one of theirs. One pass over
/// a text tells which patterns are worth trying, and most texts need none.
const HINTS: [(&str, &[usize]); 21] = [
    ("private key", &[0]),
    ("eyj", &[1]),
    ("bearer", &[2]),
    ("basic", &[2]),
    ("sharedkey", &[2]),
    ("passw", NAMED),
    ("passphrase", NAMED),
    ("secret", NAMED),
    ("token", NAMED),
    ("key", NAMED),
    ("signature", NAMED),
    ("assertion", NAMED),
    ("verifier", NAMED),
    ("sig=", &[7]),
    ("pwd=", &[7]),
    ("code=", &[7]),
    ("identified", &[8]),
    ("://", &[9]),
    ("/services/t", &[12]),
    ("webhook", &[13]),
    ("/bot", &[14]),
];
/// The patterns that begin with a name of [`WORDS`], and what else its words stand in.
const NAMED: &[usize] = &[3, 4, 5, 6, 7, 8, 10, 11];

static FINDER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let literals = HINTS.iter().map(|(literal, _)| literal);
    AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(literals).ok()
});

/// The same for long texts in lower case, many bytes at a time; none where the processor can't.
static SWIFT: LazyLock<Option<packed::Searcher>> =
    LazyLock::new(|| packed::Builder::new().extend(HINTS.iter().map(|(literal, _)| literal)).build());

/// A text of fewer bytes isn't worth putting into lower case.
const LONG: usize = 512;
/// Bytes of a text that are put into lower case at once.
const PIECE: usize = 8 << 10;
/// Bytes of the longest literal.
const LONGEST: usize = 11;

/// Which patterns could match, as bits; all of them if that can't be told.
fn worth_trying(text: &[u8]) -> u32 {
    match SWIFT.as_ref() {
        Some(finder) if text.len() >= LONG => swiftly(finder, text),
        _ => one_by_one(text),
    }
}

fn bits_of(literal: usize) -> u32 {
    HINTS[literal].1.iter().fold(0, |bits, pattern| bits | 1 << pattern)
}

fn one_by_one(text: &[u8]) -> u32 {
    let Some(finder) = FINDER.as_ref() else { return u32::MAX };
    finder.find_overlapping_iter(text).fold(0, |bits, found| bits | bits_of(found.pattern().as_usize()))
}

fn swiftly(finder: &packed::Searcher, text: &[u8]) -> u32 {
    let mut lower = [0; PIECE];
    let (mut bits, mut at) = (0, 0);
    loop {
        let piece = &text[at..text.len().min(at + PIECE)];
        let lower = &mut lower[..piece.len()];
        lower.copy_from_slice(piece);
        lower.make_ascii_lowercase();
        let mut from = 0;
        // No literal begins with another, but one may begin within another.
        while let Some(found) = finder.find_in(&*lower, Span { start: from, end: lower.len() }) {
            bits |= bits_of(found.pattern().as_usize());
            from = found.start() + 1;
        }
        if at + piece.len() == text.len() {
            return bits;
        }
        // What begins at the end of this piece is whole in the next.
        at += PIECE - (LONGEST - 1);
    }
}

/// `text` without what looks like a secret. `told` hears of each pass what it replaces.
pub(super) fn redact<'a>(text: Cow<'a, [u8]>, told: &mut dyn FnMut(&[Replaced])) -> Cow<'a, [u8]> {
    let worth = worth_trying(&text);
    let mut text = text;
    for (number, pattern) in PATTERNS.iter().enumerate() {
        if worth & 1 << number != 0 && pattern.is_match(&text) {
            text = Cow::Owned(replace(pattern, &text, told));
        }
    }
    text
}

/// A multipart body without the content of its secret fields.
pub(super) fn multipart<'a>(bytes: &'a [u8], told: &mut dyn FnMut(&[Replaced])) -> Cow<'a, [u8]> {
    match PART.as_ref() {
        Some(part) if part.is_match(bytes) => Cow::Owned(replace(part, bytes, told)),
        Some(_) => Cow::Borrowed(bytes),
        None => {
            told(&[(0..bytes.len(), MARK.len())]);
            Cow::Borrowed(MARK.as_bytes())
        }
    }
}

/// Replaces what stands between the groups `a` and `b`, which a match begins and ends with.
fn replace(pattern: &Regex, text: &[u8], told: &mut dyn FnMut(&[Replaced])) -> Vec<u8> {
    let (mut out, mut replaced, mut at) = (Vec::with_capacity(text.len()), Vec::new(), 0);
    for found in pattern.captures_iter(text) {
        let whole = found.get(0).map_or(at..text.len(), |whole| whole.range());
        let start = found.name("a").map_or(whole.start, |a| a.end());
        let end = found.name("b").map_or(whole.end, |b| b.start());
        out.extend_from_slice(&text[at..start]);
        out.extend_from_slice(MARK.as_bytes());
        replaced.push((start..end, MARK.len()));
        at = end;
    }
    out.extend_from_slice(&text[at..]);
    told(&replaced);
    out
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) fn patterns() -> usize {
    PATTERNS.len() + usize::from(PART.is_some())
}
