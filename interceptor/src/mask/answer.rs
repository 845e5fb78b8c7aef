//! A whole HTTP exchange under masks: what the request may ask for, what becomes of the answer's head, and its body from
//! the bytes that come to the bytes that go: decoded, masked, encoded again. Pure; `pipeline` moves the bytes.

use std::sync::Arc;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::coding::{Decoder, Encoder, codings};
use super::replace::Key;
use super::{HeaderFate, Masker, Places, Plan, Withheld, etag};

/// What asks for, or tells, a part or a digest of the body as the server has it.
const ABOUT_BYTES: [&str; 14] = [
    "accept-ranges",
    "content-digest",
    "content-length",
    "content-md5",
    "digest",
    "repr-digest",
    "want-content-digest",
    "want-digest",
    "want-repr-digest",
    "a-im",
    "x-goog-hash",
    "x-ms-blob-content-md5",
    "x-ms-content-crc64",
    "x-ms-content-md5",
];
/// How the names of such headers begin, of which there are as many as there are algorithms.
const ABOUT_BYTES_BEGIN: &str = "x-amz-checksum-";

/// An answer's body on its way.
pub struct Answer {
    body: Body,
    /// Whether any byte of it has come.
    begun: bool,
}

enum Body {
    Readable(Box<Readable>),
    /// It is withheld, if there is any: many an answer without a body doesn't say so.
    Unreadable(Withheld),
}

struct Readable {
    decoder: Option<Decoder>,
    masker: Masker,
    encoder: Option<Encoder>,
    masked: Vec<u8>,
}

/// Changes a request's head so that its answer can be masked: only codings that can be decoded, no ranges, no digests,
/// and the server's own entity tags instead of our tokens for them.
pub fn prepare(key: &Key, headers: &mut HeaderMap) {
    let accepted = accepted(headers);
    headers.insert(header::ACCEPT_ENCODING, accepted);
    headers.remove(header::RANGE);
    headers.remove(header::IF_RANGE);
    remove_about_bytes(headers, true);
    // Without a tag that the server knows it answers in full.
    revealed(key, headers, &header::IF_NONE_MATCH);
    // With one that it doesn't know it refuses, which is right.
    if headers.contains_key(header::IF_MATCH) && !revealed(key, headers, &header::IF_MATCH) {
        headers.insert(header::IF_MATCH, HeaderValue::from_static("\"unknown\""));
    }
}

impl Answer {
    /// Changes an answer's head, and says how its body is to be masked; none if there is nothing to do to it, or no body.
    pub fn begin(
        plan: &Arc<Plan>,
        key: &Key,
        has_body: bool,
        status: StatusCode,
        headers: &mut HeaderMap,
    ) -> Option<Self> {
        mask_headers(plan, key, headers);
        if plan.is_blind() {
            return None;
        }
        let length = headers.get(header::CONTENT_LENGTH).cloned();
        remove_about_bytes(headers, false);
        if let Some(tag) = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()) {
            match HeaderValue::from_str(&etag::hide(key, tag)) {
                Ok(token) => drop(headers.insert(header::ETAG, token)),
                Err(_) => drop(headers.remove(header::ETAG)),
            }
        }
        if !has_body {
            if let Some(none) = length.filter(|length| length == "0") {
                headers.insert(header::CONTENT_LENGTH, none);
            }
            return None;
        }
        let body = match Readable::new(plan, key, status, headers) {
            Ok(readable) => Body::Readable(Box::new(readable)),
            Err(withheld) => Body::Unreadable(withheld),
        };
        Some(Self { body, begun: false })
    }

    /// Takes the next bytes of the body, and appends to `out` what may be passed on.
    ///
    /// # Errors
    /// The body can't be masked; nothing may follow what went out before.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Withheld> {
        self.begun |= !bytes.is_empty();
        match &mut self.body {
            _ if bytes.is_empty() => Ok(()),
            Body::Readable(readable) => readable.push(bytes, out),
            Body::Unreadable(withheld) => Err(withheld.clone()),
        }
    }

    /// The body is complete; appends what is left of it.
    ///
    /// # Errors
    /// As [`Answer::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        match &mut self.body {
            Body::Readable(readable) if self.begun => readable.finish(out),
            _ => Ok(()),
        }
    }

    /// Whether what comes out is awaited, piece by piece: events, or documents that follow each other.
    pub fn is_awaited(&self) -> bool {
        matches!(&self.body, Body::Readable(readable) if readable.masker.is_awaited())
    }

    /// What was masked so far: the path or the detector's id, and how many values.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        let readable = match &self.body {
            Body::Readable(readable) => Some(readable),
            Body::Unreadable(_) => None,
        };
        readable.into_iter().flat_map(|readable| readable.masker.counts())
    }

    /// Where in what went out, decoded from its codings, something was masked; for good.
    pub fn take_places(&mut self) -> Places {
        match &mut self.body {
            Body::Readable(readable) => readable.masker.take_places(),
            Body::Unreadable(_) => Places::default(),
        }
    }
}

impl Readable {
    fn new(plan: &Arc<Plan>, key: &Key, status: StatusCode, headers: &HeaderMap) -> Result<Self, Withheld> {
        if status == StatusCode::PARTIAL_CONTENT {
            return Err(Withheld::invalid("it is a part of a document"));
        }
        let unreadable = || Withheld::invalid("a header that isn't text");
        if headers.get_all(header::CONTENT_TYPE).iter().count() > 1 {
            // The process may go by the other one.
            return Err(Withheld::invalid("it has more than one Content-Type"));
        }
        let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str).transpose();
        let masker = Masker::new(Arc::clone(plan), content_type.map_err(|_| unreadable())?, *key)?;
        let mut applied = Vec::new();
        for value in headers.get_all(header::CONTENT_ENCODING) {
            applied.extend(codings(value.to_str().map_err(|_| unreadable())?)?);
        }
        let (decoder, encoder) = if applied.is_empty() {
            (None, None)
        } else {
            (Some(Decoder::new(&applied, plan.expansion)?), Some(Encoder::new(&applied)?))
        };
        Ok(Self { decoder, masker, encoder, masked: Vec::new() })
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Withheld> {
        let Self { decoder, masker, encoder, masked } = self;
        let flush = masker.is_awaited();
        let mut step = |decoded: &[u8]| {
            let Some(encoder) = encoder.as_mut() else { return masker.push(decoded, out) };
            masked.clear();
            masker.push(decoded, masked)?;
            encoder.push(masked, flush && !masked.is_empty(), out)
        };
        match decoder {
            Some(decoder) => decoder.push(bytes, &mut step),
            None => step(bytes),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        let (decoder, encoder) = (self.decoder.take(), self.encoder.take());
        let Self { masker, masked, .. } = self;
        masked.clear();
        if let Some(decoder) = decoder {
            decoder.finish(&mut |decoded| masker.push(decoded, masked))?;
        }
        masker.finish(masked)?;
        match encoder {
            None => out.extend_from_slice(masked),
            Some(mut encoder) => {
                encoder.push(masked, false, out)?;
                encoder.finish(out)?;
            }
        }
        Ok(())
    }
}

/// Changes the head of an answer whose body is left out.
pub fn empty(headers: &mut HeaderMap) {
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::CONTENT_LOCATION] {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
}

/// Masks a trailer section.
pub fn mask_trailers(plan: &Plan, key: &Key, trailers: &mut HeaderMap) {
    mask_headers(plan, key, trailers);
    if !plan.is_blind() {
        remove_about_bytes(trailers, false);
    }
}

/// Masks the headers or trailers that the plan names.
fn mask_headers(plan: &Plan, key: &Key, headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = plan.headers.iter().map(|(name, _)| name.clone()).collect();
    for name in named {
        let fates: Vec<_> =
            headers.get_all(&name).iter().map(|value| plan.header(key, &name, value.as_bytes())).collect();
        headers.remove(&name);
        for fate in fates {
            if let HeaderFate::Replace(fresh) = fate
                && let Ok(value) = HeaderValue::from_bytes(&fresh)
            {
                headers.append(&name, value);
            }
        }
    }
}

fn remove_about_bytes(headers: &mut HeaderMap, request: bool) {
    let is_about_bytes = |name: &str| {
        let is_one = ABOUT_BYTES.contains(&name) || name.starts_with(ABOUT_BYTES_BEGIN);
        // A request's own body isn't masked.
        is_one && (!request || name.starts_with("want-") || name == "a-im")
    };
    // Fewer are there than could be.
    let there = headers.keys().filter(|name| is_about_bytes(name.as_str()));
    for name in there.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Of the codings that the client takes, those that can be decoded.
fn accepted(headers: &HeaderMap) -> HeaderValue {
    let mut kept: Vec<String> = Vec::new();
    for value in headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
        for item in value.split(',').map(str::trim) {
            let name = item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            if matches!(name.as_str(), "gzip" | "x-gzip" | "deflate" | "br" | "zstd" | "identity") {
                kept.push(item.to_owned());
            }
        }
    }
    let identity = HeaderValue::from_static("identity");
    if kept.is_empty() { identity } else { HeaderValue::try_from(kept.join(", ")).unwrap_or(identity) }
}

/// Turns our tokens in a list of entity tags back into the server's tags; others go. Says whether any is left.
fn revealed(key: &Key, headers: &mut HeaderMap, name: &HeaderName) -> bool {
    let mut tags = Vec::new();
    for value in headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
        if value.trim() == "*" {
            return true;
        }
        // Our tokens hold no comma.
        tags.extend(value.split(',').filter_map(|token| etag::reveal(key, token)));
    }
    headers.remove(name);
    let value = (!tags.is_empty()).then(|| HeaderValue::try_from(tags.join(", ")).ok()).flatten();
    let left = value.is_some();
    if let Some(value) = value {
        headers.insert(name, value);
    }
    left
}

#[cfg(test)]
mod tests;
