//! Texts as they are written in a format, and what they say: JSON's escapes, per cent, HTML's character references. A
//! decoded text comes with the places of its bytes in the written one.

use super::edit::Offsets;

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// As it is.
    Plain,
    /// In a JSON string (RFC 8259 section 7).
    Json,
    /// In a form (application/x-www-form-urlencoded, WHATWG URL).
    Form,
    /// In HTML or XML.
    Markup,
    /// In a quoted field of CSV (RFC 4180).
    Quoted,
}

/// A text, decoded.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) text: Vec<u8>,
    pub(super) map: Offsets,
    /// How much of the written text it is: less than all if an escape was cut off at its end.
    pub(super) read: usize,
}

/// An escape that the format doesn't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadEscape;

/// The longest named character reference that is understood, with `&` and `;`.
const LONGEST_REFERENCE: usize = 12;

impl Escape {
    /// Decodes `raw` into `decoded`, whose old content goes. Unless it is the `last` of a text, an escape that is cut
    /// off at the end isn't read.
    ///
    /// # Errors
    /// An escape that JSON doesn't have. The other formats take it as plain text.
    pub(super) fn decode(self, raw: &[u8], last: bool, decoded: &mut Decoded) -> Result<(), BadEscape> {
        decoded.text.clear();
        decoded.map.clear();
        let mut at = 0;
        while at < raw.len() {
            let rest = &raw[at..];
            let plain = self.next(rest).unwrap_or(rest.len());
            decoded.text.extend_from_slice(&rest[..plain]);
            at += plain;
            let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty()) else { break };
            let start = decoded.text.len();
            let length = match self.one(rest, last, &mut decoded.text)? {
                One::Read(length) => length,
                One::Plain => {
                    decoded.text.push(rest[0]);
                    at += 1;
                    continue;
                }
                One::Cut => break,
            };
            decoded.map.escape(start, at);
            at += length;
            decoded.map.plain(decoded.text.len(), at);
        }
        // Before its first escape a text stands where it is written.
        decoded.read = at;
        Ok(())
    }

    fn next(self, raw: &[u8]) -> Option<usize> {
        match self {
            Escape::Plain => None,
            Escape::Json => memchr::memchr(b'\\', raw),
            Escape::Form => memchr::memchr2(b'%', b'+', raw),
            Escape::Markup => memchr::memchr(b'&', raw),
            Escape::Quoted => memchr::memchr(b'"', raw),
        }
    }

    fn one(self, raw: &[u8], last: bool, text: &mut Vec<u8>) -> Result<One, BadEscape> {
        match self {
            Escape::Plain => Ok(One::Plain),
            Escape::Json => json(raw, last, text),
            Escape::Form => Ok(form(raw, last, text)),
            Escape::Markup => Ok(markup(raw, last, text)),
            Escape::Quoted => Ok(match raw {
                [b'"', b'"', ..] => {
                    text.push(b'"');
                    One::Read(2)
                }
                [_] if !last => One::Cut,
                _ => One::Plain,
            }),
        }
    }

    /// Writes `text` as it has to stand there.
    pub(super) fn encode(self, text: &[u8], out: &mut Vec<u8>) {
        for &byte in text {
            match (self, byte) {
                (Escape::Json, b'"' | b'\\') => out.extend([b'\\', byte]),
                (Escape::Json, b'\n') => out.extend(b"\\n"),
                (Escape::Json, 0..0x20) => out.extend(format!("\\u{byte:04x}").bytes()),
                (Escape::Form, b' ') => out.push(b'+'),
                (Escape::Form, byte) if !(byte.is_ascii_alphanumeric() || b"-._*".contains(&byte)) => {
                    out.extend(format!("%{byte:02X}").bytes());
                }
                (Escape::Markup, b'&') => out.extend(b"&amp;"),
                (Escape::Markup, b'<') => out.extend(b"&lt;"),
                (Escape::Markup, b'"') => out.extend(b"&quot;"),
                (Escape::Quoted, b'"') => out.extend(b"\"\""),
                (_, byte) => out.push(byte),
            }
        }
    }
}

enum One {
    /// An escape of so many bytes.
    Read(usize),
    /// The byte stands for itself.
    Plain,
    /// Its rest isn't here yet.
    Cut,
}

fn json(raw: &[u8], last: bool, text: &mut Vec<u8>) -> Result<One, BadEscape> {
    let Some(&kind) = raw.get(1) else { return if last { Err(BadEscape) } else { Ok(One::Cut) } };
    let plain = match kind {
        b'"' | b'\\' | b'/' => kind,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let high = match unit(raw, 2) {
                Some(high) => high,
                None if raw.len() < 6 && !last => return Ok(One::Cut),
                None => return Err(BadEscape),
            };
            let (code, length) = match high {
                0xd800..0xdc00 => {
                    if raw.len() < 12 && !last {
                        return Ok(One::Cut);
                    }
                    let pair = raw.get(6..8) == Some(b"\\u");
                    match unit(raw, 8).filter(|low| pair && (0xdc00..0xe000).contains(low)) {
                        Some(low) => (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
                        // Half a pair is no character, but many parsers take it.
                        None => (0xfffd, 6),
                    }
                }
                code => (code, 6),
            };
            push(code, text);
            return Ok(One::Read(length));
        }
        _ => return Err(BadEscape),
    };
    text.push(plain);
    Ok(One::Read(2))
}

fn unit(raw: &[u8], at: usize) -> Option<u32> {
    hexadecimal(raw.get(at..at + 4)?)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 6 {
        return None;
    }
    digits.iter().try_fold(0, |code, &digit| Some(code * 16 + char::from(digit).to_digit(16)?))
}

fn push(code: u32, text: &mut Vec<u8>) {
    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn form(raw: &[u8], last: bool, text: &mut Vec<u8>) -> One {
    if raw[0] == b'+' {
        text.push(b' ');
        return One::Read(1);
    }
    match raw.get(1..3) {
        None if !last => One::Cut,
        digits => match digits.and_then(hexadecimal).and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) => {
                text.push(byte);
                One::Read(3)
            }
            None => One::Plain,
        },
    }
}

/// The character references in which something to mask may be hidden; the others stand for characters that no
/// detector looks at.
const NAMED: &[(&[u8], u8)] = &[
    (b"amp", b'&'),
    (b"lt", b'<'),
    (b"gt", b'>'),
    (b"quot", b'"'),
    (b"apos", b'\''),
    (b"commat", b'@'),
    (b"period", b'.'),
    (b"plus", b'+'),
    (b"nbsp", b' '),
    (b"dash", b'-'),
    (b"hyphen", b'-'),
    (b"lowbar", b'_'),
    (b"colon", b':'),
    (b"equals", b'='),
    (b"sol", b'/'),
    (b"lpar", b'('),
    (b"rpar", b')'),
    (b"NewLine", b'\n'),
    (b"Tab", b'\t'),
];

fn markup(raw: &[u8], last: bool, text: &mut Vec<u8>) -> One {
    if raw.get(1) == Some(&b'#') {
        return numeric(raw, last, text);
    }
    let within = &raw[1..raw.len().min(LONGEST_REFERENCE)];
    let end = within.iter().position(|c| !c.is_ascii_alphanumeric()).unwrap_or(within.len());
    if end == within.len() && raw.len() < LONGEST_REFERENCE && !last {
        return One::Cut;
    }
    let name = &within[..end];
    let closed = usize::from(within.get(end) == Some(&b';'));
    match NAMED.iter().find(|(known, _)| *known == name) {
        Some((_, byte)) if closed == 1 => {
            text.push(*byte);
            One::Read(1 + end + closed)
        }
        _ => One::Plain,
    }
}

/// A numeric character reference (WHATWG HTML section 13.2.5.80): as many digits as there are, also behind zeros and without
/// a `;`.
fn numeric(raw: &[u8], last: bool, text: &mut Vec<u8>) -> One {
    let (base, start) = if matches!(raw.get(2), Some(b'x' | b'X')) { (16, 3) } else { (10, 2) };
    let digits = raw[start..].iter().take_while(|c| char::from(**c).is_digit(base)).count();
    let end = start + digits;
    if end == raw.len() && !last {
        return One::Cut;
    }
    let value = |code: Option<u32>, digit: &u8| {
        let digit = char::from(*digit).to_digit(base)?;
        code?.checked_mul(base)?.checked_add(digit).filter(|code| *code <= 0x10_ffff)
    };
    match raw[start..end].iter().fold(Some(0), value) {
        Some(code) if digits > 0 => {
            push(code, text);
            One::Read(end + usize::from(raw.get(end) == Some(&b';')))
        }
        _ => One::Plain,
    }
}

#[cfg(test)]
mod tests;
