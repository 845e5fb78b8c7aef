//! Phone numbers (ITU-T E.164).

use std::ops::Range;

/// The country codes that the ITU has assigned (E.164), as prefixes.
const COUNTRY_CODES: &[&[u8]] = &[
    b"1", b"20", b"211", b"212", b"213", b"216", b"218", b"22", b"23", b"240", b"241", b"242", b"243", b"244", b"245",
    b"246", b"247", b"248", b"249", b"25", b"26", b"27", b"290", b"291", b"297", b"298", b"299", b"30", b"31", b"32",
    b"33", b"34", b"350", b"351", b"352", b"353", b"354", b"355", b"356", b"357", b"358", b"359", b"36", b"370",
    b"371", b"372", b"373", b"374", b"375", b"376", b"377", b"378", b"379", b"380", b"381", b"382", b"383", b"385",
    b"386", b"387", b"389", b"39", b"40", b"41", b"420", b"421", b"423", b"43", b"44", b"45", b"46", b"47", b"48",
    b"49", b"50", b"51", b"52", b"53", b"54", b"55", b"56", b"57", b"58", b"59", b"60", b"61", b"62", b"63", b"64",
    b"65", b"66", b"670", b"672", b"673", b"674", b"675", b"676", b"677", b"678", b"679", b"68", b"690", b"691",
    b"692", b"7", b"800", b"808", b"81", b"82", b"84", b"850", b"852", b"853", b"855", b"856", b"86", b"870", b"878",
    b"880", b"881", b"882", b"883", b"886", b"888", b"90", b"91", b"92", b"93", b"94", b"95", b"960", b"961", b"962",
    b"963", b"964", b"965", b"966", b"967", b"968", b"970", b"971", b"972", b"973", b"974", b"975", b"976", b"977",
    b"979", b"98", b"992", b"993", b"994", b"995", b"996", b"998",
];

/// One bit for each three digits that a number may begin with.
static ASSIGNED: [u64; 16] = {
    let mut bits = [0; 16];
    let mut at = 0;
    while at < COUNTRY_CODES.len() {
        let (mut first, mut count, mut place) = (0, 1, 0);
        while place < 3 {
            first *= 10;
            if place < COUNTRY_CODES[at].len() {
                first += (COUNTRY_CODES[at][place] - b'0') as usize;
            } else {
                count *= 10;
            }
            place += 1;
        }
        let end = first + count;
        while first < end {
            bits[first / 64] |= 1 << (first % 64);
            first += 1;
        }
        at += 1;
    }
    bits
};

/// Whether a number's first digits begin with a country code.
fn is_assigned(first: [u8; 3]) -> bool {
    let number = first.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    ASSIGNED[number / 64] >> (number % 64) & 1 != 0
}

/// With the country code.
const LEAST_DIGITS: usize = 8;
const MOST_DIGITS: usize = 15;

/// Adds the number in `range` of `text`, which may go on with digits that aren't its own: it ends where a group of digits
/// does.
pub(super) fn phone(text: &[u8], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    // A sum, or a part of something longer.
    let before = range.start.checked_sub(1).map(|at| text[at]);
    if before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'.')) {
        return;
    }
    let candidate = &text[range.clone()];
    let mut skipped = if candidate.starts_with(b"00") { 2 } else { 0 };
    let (mut first, mut count) = ([0; 3], 0);
    let mut end = None;
    for at in range.clone().filter(|at| text[*at].is_ascii_digit()) {
        if skipped > 0 {
            skipped -= 1;
            continue;
        }
        if let Some(place) = first.get_mut(count) {
            *place = text[at];
        }
        count += 1;
        let is_end = text.get(at + 1).is_none_or(|next| !next.is_ascii_digit());
        if is_end && (LEAST_DIGITS..=MOST_DIGITS).contains(&count) {
            end = Some(at + 1);
            // Where all numbers have eleven digits, others follow.
            if count >= 11 && matches!(first[0], b'1' | b'7') {
                break;
            }
        }
    }
    if let Some(end) = end
        && is_assigned(first)
    {
        found.push(range.start..end);
    }
}
