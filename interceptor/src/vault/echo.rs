//! Finding an injected secret where an upstream echoes it: as it is, in base64 at any alignment, percent-encoded, or
//! escaped for JSON. Each byte of it becomes `*`, so that lengths stay true. What is found doesn't depend on how the
//! answer is cut into pieces, and nothing is held back but what could be the beginning of an echo.

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use memchr::memmem;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};
use zeroize::{Zeroize, Zeroizing};

/// The characters that everybody escapes in a query's value.
const SOME: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'<').add(b'>');
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The fewest bytes of a form that is looked for.
const LEAST: usize = 6;

/// The forms of one request's secrets. Cheap to share, wiped when the last holder drops it.
#[derive(Clone, Default)]
pub struct Echo(std::sync::Arc<[Zeroizing<Vec<u8>>]>);

impl fmt::Debug for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Echo of {} forms", self.0.len())
    }
}

impl Echo {
    /// What finds these secrets.
    pub(super) fn of(secrets: &[Zeroizing<Vec<u8>>]) -> Self {
        let mut forms: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for secret in secrets {
            for form in spellings(secret) {
                if form.len() >= LEAST && !forms.contains(&form) {
                    forms.push(form);
                }
            }
        }
        Self(forms.into())
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Masks the values of a header or trailer section in place; tells how many had an echo.
    pub fn headers(&self, headers: &mut HeaderMap) -> usize {
        let mut found = 0;
        for value in headers.values_mut() {
            let mut bytes = value.as_bytes().to_vec();
            let mut hit = false;
            for range in self.find(value.as_bytes()) {
                bytes[range].fill(b'*');
                hit = true;
            }
            if hit {
                found += 1;
                *value = HeaderValue::from_bytes(&bytes).unwrap_or_else(|_invalid| HeaderValue::from_static("*"));
            }
        }
        found
    }

    /// What masks a body.
    pub fn mask(&self) -> EchoMask {
        EchoMask { echo: self.clone(), held: Vec::new(), hit: Vec::new(), found: 0 }
    }

    fn find<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        self.0.iter().flat_map(move |form| overlapping(text, form))
    }

    /// How many bytes at the end of `text` could be the beginning of a form.
    fn unsure(&self, text: &[u8]) -> usize {
        let longest = self.0.iter().map(|form| form.len()).max().unwrap_or(1) - 1;
        let tail = &text[text.len().saturating_sub(longest)..];
        let could = |rest: &[u8]| self.0.iter().any(|form| form.len() > rest.len() && form.starts_with(rest));
        (0..tail.len()).find(|&at| could(&tail[at..])).map_or(0, |at| tail.len() - at)
    }
}

/// Every place of `form` in `text`, also where they overlap.
fn overlapping<'a>(text: &'a [u8], form: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + memmem::find(text.get(from..)?, form)?;
        from = at + 1;
        Some(at..at + form.len())
    })
}

/// Masks one body as it passes.
#[derive(Debug)]
pub struct EchoMask {
    echo: Echo,
    /// What could be the beginning of an echo.
    held: Vec<u8>,
    /// Which of these bytes belong to one already.
    hit: Vec<bool>,
    found: u64,
}

impl EchoMask {
    /// Takes a piece of the body and gives what can go on.
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() && self.echo.unsure(&piece) == 0 && self.echo.find(&piece).next().is_none() {
            return piece;
        }
        self.held.extend_from_slice(&piece);
        self.hit.resize(self.held.len(), false);
        for range in self.echo.find(&self.held) {
            if !self.hit[range.clone()].iter().all(|hit| *hit) {
                self.found += 1;
            }
            self.hit[range].fill(true);
        }
        let keep = self.echo.unsure(&self.held);
        self.give(self.held.len() - keep)
    }

    /// Gives what is left at the body's end.
    pub fn finish(&mut self) -> Bytes {
        self.give(self.held.len())
    }

    /// How many echoes were masked.
    pub fn found(&self) -> u64 {
        self.found
    }

    fn give(&mut self, count: usize) -> Bytes {
        let out: Vec<u8> =
            self.held[..count].iter().zip(&self.hit).map(|(byte, hit)| if *hit { b'*' } else { *byte }).collect();
        self.held[..count].zeroize();
        self.held.drain(..count);
        self.hit.drain(..count);
        out.into()
    }
}

impl Drop for EchoMask {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

/// The ways in which an upstream may spell a secret.
fn spellings(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![Zeroizing::new(secret.to_vec())];
    for set in [SOME, UNRESERVED] {
        let coded = percent_encode(secret, set).to_string();
        forms.push(Zeroizing::new(lower_hex(&coded).into_bytes()));
        forms.push(Zeroizing::new(coded.into_bytes()));
    }
    if let Ok(text) = std::str::from_utf8(secret)
        && let Ok(escaped) = serde_json::to_string(text).map(Zeroizing::new)
    {
        let inner = &escaped[1..escaped.len() - 1];
        forms.push(Zeroizing::new(inner.replace('/', "\\/").into_bytes()));
        forms.push(Zeroizing::new(inner.as_bytes().to_vec()));
    }
    for shift in 0..3 {
        // Behind `shift` unknown bytes: the characters that only the secret decides.
        let shifted = Zeroizing::new([&[0; 2][..shift], secret].concat());
        let from = (shift * 8).div_ceil(6);
        let to = shifted.len() * 8 / 6;
        for coded in [STANDARD_NO_PAD.encode(&*shifted), URL_SAFE_NO_PAD.encode(&*shifted)] {
            forms.push(Zeroizing::new(coded.as_bytes()[from..to].to_vec()));
            // At the end of what is coded, the last character is the secret's too.
            forms.push(Zeroizing::new(coded.as_bytes()[from..].to_vec()));
        }
    }
    forms
}

/// Percent-encodings with lower-case digits.
fn lower_hex(coded: &str) -> String {
    let mut out = String::with_capacity(coded.len());
    let mut digits = 0;
    for c in coded.chars() {
        out.push(if digits > 0 { c.to_ascii_lowercase() } else { c });
        digits = if c == '%' { 2 } else { usize::saturating_sub(digits, 1) };
    }
    out
}
