//! Bank account numbers (ISO 13616).

use std::ops::Range;

/// Countries with the lengths of their IBANs (SWIFT's registry).
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// Adds the numbers that start in `range` of `text`, each where a group of letters and digits does: words may stand before
/// and behind them, or another number.
pub(super) fn ibans(text: &[u8], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let mut at = range.start;
    while at < range.end {
        let is_start = at == 0 || !text[at - 1].is_ascii_alphanumeric();
        let length = if is_start { iban(&text[at..]) } else { None };
        found.extend(length.map(|length| at..at + length));
        at += length.unwrap_or(1);
    }
}

/// The length of the number that `text` starts with, which the country tells.
fn iban(text: &[u8]) -> Option<usize> {
    let country = text.get(..2)?.to_ascii_uppercase();
    let (_, digits) = IBAN_LENGTHS.iter().find(|(known, _)| known[..] == country[..])?;
    let mut compact = Vec::with_capacity(*digits);
    let mut at = 0;
    while compact.len() < *digits {
        match text.get(at)? {
            c if c.is_ascii_alphanumeric() => compact.push(*c),
            b' ' if text[at - 1] != b' ' => {}
            _ => return None,
        }
        at += 1;
    }
    let is_numbered = compact[2..4].iter().all(u8::is_ascii_digit);
    if !is_numbered || text.get(at).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let remainder = compact[4..].iter().chain(&compact[..4]).fold(0_u32, |remainder, c| match c {
        b'0'..=b'9' => (remainder * 10 + u32::from(c - b'0')) % 97,
        c => (remainder * 100 + u32::from(c.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    (remainder == 1).then_some(at)
}
