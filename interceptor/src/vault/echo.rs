//! Finding an injected secret where an upstream echoes it: as it is or in base64 at any alignment, and either of them
//! percent-encoded, escaped for JSON or for HTML, whole or in part. Each byte of it becomes `*`, so that lengths stay true.
//! What is found doesn't depend on how the answer is cut into pieces, and nothing is held back but what could be the
//! beginning of an echo.

mod spelling;

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use zeroize::{Zeroize, Zeroizing};

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
            for form in forms_of(secret) {
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
            let hits = self.scan(value.as_bytes()).hits;
            if hits.is_empty() {
                continue;
            }
            let mut bytes = value.as_bytes().to_vec();
            for range in hits {
                bytes[range].fill(b'*');
            }
            found += 1;
            *value = HeaderValue::from_bytes(&bytes).unwrap_or_else(|_invalid| HeaderValue::from_static("*"));
        }
        found
    }

    /// What masks a body.
    pub fn mask(&self) -> EchoMask {
        EchoMask { echo: self.clone(), held: Zeroizing::default(), hit: Vec::new(), found: 0 }
    }

    fn scan(&self, text: &[u8]) -> Scan {
        let mut starts = [false; 256];
        for form in self.0.iter() {
            starts[usize::from(form[0])] = true;
            starts[usize::from(b'+')] |= form[0] == b' ';
        }
        for lead in spelling::LEADS {
            starts[usize::from(lead)] = !self.0.is_empty();
        }
        let mut scan = Scan { hits: Vec::new(), sure: text.len() };
        for at in text.iter().enumerate().filter(|(_, byte)| starts[usize::from(**byte)]).map(|(at, _)| at) {
            for form in self.0.iter() {
                let found = spelling::find(text, at, form);
                scan.hits.extend(found.end.map(|end| at..end));
                if found.open {
                    scan.sure = scan.sure.min(at);
                }
            }
        }
        scan
    }
}

/// What a text has of the forms.
struct Scan {
    hits: Vec<Range<usize>>,
    /// From here on it could be the beginning of another one.
    sure: usize,
}

/// Masks one body as it passes.
#[derive(Debug)]
pub struct EchoMask {
    echo: Echo,
    /// What could be the beginning of an echo.
    held: Zeroizing<Vec<u8>>,
    /// Which of these bytes belong to one already.
    hit: Vec<bool>,
    found: u64,
}

impl EchoMask {
    /// Takes a piece of the body and gives what can go on.
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() {
            let Scan { hits, sure } = self.echo.scan(&piece);
            if hits.is_empty() && sure == piece.len() {
                return piece;
            }
        }
        // Never grown, so that no copy stays behind in memory that was given back.
        let mut joined = Zeroizing::new(Vec::with_capacity(self.held.len() + piece.len()));
        joined.extend_from_slice(&self.held);
        joined.extend_from_slice(&piece);
        self.held = joined;
        self.hit.resize(self.held.len(), false);
        let Scan { hits, sure } = self.echo.scan(&self.held);
        for range in hits {
            if !self.hit[range.clone()].iter().all(|hit| *hit) {
                self.found += 1;
            }
            self.hit[range].fill(true);
        }
        self.give(sure)
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

/// The forms that are looked for, each however it is spelled: the secret, and what base64 makes of it.
fn forms_of(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![Zeroizing::new(secret.to_vec())];
    for shift in 0..3 {
        // Behind `shift` unknown bytes: the characters that only the secret decides.
        let shifted = Zeroizing::new([&[0; 2][..shift], secret].concat());
        let from = (shift * 8).div_ceil(6);
        let to = shifted.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let coded = Zeroizing::new(engine.encode(&*shifted));
            forms.push(Zeroizing::new(coded.as_bytes()[from..to].to_vec()));
            // At the end of what is coded, the last character is the secret's too.
            forms.push(Zeroizing::new(coded.as_bytes()[from..].to_vec()));
        }
    }
    forms
}
