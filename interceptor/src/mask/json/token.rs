//! The ends of JSON's tokens (RFC 8259), found many bytes at a time.

/// How far a token was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It ends before this index; for a string, that of its closing quote. Whether it has escapes.
    At(usize, bool),
    /// It goes on behind the text; up to here it was read. Whether it had escapes.
    Open(usize, bool),
    /// It isn't JSON.
    Bad,
}

pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// The end of a string whose content goes on at `at`; `escaped` says whether it had escapes before.
pub(super) fn string(text: &[u8], mut at: usize, mut escaped: bool) -> End {
    loop {
        at += plain(&text[at..]);
        match text.get(at) {
            Some(b'"') => return End::At(at, escaped),
            Some(b'\\') if at + 1 < text.len() => {
                escaped = true;
                at += 2;
            }
            Some(b'\\') | None => return End::Open(at, escaped),
            Some(_) => return End::Bad,
        }
    }
}

/// How many bytes from the start are neither a quote, a backslash nor a control character. Eight at a time.
#[inline]
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        // The lowest bit is exact; those above it may be borrows.
        let found = found & HIGH;
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// Numbers are no longer than this; more is no number that anybody reads.
const LONGEST: usize = 4096;

/// The end of a number or of `true`, `false`, `null` that starts at `at`. `last`: no text follows.
pub(super) fn scalar(text: &[u8], at: usize, last: bool) -> End {
    let length = text[at..]
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')))
        .unwrap_or(text.len() - at);
    if length > LONGEST {
        return End::Bad;
    }
    if at + length == text.len() && !last {
        return End::Open(at + length, false);
    }
    let token = &text[at..at + length];
    let known = match token.first() {
        Some(b't') => token == b"true",
        Some(b'f') => token == b"false",
        Some(b'n') => token == b"null",
        _ => number(token),
    };
    if known { End::At(at + length, false) } else { End::Bad }
}

fn number(token: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = token.strip_prefix(b"-").unwrap_or(token);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    match rest {
        [] => true,
        [b'e' | b'E', exponent @ ..] => {
            let exponent = match exponent {
                [b'+' | b'-', exponent @ ..] => exponent,
                exponent => exponent,
            };
            !exponent.is_empty() && digits(exponent) == exponent.len()
        }
        _ => false,
    }
}
