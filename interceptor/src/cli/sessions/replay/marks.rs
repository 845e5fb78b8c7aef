//! What shows that a value was masked, or left out of the record: for where it wasn't noted. Digits, GUIDs of another
//! version, `null` and what was dropped can't be told from any other value.

use percent_encoding::percent_decode_str;

use crate::detect::secrets::MARK;

/// What is kept of a field that can't be masked.
const UNMASKED: &str = "[unmasked]";

/// Behind what a pseudonym has for an address.
const DOMAIN: &str = "@masked.invalid";

/// Whether something was left out of the line when it was kept.
pub(super) fn is_left_out(text: &str) -> bool {
    text.contains(MARK) || text.contains(UNMASKED)
}

/// How many values in a line show that a mask made them, as `mask::replace` does. Only for what was under masks: others may
/// write alike.
pub(super) fn masked(text: &str) -> u64 {
    let text = percent_decode_str(text).decode_utf8_lossy();
    let redacted = text.matches("[redacted]").count() + text.matches("[redacted:").count();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-@.".contains(c)));
    let pseudonyms = words.filter(|word| is_pseudonym(word.trim_matches('.'))).count();
    let numbers = text.split(|c: char| !(c.is_ascii_digit() || "*+ -.()/".contains(c))).map(number).sum::<usize>();
    (redacted + pseudonyms + numbers) as u64
}

/// A text's or an address's, or a GUID of version 8.
fn is_pseudonym(word: &str) -> bool {
    let own = word.strip_suffix(DOMAIN).unwrap_or(word).strip_prefix("p-");
    let is_text = own.is_some_and(|own| own.len() == 16 && own.bytes().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7')));
    let is_guid = word.len() == 36
        && word.bytes().enumerate().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == b'-',
            14 | 19 => c == b'8',
            _ => c.is_ascii_hexdigit(),
        });
    is_text || is_guid
}

/// How many values in a run of digits, stars and separators: what `partial` leaves, and pseudonyms of phones.
fn number(run: &str) -> usize {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let stars = run.matches('*').count();
    if stars == 0 {
        let phones = run.split('+').skip(1).map(digits);
        return phones.filter(|digits| digits.len() >= 5 && digits.starts_with("999")).count();
    }
    if stars >= 5 && digits(run).len() >= 4 {
        return 1;
    }
    run.split(|c| c != '*').filter(|stars| stars.len() == 3).count()
}
