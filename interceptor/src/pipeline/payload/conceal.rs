//! What is masked in answers is masked in what is kept of their requests, too: by the same masks, so that a value has the
//! same pseudonym on both sides.

use std::borrow::Cow;
use std::str::FromStr;

use http::HeaderName;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use crate::mask::{self, HeaderFate, Places};
use crate::pipeline::screen::Masked;
use crate::record::payload::Message;

/// What a segment of a path can't have as it is; brackets stay, so that marks can be read.
const SEGMENT: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'/').add(b'?').add(b'#');

/// What is kept of a field or a query that can't be masked.
const UNMASKED: &str = "[unmasked]";

impl Masked {
    /// Masks a request's path, query, headers and body. A body that can't be masked isn't kept.
    pub(super) fn conceal(&self, request: &mut Message) {
        let Message { start, headers, trailers, body, partial, masked, .. } = request;
        *start = self.start(start);
        let mut types = headers.iter().filter(|(name, _)| name == "content-type").map(|(_, value)| value.clone());
        // Of two the server may go by either.
        let content_type = types.next().filter(|_| types.next().is_none());
        *headers = self.fields(std::mem::take(headers));
        *trailers = self.fields(std::mem::take(trailers));
        if body.is_empty() {
            return;
        }
        let is_cut = partial.is_some();
        (*body, *masked) = match self.body(content_type.as_deref(), body, is_cut) {
            Some((body, places)) => (body, Some(places)),
            None => {
                *partial = Some("unmasked".into());
                (Vec::new(), None)
            }
        };
    }

    /// `METHOD PATH`, and what may follow, with the path masked; another line stays.
    pub(in crate::pipeline) fn summary(&self, line: &str) -> String {
        let parts = line.split_once(' ').filter(|(_, rest)| rest.starts_with('/') && self.plan.detects());
        let Some((method, rest)) = parts else { return line.to_owned() };
        let path = rest.split(' ').next().unwrap_or_default();
        format!("{method} {}{}", self.path(path), &rest[path.len()..])
    }

    /// `METHOD PATH?QUERY VERSION` with its path and its query masked.
    fn start(&self, start: &str) -> String {
        let Some((before, (query, version))) =
            start.split_once('?').and_then(|(before, rest)| Some((before, rest.rsplit_once(' ')?)))
        else {
            return self.summary(start);
        };
        let masked = mask::query(&self.plan, &self.key, query.as_bytes());
        let masked = masked.unwrap_or_else(|_withheld| UNMASKED.into());
        format!("{}?{} {version}", self.summary(before), String::from_utf8_lossy(&masked))
    }

    /// By detectors alone, as nothing in it has a name: each segment as servers read it, then all of it.
    fn path(&self, path: &str) -> String {
        let segment = |segment: &str| {
            let decoded: Cow<'_, [u8]> = percent_decode_str(segment).into();
            match mask::nameless(&self.plan, &self.key, &decoded) {
                Ok(masked) if *masked == *decoded => segment.to_owned(),
                Ok(masked) => percent_encode(&masked, SEGMENT).to_string(),
                Err(_withheld) => UNMASKED.to_owned(),
            }
        };
        let path = path.split('/').map(segment).collect::<Vec<_>>().join("/");
        match mask::nameless(&self.plan, &self.key, path.as_bytes()) {
            Ok(masked) => String::from_utf8_lossy(&masked).into_owned(),
            Err(_withheld) => UNMASKED.to_owned(),
        }
    }

    fn fields(&self, fields: Vec<(String, String)>) -> Vec<(String, String)> {
        if !self.plan.detects() && !self.plan.names_headers() {
            return fields;
        }
        let masked = |(name, value): (String, String)| {
            let value = self.field(&name, value)?;
            Some((name, value))
        };
        fields.into_iter().filter_map(masked).collect()
    }

    fn field(&self, name: &str, value: String) -> Option<String> {
        let named = HeaderName::from_str(name).map(|name| self.plan.header(&self.key, &name, value.as_bytes()));
        let value = match named {
            Ok(HeaderFate::Remove) => return None,
            Ok(HeaderFate::Replace(fresh)) => String::from_utf8_lossy(&fresh).into_owned(),
            Ok(HeaderFate::Keep) | Err(_) => value,
        };
        Some(match mask::nameless(&self.plan, &self.key, value.as_bytes()) {
            Ok(masked) => String::from_utf8_lossy(&masked).into_owned(),
            Err(_withheld) => UNMASKED.into(),
        })
    }

    /// The body, and where it is masked. Only as far as it could be, if it is cut short anyway: at its end could be a part of
    /// what would be masked.
    fn body(&self, content_type: Option<&str>, body: &[u8], is_cut: bool) -> Option<(Vec<u8>, Places)> {
        let mut masker = mask::Masker::new(self.plan.clone(), content_type, self.key).ok()?;
        let mut out = Vec::with_capacity(body.len());
        masker.push(body, &mut out).ok()?;
        // What isn't complete stays behind in the masker.
        (is_cut || masker.finish(&mut out).is_ok()).then(|| (out, masker.take_places()))
    }
}

#[cfg(test)]
mod tests;
