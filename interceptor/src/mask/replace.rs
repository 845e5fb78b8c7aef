//! What takes a masked value's place. A pseudonym depends on the key and the value alone, not on where or by which rule
//! it was found: so that the same person has the same token in every answer, and can still be counted and joined.
//! Pseudonyms keep the type, and are such as nobody was ever given: `.invalid` addresses, long numbers that start with 9
//! or +999. Short numbers, of which a tenth would be few, are exchanged among each other.

use super::detector::SEPARATORS;
use super::validate::is_guid;
use crate::config::Strategy;

/// The key of pseudonyms.
pub type Key = [u8; 32];

/// What a text is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Email,
    /// Digits, with separators.
    Digits,
    /// Digits after a plus sign.
    Phone,
    /// 8-4-4-4-12 hexadecimal digits.
    Guid,
    Other,
}

const REDACTED: &[u8] = b"[redacted]";

/// Appends what takes the place of `text`, which `what` detector found (none: it stood at a path).
pub(super) fn text(strategy: Strategy, key: &Key, what: Option<&str>, text: &[u8], out: &mut Vec<u8>) {
    match strategy {
        Strategy::Drop => {}
        Strategy::Redact => match what {
            None => out.extend_from_slice(REDACTED),
            Some(id) => out.extend(format!("[redacted:{id}]").bytes()),
        },
        Strategy::Partial => partial(text, out),
        Strategy::Pseudonym => pseudonym(key, text, out),
    }
}

/// Appends what takes the place of a JSON number or truth value, as JSON.
pub(super) fn scalar(strategy: Strategy, key: &Key, literal: &[u8], out: &mut Vec<u8>) {
    let negative = literal.first() == Some(&b'-');
    let digits = &literal[usize::from(negative)..];
    let integer = !digits.is_empty() && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
    if strategy == Strategy::Pseudonym && integer {
        if negative {
            out.push(b'-');
        }
        out.extend(number(key, digits, first_of(digits.len())));
    } else {
        // Any part of it would tell more than it hides.
        out.extend_from_slice(b"null");
    }
}

fn shape(text: &[u8]) -> Shape {
    let digits = text.iter().filter(|c| c.is_ascii_digit()).count();
    let plain = |text: &[u8]| text.iter().all(|c| c.is_ascii_digit() || SEPARATORS.contains(c));
    if let Some(at) = memchr::memrchr(b'@', text)
        && at > 0
        && at + 1 < text.len()
        && !text.iter().any(u8::is_ascii_whitespace)
    {
        Shape::Email
    } else if text.first() == Some(&b'+') && digits >= 5 && plain(&text[1..]) {
        Shape::Phone
    } else if is_guid(text) {
        Shape::Guid
    } else if digits >= 1 && plain(text) {
        Shape::Digits
    } else {
        Shape::Other
    }
}

fn partial(text: &[u8], out: &mut Vec<u8>) {
    let digits = text.iter().filter(|c| c.is_ascii_digit()).count();
    match shape(text) {
        Shape::Email => {
            let at = memchr::memrchr(b'@', text).unwrap_or(0);
            out.extend_from_slice(b"***");
            out.extend_from_slice(&text[at..]);
        }
        Shape::Digits | Shape::Phone if digits >= 9 => {
            let mut left = digits;
            for c in text {
                if c.is_ascii_digit() {
                    out.push(if left > 4 { b'*' } else { *c });
                    left -= 1;
                } else {
                    out.push(*c);
                }
            }
        }
        // Four of at least sixteen characters tell little; of less, they could tell all.
        _ => {
            out.extend_from_slice(b"***");
            let start = text.len().saturating_sub(4);
            if text.len() >= 16 && text[start..].is_ascii() {
                out.extend_from_slice(&text[start..]);
            }
        }
    }
}

fn pseudonym(key: &Key, text: &[u8], out: &mut Vec<u8>) {
    match shape(text) {
        Shape::Email => {
            out.extend_from_slice(b"p-");
            letters(key, "email", &text.to_ascii_lowercase(), 16, out);
            out.extend_from_slice(b"@masked.invalid");
        }
        Shape::Digits => {
            let digits = text.iter().filter(|c| c.is_ascii_digit()).count();
            number_like(key, text, first_of(digits), out);
        }
        Shape::Phone => number_like(key, text, b"999", out),
        Shape::Guid => {
            let mut stream = stream(key, "guid", &text.to_ascii_lowercase());
            for at in 0..36 {
                match at {
                    8 | 13 | 18 | 23 => out.push(b'-'),
                    // The version of a GUID that means something to nobody else (RFC 9562 section 5.8).
                    14 => out.push(b'8'),
                    19 => out.push(b'8'),
                    _ => out.push(b"0123456789abcdef"[usize::from(byte(&mut stream) % 16)]),
                }
            }
        }
        Shape::Other => {
            out.extend_from_slice(b"p-");
            letters(key, "text", text, 16, out);
        }
    }
}

/// What a number of so many digits starts with, so that it is none of a card network's and none of an area. One of 19 digits
/// has to stay below 2^63, and short ones start with any digit.
fn first_of(digits: usize) -> &'static [u8] {
    match digits {
        0..LONG => b"",
        19 => b"8",
        _ => b"9",
    }
}

/// From so many digits on a pseudonym has its first digit given.
const LONG: usize = 9;

/// Other digits in the places of the digits, the first ones as given.
fn number_like(key: &Key, text: &[u8], first: &[u8], out: &mut Vec<u8>) {
    let digits: Vec<u8> = text.iter().copied().filter(u8::is_ascii_digit).collect();
    let mut fresh = number(key, &digits, first).into_iter();
    out.extend(text.iter().map(|c| if c.is_ascii_digit() { fresh.next().unwrap_or(b'0') } else { *c }));
}

/// As many digits as `digits`, the first ones as given. Numbers that differ only behind those stay different.
fn number(key: &Key, digits: &[u8], first: &[u8]) -> Vec<u8> {
    let (replaced, rest) = digits.split_at(first.len().min(digits.len()));
    let mut fresh = first[..replaced.len()].to_vec();
    fresh.extend_from_slice(rest);
    let exchanged = &mut fresh[replaced.len()..];
    // A JSON number starts with no zero; the others are exchanged among each other, as often as it takes.
    let is_whole = replaced.is_empty() && rest.len() > 1;
    loop {
        exchange(key, replaced, exchanged);
        if !is_whole || (exchanged[0] == b'0') == (digits[0] == b'0') {
            return fresh;
        }
    }
}

/// A keyed permutation of the digits of this length: a Feistel network whose halves are added digit by digit, as those of
/// NIST SP 800-38G are as numbers. `tweak` chooses it.
fn exchange(key: &Key, tweak: &[u8], digits: &mut [u8]) {
    const ROUNDS: u8 = 10;
    let length = digits.len() as u64;
    let (left, right) = digits.split_at_mut(digits.len() / 2);
    for round in 0..ROUNDS {
        let (from, to) = if round % 2 == 0 { (&*left, &mut *right) } else { (&*right, &mut *left) };
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(b"digits\0").update(&length.to_le_bytes()).update(&[round]).update(tweak).update(from);
        let mut stream = hasher.finalize_xof();
        for digit in to {
            *digit = b'0' + (*digit - b'0' + byte(&mut stream) % 10) % 10;
        }
    }
}

fn letters(key: &Key, domain: &str, value: &[u8], count: usize, out: &mut Vec<u8>) {
    let mut stream = stream(key, domain, value);
    out.extend((0..count).map(|_| b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte(&mut stream) % 32)]));
}

fn stream(key: &Key, domain: &str, value: &[u8]) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(domain.as_bytes()).update(&[0]).update(value);
    hasher.finalize_xof()
}

fn byte(stream: &mut blake3::OutputReader) -> u8 {
    let mut byte = [0];
    stream.fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests;
