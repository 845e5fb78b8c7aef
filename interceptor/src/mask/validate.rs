//! What has to hold of a value besides its looks. Each validator gets a candidate and names the parts of it that are
//! what is looked for: a run of digits can hold two card numbers, or one after an order number.

use std::ops::Range;

use crate::config::Validator;
use email::email;
use iban::ibans;
use phone::phone;

mod email;
mod iban;
mod phone;

/// Adds the parts of `range` that hold, as ranges of `text`.
pub(super) fn validate(validator: Validator, text: &[u8], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let candidate = &text[range.clone()];
    let whole = match validator {
        Validator::PaymentCard => return payment_cards(text, range, found),
        Validator::UsSsn => us_ssn(candidate),
        Validator::Iban => return ibans(text, range, found),
        Validator::Phone => return phone(text, range, found),
        Validator::Email => return email(text, range, found),
        Validator::Jwt => jwt(candidate),
        Validator::Mixed => is_mixed(candidate),
        Validator::Secret => is_mixed(candidate) && !is_public(&text[..range.start], candidate),
    };
    if whole {
        found.push(range);
    }
}

/// Shannon's entropy of the bytes, in bits for each byte.
pub(super) fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value {
        counts[usize::from(*byte)] += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "lengths of values are far below 2^52")]
    let total = value.len() as f64;
    counts.iter().filter(|count| **count > 0).fold(0.0, |bits, count| {
        let share = f64::from(*count) / total;
        bits - share * share.log2()
    })
}

/// Card numbers in a run of digits with separators: each starts and ends where a group of digits does.
fn payment_cards(text: &[u8], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    // Before the number on a magnetic stripe stands a format code (ISO/IEC 7813).
    let is_within = |at: usize| match text[..at] {
        [.., b'%', b'B'] => false,
        [.., before] => before.is_ascii_alphanumeric(),
        [] => false,
    };
    let run = &text[..range.end];
    let mut at = range.start;
    while at < run.len() {
        let taken = if run[at].is_ascii_digit() && !is_within(at) { longest_card(&run[at..]) } else { None };
        // What isn't its end, but that of the run, may be within a word.
        let taken = taken.filter(|length| !text.get(at + length).is_some_and(u8::is_ascii_alphanumeric));
        found.extend(taken.map(|length| at..at + length));
        at += taken.unwrap_or(1);
    }
}

/// The length of the longest card number that `run` starts with.
fn longest_card(run: &[u8]) -> Option<usize> {
    let mut digits = [0_u8; 19];
    let mut count = 0;
    let mut longest = None;
    for (at, byte) in run.iter().enumerate() {
        if !byte.is_ascii_digit() {
            continue;
        }
        if count == digits.len() {
            break;
        }
        digits[count] = byte - b'0';
        count += 1;
        let ends = run.get(at + 1).is_none_or(|next| !next.is_ascii_digit());
        if ends && issued(&digits[..count]) && luhn(&digits[..count]) {
            longest = Some(at + 1);
        }
    }
    longest
}

/// Whether a card network issues numbers of this range and length.
fn issued(digits: &[u8]) -> bool {
    let leading = |count: usize| digits.iter().take(count).fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
    let (two, three, four) = (leading(2), leading(3), leading(4));
    match digits.len() {
        13 => digits[0] == 4,
        14 => matches!(two, 36 | 38 | 39) || (300..=305).contains(&three),
        15 => matches!(two, 34 | 37),
        16 => {
            digits[0] == 4
                || (51..=55).contains(&two)
                || (2221..=2720).contains(&four)
                || four == 6011
                || two == 65
                || (644..=649).contains(&three)
                || (3528..=3589).contains(&four)
                || matches!(two, 62 | 36 | 50 | 57)
                || (60..=62).contains(&two)
                || matches!(four, 2200..=2204)
                || matches!(four, 6304 | 6759 | 6761..=6763)
        }
        17 | 18 => two == 62 || matches!(four, 6304 | 6759 | 6761..=6763),
        19 => digits[0] == 4 || two == 62 || matches!(four, 6304 | 6759 | 6761..=6763 | 6011),
        _ => false,
    }
}

/// ISO/IEC 7812-1 annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Areas 001 to 899 without 666, groups 01 to 99, serials 0001 to 9999; not the numbers that were printed as samples.
fn us_ssn(value: &[u8]) -> bool {
    let digits: Vec<u8> = value.iter().copied().filter(u8::is_ascii_digit).collect();
    let number = |range: Range<usize>| digits[range].iter().fold(0_u32, |number, d| number * 10 + u32::from(d - b'0'));
    if digits.len() != 9 {
        return false;
    }
    let (area, group, serial) = (number(0..3), number(3..5), number(5..9));
    let sample = matches!((area, group, serial), (78, 5, 1120) | (219, 9, 9999) | (457, 55, 5462))
        || (area == 987 && group == 65)
        || digits.iter().all(|d| *d == digits[0])
        || digits == b"123456789";
    !sample && (1..900).contains(&area) && area != 666 && group != 0 && serial != 0
}

fn jwt(value: &[u8]) -> bool {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = value.split(|c| *c == b'.').next().unwrap_or_default();
    let Ok(header) = URL_SAFE_NO_PAD.decode(header) else { return false };
    header.first() == Some(&b'{') && memchr::memmem::find(&header, b"\"alg\"").is_some()
}

fn is_mixed(value: &[u8]) -> bool {
    value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic)
}

/// Whether what looks random stands beside secrets but is none: a GUID, a version, an address of the web, or a digest that
/// is called one.
fn is_public(before: &[u8], value: &[u8]) -> bool {
    let value = value.strip_suffix(b".").unwrap_or(value);
    let is_address = || {
        let scheme = before[before.len().saturating_sub(6)..].to_ascii_lowercase();
        value.starts_with(b"//") && [&b"http:"[..], b"https:", b"wss:"].iter().any(|known| scheme.ends_with(known))
    };
    is_guid(value) || is_version(value) || is_address() || (is_digest(value) && is_called_digest(before))
}

/// Whether it is 8-4-4-4-12 hexadecimal digits.
pub(super) fn is_guid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => *c == b'-',
            _ => c.is_ascii_hexdigit(),
        })
}

/// Whether it is numbers with dots, and short words behind them: `v12.4.879-beta.12`, `1.1.1n-0+deb11u5`.
fn is_version(value: &[u8]) -> bool {
    let value = value.strip_prefix(b"v").unwrap_or(value);
    let mut parts = value.split(|c| matches!(c, b'.' | b'-' | b'+' | b'~'));
    let is_number = |part: &[u8]| !part.is_empty() && part.len() <= 8 && part.iter().all(u8::is_ascii_digit);
    let is_word = |part: &[u8]| {
        !part.is_empty() && part.len() <= 10 && part.iter().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase())
    };
    let dots = value.iter().filter(|c| **c == b'.').count();
    dots >= 2 && (0..2).all(|_| parts.next().is_some_and(is_number)) && parts.all(is_word)
}

/// Whether it is as many hexadecimal digits as a common digest has.
fn is_digest(value: &[u8]) -> bool {
    matches!(value.len(), 32 | 40 | 56 | 64 | 96 | 128) && value.iter().all(u8::is_ascii_hexdigit)
}

/// Whether the last word of `before` says that a digest follows.
fn is_called_digest(before: &[u8]) -> bool {
    const CALLED: [&[u8]; 9] =
        [b"sha", b"md5", b"hash", b"digest", b"checksum", b"commit", b"revision", b"fingerprint", b"thumbprint"];
    let nearby = before[before.len().saturating_sub(40)..].to_ascii_lowercase();
    let mut words = nearby.rsplit(|c| !(c.is_ascii_alphanumeric() || *c == b'-')).filter(|word| !word.is_empty());
    words.next().is_some_and(|word| CALLED.iter().any(|known| word.starts_with(known)))
}

#[cfg(test)]
mod tests;
