//! What an answer goes through before its process gets it: the bound on its size, the search for the echo of a
//! credential, the masks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, header};

use super::credential::conceal;
use super::payload::too_large;
use crate::error::{Blame, Fault};
use crate::mask::answer::{Answer, mask_trailers};
use crate::mask::{Key, Places, Plan, Withheld};
use crate::vault::{Echo, EchoMask};

/// The code of an answer that can't be masked.
pub(super) const WITHHELD: &str = "response-withheld";

/// The masks of one operation. Not to be printed: it has a key.
#[derive(Clone)]
pub(super) struct Masked {
    pub(super) plan: Arc<Plan>,
    /// Of pseudonyms and entity tags.
    pub(super) key: Key,
}

/// What one answer goes through.
pub(super) struct Screen {
    limit: u64,
    seen: u64,
    echo: Echo,
    echo_mask: Option<EchoMask>,
    masked: Option<Masked>,
    answer: Option<Answer>,
    counts: BTreeMap<String, u64>,
    places: Places,
}

impl Screen {
    /// For an answer of at most `limit` bytes.
    pub(super) fn new(limit: u64, echo: Echo, masked: Option<Masked>) -> Self {
        let echo_mask = (!echo.is_empty()).then(|| echo.mask());
        let (counts, places) = (BTreeMap::new(), Places::default());
        Self { limit, seen: 0, echo, echo_mask, masked, answer: None, counts, places }
    }

    /// The head of the answer becomes what the process gets.
    ///
    /// # Errors
    /// Where the answer can't be passed on: its body is announced as larger than it may be, or a coding hides an echo.
    pub(super) fn head(&mut self, parts: &mut Parts, has_body: bool) -> Result<(), Fault> {
        let length =
            parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if has_body && length.is_some_and(|length| length > self.limit) {
            return Err(answer_too_large());
        }
        conceal(&self.echo, parts, has_body)?;
        if let Some(Masked { plan, key }) = &self.masked {
            self.answer = Answer::begin(plan, key, has_body, parts.status, &mut parts.headers);
        }
        Ok(())
    }

    /// The next bytes of the body become what the process gets of them.
    ///
    /// # Errors
    /// The body is larger than it may be, or can't be masked.
    pub(super) fn data(&mut self, data: Bytes) -> Result<Bytes, Fault> {
        self.seen += data.len() as u64;
        if self.seen > self.limit {
            return Err(answer_too_large());
        }
        let data = match &mut self.echo_mask {
            Some(mask) => mask.push(data),
            None => data,
        };
        let Some(answer) = &mut self.answer else { return Ok(data) };
        let mut out = Vec::with_capacity(data.len());
        answer.push(&data, &mut out).map_err(|why| withheld(&why))?;
        Ok(out.into())
    }

    /// What was held back, at the end of the body or before its trailers.
    ///
    /// # Errors
    /// The body can't be masked.
    pub(super) fn rest(&mut self) -> Result<Bytes, Fault> {
        let rest = self.echo_mask.take().map(|mut mask| mask.finish()).unwrap_or_default();
        let Some(mut answer) = self.answer.take() else { return Ok(rest) };
        let mut out = Vec::new();
        let ended = answer.push(&rest, &mut out).and_then(|()| answer.finish(&mut out));
        self.counts = counts(&answer);
        self.places = answer.take_places();
        ended.map_err(|why| withheld(&why))?;
        Ok(out.into())
    }

    /// The trailers become what the process gets.
    pub(super) fn trailers(&self, trailers: &mut HeaderMap) {
        self.echo.headers(trailers);
        if let Some(Masked { plan, key }) = &self.masked {
            mask_trailers(plan, key, trailers);
        }
    }

    /// Whether the beginning of the body is to be held, so that one that can't be masked is answered with an error. What
    /// comes out piece by piece is awaited, and not held.
    pub(super) fn is_held(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_awaited())
    }

    /// What was masked: the path or the detector's id, and how many values; for good.
    pub(super) fn take_counts(&mut self) -> BTreeMap<String, u64> {
        self.answer.as_ref().map_or_else(|| std::mem::take(&mut self.counts), counts)
    }

    /// Where in what the process got of the body, decoded, something was masked, for good; none where no mask is at work.
    pub(super) fn take_places(&mut self) -> Option<Places> {
        self.masked.as_ref()?;
        Some(match &mut self.answer {
            Some(answer) => answer.take_places(),
            None => std::mem::take(&mut self.places),
        })
    }
}

fn counts(answer: &Answer) -> BTreeMap<String, u64> {
    answer.counts().map(|(what, count)| (what.to_owned(), count)).collect()
}

fn answer_too_large() -> Fault {
    too_large("response-too-large", "the answer's body", "limits.response_body")
}

fn withheld(why: &Withheld) -> Fault {
    metrics::counter!("interceptor_answers_withheld_total").increment(1);
    Fault {
        code: WITHHELD,
        blame: Blame::Upstream,
        told: format!("the answer has to be masked, and is withheld: {why}"),
        next: "ask for it in another format, or less of it; retrying will not help",
    }
}

#[cfg(test)]
pub(super) mod tests;
