//! What has to hold of a value besides its looks. Each validator gets a candidate and names the parts of it that are
//! what is looked for: a run of digits can hold two card numbers, or one after an order number.

use std::ops::Range;

use crate::config::Validator;

/// Adds the parts of `range` that hold, as ranges of `text`.
pub(super) fn validate(validator: Validator, text: &[u8], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let candidate = &text[range.clone()];
    let whole = match validator {
        Validator::PaymentCard => return payment_cards(candidate, range.start, found),
        Validator::UsSsn => us_ssn(candidate),
        Validator::Iban => return iban(candidate, range.start, found),
        Validator::Phone => {
            // A sum, or a part of something longer.
            let before = range.start.checked_sub(1).map(|at| text[at]);
            !before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'.')) && phone(candidate)
        }
        Validator::Email => email(candidate),
        Validator::Jwt => jwt(candidate),
        Validator::Mixed => candidate.iter().any(u8::is_ascii_digit) && candidate.iter().any(u8::is_ascii_alphabetic),
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
fn payment_cards(run: &[u8], offset: usize, found: &mut Vec<Range<usize>>) {
    let digit = |at: usize| run.get(at).is_some_and(u8::is_ascii_digit);
    let starts = |at: usize| digit(at) && (at == 0 || !digit(at - 1));
    let mut at = 0;
    while at < run.len() {
        let taken = if starts(at) { longest_card(&run[at..]) } else { None };
        if let Some(length) = taken {
            found.push(offset + at..offset + at + length);
        }
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

/// The candidate may go on with words that follow; the country's length says where the number ends.
fn iban(candidate: &[u8], offset: usize, found: &mut Vec<Range<usize>>) {
    let Some(country) = candidate.get(..2).map(<[u8]>::to_ascii_uppercase) else { return };
    let Some((_, length)) = IBAN_LENGTHS.iter().find(|(known, _)| known[..] == country[..]) else { return };
    let compact: Vec<(usize, u8)> =
        candidate.iter().copied().enumerate().filter(|(_, c)| c.is_ascii_alphanumeric()).take(*length).collect();
    let Some((last, _)) = compact.last().filter(|_| compact.len() == *length) else { return };
    if candidate.get(last + 1).is_some_and(u8::is_ascii_alphanumeric) {
        return;
    }
    let remainder = compact[4..].iter().chain(&compact[..4]).fold(0_u32, |remainder, (_, c)| match c {
        b'0'..=b'9' => (remainder * 10 + u32::from(c - b'0')) % 97,
        c => (remainder * 100 + u32::from(c.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    if remainder == 1 {
        found.push(offset..offset + last + 1);
    }
}

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

fn phone(value: &[u8]) -> bool {
    let digits: Vec<u8> = value.iter().copied().filter(u8::is_ascii_digit).collect();
    let digits = match value.strip_prefix(b"00") {
        Some(_) => &digits[2..],
        None => &digits[..],
    };
    (8..=15).contains(&digits.len()) && COUNTRY_CODES.iter().any(|code| digits.starts_with(code))
}

/// Ends of file names that look like top-level domains: `logo@2x.png` is no address.
const FILE_ENDINGS: &[&[u8]] = &[
    b"png",
    b"jpg",
    b"jpeg",
    b"gif",
    b"svg",
    b"webp",
    b"ico",
    b"js",
    b"mjs",
    b"cjs",
    b"ts",
    b"tsx",
    b"jsx",
    b"css",
    b"scss",
    b"html",
    b"json",
    b"yaml",
    b"yml",
    b"toml",
    b"xml",
    b"tgz",
    b"gz",
    b"tar",
    b"jar",
    b"war",
    b"whl",
    b"dll",
    b"exe",
    b"service",
    b"socket",
    b"timer",
    b"target",
    b"mount",
    b"local",
    b"internal",
    b"localdomain",
    b"lock",
];

fn email(value: &[u8]) -> bool {
    let Some(at) = value.iter().rposition(|c| *c == b'@') else { return false };
    let (local, domain) = (&value[..at], &value[at + 1..]);
    let top = domain.rsplit(|c| *c == b'.').next().unwrap_or_default().to_ascii_lowercase();
    let doubled = |part: &[u8]| part.windows(2).any(|pair| pair == b"..");
    (1..=64).contains(&local.len())
        && (4..=253).contains(&domain.len())
        && !doubled(value)
        // systemd's instances: `getty@tty1.service`; internal names are none that mail reaches, but `.local` people use.
        && (!FILE_ENDINGS.contains(&&top[..]) || (matches!(&top[..], b"local" | b"internal") && domain.len() > 8))
}

fn jwt(value: &[u8]) -> bool {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = value.split(|c| *c == b'.').next().unwrap_or_default();
    let Ok(header) = URL_SAFE_NO_PAD.decode(header) else { return false };
    header.first() == Some(&b'{') && memchr::memmem::find(&header, b"\"alg\"").is_some()
}
