//! Paths and queries that every server reads alike. A proxy that decides about `/a/../b` and forwards it has decided
//! about another resource than the server serves; so whatever two servers could read differently is refused, and what is
//! left is sent byte for byte as it was judged (RFC 3986 section 3.3; section 6.2 lists what normalisation may change).
//! Not here: what a policy makes of a path.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::CanonicalPath;

/// The most parameters that a query may have; more would only cost time to judge.
const MOST_PARAMETERS: usize = 256;

/// Request headers, in lower case, by which some servers replace the method that policy judged. A request that carries
/// one is refused.
pub const METHOD_OVERRIDE_HEADERS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Why a path or a query could mean different things to different servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// It doesn't begin with `/`.
    NotOriginForm,
    /// `//`.
    EmptySegment,
    /// A segment of dots only, also encoded.
    DotSegment,
    /// `%2F`, or a character that folds to `/`.
    EncodedSlash,
    /// `\`, also encoded, or a character that folds to it.
    Backslash,
    /// `;`, also encoded: path parameters, which some servers cut off.
    Semicolon,
    /// `#`: a fragment, which belongs to the client.
    Fragment,
    /// A `%` that isn't followed by two hexadecimal digits, or that still encodes something after decoding.
    Percent,
    /// What is encoded isn't UTF-8 (overlong forms, surrogates, stray bytes).
    Utf8,
    /// A control character, also encoded; NUL among them.
    Control,
    /// A character that must be encoded here.
    Character,
    /// More parameters than are judged.
    Parameters,
}

/// A path or a query that is refused, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} (byte {at})")]
pub struct AmbiguousPath {
    /// What was found.
    pub what: Ambiguity,
    /// Where: the byte, from 0, in the path or the query.
    pub at: usize,
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ambiguity::NotOriginForm => "the request target doesn't begin with `/`; send the path alone",
            Ambiguity::EmptySegment => "the path has an empty segment (`//`); send single slashes",
            Ambiguity::DotSegment => "the path has a segment of dots only; send the path that it leads to",
            Ambiguity::EncodedSlash => "the path has an encoded slash (`%2F`), which servers read differently",
            Ambiguity::Backslash => "the path has a backslash, which some servers read as a slash",
            Ambiguity::Semicolon => "the path has a `;`, after which some servers cut a segment off",
            Ambiguity::Fragment => "a fragment (`#`) isn't sent to servers; leave it out or encode it as `%23`",
            Ambiguity::Percent => "a `%` doesn't begin a byte of two hexadecimal digits, or encodes twice",
            Ambiguity::Utf8 => "what is percent-encoded isn't UTF-8",
            Ambiguity::Control => "a control character, which no server should be sent",
            Ambiguity::Character => "a character that has to be percent-encoded here",
            Ambiguity::Parameters => "the query has more than 256 parameters; send fewer",
        })
    }
}

impl CanonicalPath {
    /// Judges the path of a request target, without its query.
    ///
    /// # Errors
    /// The first thing in it that two servers could read differently.
    pub fn parse(raw: &str) -> Result<CanonicalPath, AmbiguousPath> {
        let Some(rest) = raw.strip_prefix('/') else {
            return Err(AmbiguousPath { what: Ambiguity::NotOriginForm, at: 0 });
        };
        let mut decoded: Option<String> = None;
        let mut at = 1;
        let mut pieces = rest.split('/').peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            match segment(piece) {
                Err((what, offset)) => return Err(AmbiguousPath { what, at: at + offset }),
                // A final slash ends the last segment and doesn't begin another.
                Ok(text) if text.is_empty() && last => {}
                Ok(text) if text.is_empty() => return Err(AmbiguousPath { what: Ambiguity::EmptySegment, at }),
                Ok(Cow::Owned(text)) => decoded.get_or_insert_with(|| raw[..at].to_owned()).push_str(&text),
                Ok(Cow::Borrowed(text)) => decoded.iter_mut().for_each(|decoded| decoded.push_str(text)),
            }
            if !last {
                decoded.iter_mut().for_each(|decoded| decoded.push('/'));
            }
            at += piece.len() + 1;
        }
        Ok(CanonicalPath { raw: raw.into(), decoded: decoded.map(Arc::from) })
    }

    /// The path as it was sent and as it will be sent.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The segments, decoded, without an empty one for a final slash: none for `/`.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let path = self.decoded();
        // Empty is what is before the first slash, and behind a final one.
        path.split('/').filter(|segment| !segment.is_empty())
    }

    /// The path with its segments decoded. No segment holds a `/`, so it has one reading; a final slash is kept.
    pub fn decoded(&self) -> &str {
        self.decoded.as_ref().unwrap_or(&self.raw)
    }
}

/// Judges a query, without its `?`.
///
/// # Errors
/// The first thing in it that two servers could read differently.
pub fn check_query(raw: &str) -> Result<(), AmbiguousPath> {
    parameters(raw).map(drop)
}

/// Names with values, decoded.
type Parameters<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The parameters of a query (WHATWG URL, application/x-www-form-urlencoded): keys and values decoded, in their order.
pub(super) fn parameters(raw: &str) -> Result<Parameters<'_>, AmbiguousPath> {
    let mut found = Vec::new();
    let mut at = 0;
    for piece in raw.split('&') {
        let fault = |what, offset| AmbiguousPath { what, at: at + offset };
        let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
        let value_at = piece.len() - value.len();
        let key = parameter(key).map_err(|(what, offset)| fault(what, offset))?;
        let value = parameter(value).map_err(|(what, offset)| fault(what, value_at + offset))?;
        if !piece.is_empty() {
            if found.len() == MOST_PARAMETERS {
                return Err(fault(Ambiguity::Parameters, 0));
            }
            found.push((key, value));
        }
        at += piece.len() + 1;
    }
    Ok(found)
}

fn segment(piece: &str) -> Result<Cow<'_, str>, (Ambiguity, usize)> {
    let text = decode(piece, |byte| match byte {
        b'\\' => Some(Ambiguity::Backslash),
        b';' => Some(Ambiguity::Semicolon),
        b'#' => Some(Ambiguity::Fragment),
        byte if byte.is_ascii_control() => Some(Ambiguity::Control),
        // pchar of RFC 3986, less the semicolon.
        byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@%".contains(&byte) => None,
        _ => Some(Ambiguity::Character),
    })?;
    if !text.is_empty() && text.bytes().all(|byte| byte == b'.') {
        return Err((Ambiguity::DotSegment, 0));
    }
    for character in text.chars() {
        let what = match character {
            // The full-width forms and look-alikes are folded by servers that map Unicode to a code page.
            '/' | '\u{2044}' | '\u{2215}' | '\u{ff0f}' => Ambiguity::EncodedSlash,
            '\\' | '\u{2216}' | '\u{ff3c}' => Ambiguity::Backslash,
            '\u{ff0e}' | '\u{2024}' => Ambiguity::DotSegment,
            ';' => Ambiguity::Semicolon,
            character if character.is_control() => Ambiguity::Control,
            _ => continue,
        };
        return Err((what, 0));
    }
    // A server that decodes twice would see another path.
    let twice = |window: &[u8]| window[0] == b'%' && window[1..].iter().all(u8::is_ascii_hexdigit);
    if text.as_bytes().windows(3).any(twice) {
        return Err((Ambiguity::Percent, 0));
    }
    Ok(text)
}

fn parameter(piece: &str) -> Result<Cow<'_, str>, (Ambiguity, usize)> {
    if let Some(at) = piece.find(' ') {
        return Err((Ambiguity::Character, at));
    }
    let judge = |byte: u8| match byte {
        b'#' => Some(Ambiguity::Fragment),
        byte if byte.is_ascii_control() => Some(Ambiguity::Control),
        byte if byte.is_ascii_graphic() => None,
        _ => Some(Ambiguity::Character),
    };
    let text = if piece.contains('+') {
        Cow::Owned(decode(&piece.replace('+', "%20"), judge)?.into_owned())
    } else {
        decode(piece, judge)?
    };
    if text.contains('\0') { Err((Ambiguity::Control, 0)) } else { Ok(text) }
}

/// Decodes percent-encoding once, after judging each byte as it was sent.
fn decode(piece: &str, judge: impl Fn(u8) -> Option<Ambiguity>) -> Result<Cow<'_, str>, (Ambiguity, usize)> {
    let bytes = piece.as_bytes();
    if !bytes.contains(&b'%') {
        let bad = bytes.iter().enumerate().find_map(|(at, &byte)| Some((judge(byte)?, at)));
        return bad.map_or(Ok(Cow::Borrowed(piece)), Err);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if let Some(what) = judge(byte) {
            return Err((what, at));
        }
        if byte == b'%' {
            let digit = |offset: usize| bytes.get(at + offset).and_then(|&c| char::from(c).to_digit(16));
            let (Some(high), Some(low)) = (digit(1), digit(2)) else {
                return Err((Ambiguity::Percent, at));
            };
            decoded.push((high * 16 + low) as u8);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| (Ambiguity::Utf8, 0))
}

#[cfg(test)]
mod tests;
