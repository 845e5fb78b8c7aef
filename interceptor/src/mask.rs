//! Masks: what a process isn't to see is replaced in what it is answered. Pure and push-style: bytes go in as they come,
//! and come out as they may be seen; what isn't masked comes out as it was, byte for byte. What can't be looked into is
//! withheld, never passed. Where something was masked is noted, for who reads the record.
//!
//! [`Masks`] is compiled once from a configuration, a [`Plan`] once for a set of mask names, a [`Masker`] is made for each
//! body. Not here: which masks apply (`policy`), what becomes of the answer's head (`pipeline`).

use std::sync::Arc;

use http::HeaderName;

use crate::config::{Expansion, Mask, Rule, Strategy};
use crate::ids::MaskName;
use counts::Tally;
use detector::{Active, Detectors};
use edit::Sink;
use engine::Engine;
use escape::Escape;
use events::Events;
use fields::Fields;
use json::Json;
use kind::Kind;
use path::{Paths, Spare};
use places::Noting;
use wide::Wide;
use window::Window;

pub mod answer;
pub mod coding;
mod counts;
mod detector;
mod edit;
mod engine;
mod escape;
pub mod etag;
mod events;
pub mod examples;
mod fields;
mod json;
mod kind;
mod path;
pub mod places;
mod query;
mod replace;
mod validate;
mod wide;
mod window;

pub use detector::BadRule;
pub use places::{Place, Places};
pub use replace::Key;

/// The masks of a configuration, compiled.
#[derive(Debug, Default)]
pub struct Masks {
    masks: Vec<Arc<Mask>>,
    detectors: Arc<Detectors>,
    expansion: Expansion,
}

/// What several masks do together: the union of what they mask, and where they disagree the stricter strategy.
#[derive(Debug, Default)]
pub struct Plan {
    masks: Vec<Arc<Mask>>,
    /// What a coded body may decode to.
    expansion: Expansion,
    paths: Arc<Paths>,
    spare: Spare,
    active: Active,
    /// Whether a path drops members.
    drops: bool,
    headers: Vec<(HeaderName, Strategy)>,
    deny_query: Vec<Box<str>>,
}

/// Why a body can't be passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// It is of a type that no mask can look into.
    #[error("{} can't be masked", .0.as_deref().map_or("an answer without a Content-Type".into(), |kind| format!("`{kind}`")))]
    UnknownType(Option<Box<str>>),
    /// It has no members, and the masks name members.
    #[error("the masks name members of JSON documents, and the answer isn't one")]
    NotJson,
    /// It has columns or fields, and the masks name members that none of them is.
    #[error("the masks name members, and the answer has no column of such a name, nor a field")]
    NoColumn,
    /// It isn't what its type says.
    #[error("the answer can't be read: {0}")]
    Invalid(&'static str),
    /// Something that has to be held as a whole is too large for that.
    #[error("{0} is too large to be masked")]
    TooLarge(&'static str),
    /// It is nested deeper than is followed.
    #[error("the answer is nested too deep to be masked")]
    TooDeep,
    /// Its content coding isn't one that can be decoded.
    #[error("the content coding `{0}` can't be decoded")]
    UnknownCoding(Box<str>),
    /// It decodes to more than its size can honestly hold.
    #[error(
        "the answer decodes to more than this host's Interceptor takes (`limits.decoded_body`, `limits.decoded_ratio`)"
    )]
    Bomb,
}

/// What becomes of a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderFate {
    /// It stays.
    Keep,
    /// This takes its place.
    Replace(Vec<u8>),
    /// The field is left out.
    Remove,
}

/// Masks one body.
#[derive(Debug)]
pub struct Masker {
    engine: Engine,
    format: Format,
    /// What the format couldn't take yet.
    carry: Vec<u8>,
    wide: Wide,
    /// How much went out.
    given: u64,
    places: Places,
}

#[derive(Debug)]
enum Format {
    /// There is nothing to mask.
    Pass,
    Json(Box<Json>),
    Text(Window, Escape),
    Fields(Box<Fields>),
    Events(Events),
}

/// Masks a URL's query, without its `?`: by the names of its parameters, as a form, and by detectors.
///
/// # Errors
/// It can't be masked.
pub fn query(plan: &Arc<Plan>, key: &Key, query: &[u8]) -> Result<Vec<u8>, Withheld> {
    let format = if plan.is_blind() { Format::Pass } else { Format::Fields(Box::new(Fields::query())) };
    Masker::of(Engine::new(Arc::clone(plan), *key), format).all(query)
}

/// Masks a text that is no body, such as a header's value: by detectors alone, as nothing in it has a name.
///
/// # Errors
/// It can't be masked.
pub fn nameless(plan: &Arc<Plan>, key: &Key, text: &[u8]) -> Result<Vec<u8>, Withheld> {
    if !plan.detects() {
        return Ok(text.to_vec());
    }
    let format = Format::Text(Window::default(), Escape::Plain);
    Masker::of(Engine::new(Arc::clone(plan), *key), format).all(text)
}

impl Withheld {
    fn invalid(why: &'static str) -> Self {
        Withheld::Invalid(why)
    }

    fn too_large(what: &'static str) -> Self {
        Withheld::TooLarge(what)
    }
}

impl Masks {
    /// Compiles the masks of a configuration.
    ///
    /// # Errors
    /// A detector whose regex is too large, or more than 256 of them.
    pub fn new(masks: &[Arc<Mask>]) -> Result<Self, BadRule> {
        let mut rules: Vec<Arc<Rule>> = Vec::new();
        for rule in masks.iter().flat_map(|mask| &mask.detect) {
            if rules.iter().all(|known| **known != **rule) {
                rules.push(Arc::clone(rule));
            }
        }
        let (masks, detectors) = (masks.to_vec(), Arc::new(Detectors::new(rules)?));
        Ok(Self { masks, detectors, expansion: Expansion::default() })
    }

    /// The same, with another bound of what a coded body may decode to.
    pub fn bounded(self, expansion: Expansion) -> Self {
        Self { expansion, ..self }
    }

    /// What the masks of these names do together; none if one of them doesn't exist.
    pub fn plan(&self, names: &[MaskName]) -> Option<Plan> {
        let mut paths = Vec::new();
        let mut strategies = vec![None; self.detectors.len()];
        let mut plan = Plan { expansion: self.expansion, ..Plan::default() };
        for name in names {
            let mask = self.masks.iter().find(|mask| mask.name == *name)?;
            paths.extend(mask.json.iter().map(|path| (path.clone(), mask.strategy)));
            for rule in &mask.detect {
                let strategy: &mut Option<Strategy> = strategies.get_mut(self.detectors.position(rule)?)?;
                *strategy = (*strategy).max(Some(mask.strategy));
            }
            for header in &mask.headers {
                match plan.headers.iter_mut().find(|(known, _)| known == header) {
                    Some((_, strategy)) => *strategy = (*strategy).max(mask.strategy),
                    None => plan.headers.push((header.clone(), mask.strategy)),
                }
            }
            plan.deny_query.extend(mask.deny_query.iter().cloned());
            plan.masks.push(Arc::clone(mask));
        }
        plan.paths = Arc::new(Paths::new(paths));
        plan.drops = plan.paths.drops();
        plan.active = Active::new(Arc::clone(&self.detectors), strategies);
        Some(plan)
    }
}

impl Plan {
    /// Whether bodies pass as they are: the masks are about headers only.
    pub fn is_blind(&self) -> bool {
        self.paths.is_empty() && self.active.is_empty()
    }

    /// Whether detectors look at texts: else nothing is masked that has no name.
    pub fn detects(&self) -> bool {
        !self.active.is_empty()
    }

    /// Whether headers are masked by their names.
    pub fn names_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Whether `other` masks at least what this one does.
    pub fn is_within(&self, other: &Plan) -> bool {
        self.masks.iter().all(|mask| other.masks.contains(mask))
    }

    fn names_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// What becomes of the value of a response header or trailer.
    pub fn header(&self, key: &Key, name: &HeaderName, value: &[u8]) -> HeaderFate {
        match self.headers.iter().find(|(known, _)| known == name) {
            None => HeaderFate::Keep,
            Some((_, Strategy::Drop)) => HeaderFate::Remove,
            Some((_, strategy)) => {
                let mut fresh = Vec::new();
                replace::text(*strategy, key, None, value, &mut fresh);
                HeaderFate::Replace(fresh)
            }
        }
    }

    /// The name of a `deny_query` that the query (without its `?`) mentions.
    pub fn denies_query(&self, query: &str) -> Option<&str> {
        query::mentions(query, &self.deny_query)
    }
}

impl Masker {
    /// A masker for a body of this Content-Type. `key` makes the pseudonyms.
    ///
    /// # Errors
    /// A body of this type can't be masked. An empty one needs no masker.
    pub fn new(plan: Arc<Plan>, content_type: Option<&str>, key: Key) -> Result<Self, Withheld> {
        let kind = if plan.is_blind() { None } else { Some(Kind::of(content_type)?) };
        if let Some(Kind::Text | Kind::Markup) = kind
            && plan.names_paths()
        {
            // What a path leads to could stand anywhere in it, and no detector need know it.
            return Err(Withheld::NotJson);
        }
        let engine = Engine::new(plan, key);
        let format = match kind {
            None => Format::Pass,
            Some(Kind::Json { lines }) => Format::Json(Box::new(Json::new(&engine, lines))),
            Some(Kind::Events) => Format::Events(Events::default()),
            Some(Kind::Separated { tabs }) => Format::Fields(Box::new(Fields::separated(tabs))),
            Some(Kind::Form) => Format::Fields(Box::new(Fields::form())),
            Some(Kind::Text) => Format::Text(Window::default(), Escape::Plain),
            Some(Kind::Markup) => Format::Text(Window::default(), Escape::Markup),
        };
        Ok(Self::of(engine, format))
    }

    fn of(engine: Engine, format: Format) -> Self {
        let (carry, wide, places) = (Vec::new(), Wide::default(), Places::default());
        Self { engine, format, carry, wide, given: 0, places }
    }

    /// Masks what is there as a whole.
    fn all(mut self, text: &[u8]) -> Result<Vec<u8>, Withheld> {
        let mut out = Vec::with_capacity(text.len());
        self.push(text, &mut out)?;
        self.finish(&mut out)?;
        Ok(out)
    }

    /// Takes the next bytes of the body, and appends to `out` what may be passed on.
    ///
    /// # Errors
    /// The body can't be masked; what went out before is no whole, and nothing may follow it.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Withheld> {
        // In pieces, so that what is carried over is bounded whatever comes at once.
        for piece in chunk.chunks(window::WINDOW) {
            self.piece(piece, out)?;
        }
        Ok(())
    }

    /// The body is complete; appends what is left of it.
    ///
    /// # Errors
    /// As [`Masker::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        let Self { engine, format, carry, given, places, .. } = self;
        let out = &mut Noting::new(out, places, *given);
        match format {
            Format::Pass => Ok(()),
            Format::Json(json) => json.push(&std::mem::take(carry), true, engine, out).map(|_taken| ()),
            Format::Text(window, escape) => window.finish(*escape, &Default::default(), engine, out),
            Format::Fields(fields) => fields.finish(engine, out),
            Format::Events(events) => events.finish(engine, out),
        }
    }

    /// Whether what comes out is awaited, piece by piece: events, or documents that follow each other.
    pub fn is_awaited(&self) -> bool {
        match &self.format {
            Format::Events(_) | Format::Pass => true,
            Format::Json(json) => json.is_lines(),
            Format::Text(..) | Format::Fields(_) => false,
        }
    }

    /// What was masked so far: the path or the detector's id, and how many values.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        let plan = &self.engine.plan;
        self.engine.counts().iter().map(|(what, count)| {
            let name = match what {
                Tally::Path(path) => plan.paths.path(path),
                Tally::Rule(rule) => plan.active.detectors().id(rule),
            };
            (name, count)
        })
    }

    /// Where in all that went out something was masked, for good: what is noted later comes without it.
    pub fn take_places(&mut self) -> Places {
        std::mem::take(&mut self.places)
    }

    fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Withheld> {
        let Self { engine, format, carry, wide, given, places } = self;
        let read = match format {
            // JSON that isn't in UTF-8 is no JSON.
            Format::Pass | Format::Json(_) => piece.len(),
            Format::Text(..) | Format::Fields(_) | Format::Events(_) => wide.before(piece),
        };
        let (piece, unread) = piece.split_at(read);
        let out = &mut Noting::new(out, places, *given);
        match format {
            Format::Pass => out.keep(piece),
            Format::Json(json) if carry.is_empty() => {
                let taken = json.push(piece, false, engine, out)?;
                carry.extend_from_slice(&piece[taken..]);
            }
            Format::Json(json) => {
                carry.extend_from_slice(piece);
                let taken = json.push(carry, false, engine, out)?;
                carry.drain(..taken);
            }
            Format::Text(window, escape) => window.push(piece, *escape, &Default::default(), engine, out)?,
            Format::Fields(fields) => fields.push(piece, engine, out)?,
            Format::Events(events) => events.push(piece, engine, out)?,
        }
        *given = out.given();
        if unread.is_empty() { Ok(()) } else { Err(Withheld::invalid("a zero byte, or the mark of UTF-16")) }
    }
}

#[cfg(test)]
mod tests;
