//! How a text may be spelled by who repeats it: each character as it is, percent-encoded (RFC 3986 section 2.1), with
//! backslashes (JSON, RFC 8259 section 7, and JavaScript's `\x`), or as a reference of HTML. Which of them, and whether in
//! capitals, may differ from one character to the next, because servers differ in what they escape. An escape may be
//! escaped in turn, as in a document that is a string in another one.

/// What an escape begins with.
pub(super) const LEADS: [u8; 3] = [b'%', b'\\', b'&'];

/// The most backslashes before one character: of a document in a document in a document.
const MOST_BACKSLASHES: usize = 7;
/// The most digits of a reference: of the highest character, or some zeros before a low one.
const MOST_DIGITS: usize = 7;

/// What a text has of a form, from one place on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Behind its longest spelling that is all there.
    pub(super) end: Option<usize>,
    /// Whether more text could make it another one.
    pub(super) open: bool,
}

/// What `text` has of `form` at `at`.
pub(super) fn find(text: &[u8], at: usize, form: &[u8]) -> Found {
    let mut found = Found::default();
    let (mut place, mut unit) = (at, 0);
    // Nearly always it is as it is, or something else.
    loop {
        let Some(wanted) = form.get(unit) else {
            found.end = Some(place);
            return found;
        };
        match text.get(place) {
            None => {
                found.open = true;
                return found;
            }
            Some(byte) if LEADS.contains(byte) || (*byte == b'+' && *wanted == b' ') => break,
            Some(byte) if byte == wanted => (place, unit) = (place + 1, unit + 1),
            Some(_) => return found,
        }
    }
    // An escape may be one, or be the form's own: so there may be several places to go on from.
    let (mut first, mut reached) = (Some(place), Vec::new());
    while let Some(rest) = form.get(unit..).filter(|rest| !rest.is_empty()) {
        let wanted = &rest[..length(rest)];
        let mut places = Vec::new();
        for place in first.take().into_iter().chain(reached) {
            spelled(&text[place..], wanted, |read| match read {
                Ok(count) => places.push(place + count),
                Err(Miss::Cut) => found.open = true,
                Err(Miss::Other) => {}
            });
        }
        if places.is_empty() {
            return found;
        }
        places.sort_unstable();
        places.dedup();
        reached = places;
        unit += wanted.len();
    }
    found.end = reached.last().copied();
    found
}

/// Why something isn't there.
#[derive(Debug, Clone, Copy)]
enum Miss {
    /// The text ends within it.
    Cut,
    Other,
}

/// How many bytes a spelling has.
type Read = Result<usize, Miss>;

/// Bytes of the character that `form` begins with; 1 where that is none.
fn length(form: &[u8]) -> usize {
    let is_one = |count: &usize| form.get(..*count).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
    (1..=4).find(is_one).unwrap_or(1)
}

/// Every way in which `text` may begin with the character `wanted`.
fn spelled(text: &[u8], wanted: &[u8], mut tell: impl FnMut(Read)) {
    tell(plain(text, wanted));
    let Some(lead) = text.first() else { return };
    let letter = std::str::from_utf8(wanted).ok().and_then(|text| text.chars().next());
    match (lead, letter) {
        (b'+', Some(' ')) => tell(Ok(1)),
        (b'%', _) => (0..3).for_each(|nested| tell(percent(text, wanted, nested))),
        (b'\\', Some(letter)) => backslashed(text, letter, tell),
        (b'&', Some(letter)) => {
            tell(reference(text, letter, 1));
            // The ampersand was escaped in turn.
            tell(expect(text, 1, *b"amp;").and_then(|at| reference(text, letter, at)));
        }
        _ => {}
    }
}

/// As it is.
fn plain(text: &[u8], wanted: &[u8]) -> Read {
    let there = &text[..text.len().min(wanted.len())];
    match wanted.strip_prefix(there) {
        Some([]) => Ok(wanted.len()),
        Some(_) => Err(Miss::Cut),
        None => Err(Miss::Other),
    }
}

/// Behind `signs`, in any case, that stand at `at`.
fn expect(text: &[u8], mut at: usize, signs: impl IntoIterator<Item = u8>) -> Read {
    for sign in signs {
        match text.get(at) {
            None => return Err(Miss::Cut),
            Some(byte) if byte.eq_ignore_ascii_case(&sign) => at += 1,
            Some(_) => return Err(Miss::Other),
        }
    }
    Ok(at)
}

fn digit(value: u32) -> u8 {
    b"0123456789abcdef"[(value & 15) as usize]
}

/// `%2F`, and `%252F`.
fn percent(text: &[u8], wanted: &[u8], nested: usize) -> Read {
    let mut at = 0;
    for byte in wanted {
        let byte = u32::from(*byte);
        let again = std::iter::repeat_n(*b"25", nested).flatten();
        at = expect(text, at, [b'%'].into_iter().chain(again).chain([digit(byte >> 4), digit(byte)]))?;
    }
    Ok(at)
}

/// `\/`, `\u002f`, `\x2f`, with as many backslashes as it takes to escape them in turn.
fn backslashed(text: &[u8], letter: char, mut tell: impl FnMut(Read)) {
    let count = text.iter().take_while(|byte| **byte == b'\\').count();
    if letter == '\\' {
        [2, 4].into_iter().filter(|pair| *pair <= count).for_each(|pair| tell(Ok(pair)));
    }
    if count > MOST_BACKSLASHES {
        return;
    }
    match text.get(count) {
        None => tell(Err(Miss::Cut)),
        Some(b'u' | b'U') => {
            let mut at = Ok(0);
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let unit = u32::from(*unit);
                let digits = [12, 8, 4, 0].map(|shift| digit(unit >> shift));
                let lead = std::iter::repeat_n(b'\\', count).chain([b'u']);
                at = at.and_then(|at| expect(text, at, lead.chain(digits)));
            }
            tell(at);
        }
        Some(b'x' | b'X') if u32::from(letter) < 256 => {
            let code = u32::from(letter);
            tell(expect(text, count + 1, [digit(code >> 4), digit(code)]));
        }
        Some(byte) if letter.is_ascii_punctuation() && char::from(*byte) == letter => tell(Ok(count + 1)),
        Some(_) => {}
    }
}

/// `amp;`, `#38;`, `#x26;`, as they stand behind an ampersand at `at`.
fn reference(text: &[u8], letter: char, at: usize) -> Read {
    if text.get(at) != Some(&b'#') {
        let name = match letter {
            '&' => "amp;",
            '<' => "lt;",
            '>' => "gt;",
            '"' => "quot;",
            '\'' => "apos;",
            '/' => "sol;",
            '+' => "plus;",
            '=' => "equals;",
            // Whatever it is, if anything is there.
            _ => return Err(if at < text.len() { Miss::Other } else { Miss::Cut }),
        };
        return expect(text, at, name.bytes());
    }
    let (from, radix) = match text.get(at + 1) {
        Some(b'x' | b'X') => (at + 2, 16),
        _ => (at + 1, 10),
    };
    let digits = &text[from.min(text.len())..];
    let count = digits.iter().take(MOST_DIGITS).take_while(|byte| char::from(**byte).is_digit(radix)).count();
    match digits.get(count) {
        None => Err(Miss::Cut),
        Some(b';') => {
            let code =
                std::str::from_utf8(&digits[..count]).ok().and_then(|code| u32::from_str_radix(code, radix).ok());
            if code == Some(u32::from(letter)) { Ok(from + count + 1) } else { Err(Miss::Other) }
        }
        Some(_) => Err(Miss::Other),
    }
}
