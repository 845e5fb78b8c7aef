//! What all formats share: the paths and detectors of a plan at work on one document, with its counts.

use std::sync::Arc;

use super::Plan;
use super::counts::{Counts, Tally};
use super::detector::{Hit, Scratch, Words};
use super::edit::{Edits, Offsets, Sink};
use super::escape::Escape;
use super::path::{Automaton, Choice};
use super::replace::{self, Key};
use crate::config::Strategy;

/// A plan at work on one document.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) plan: Arc<Plan>,
    pub(super) automaton: Automaton,
    key: Key,
    counts: Counts,
    scratch: Scratch,
    fresh: Vec<u8>,
    encoded: Vec<u8>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.plan.spare.give_back(std::mem::take(&mut self.automaton));
    }
}

impl Engine {
    pub(super) fn new(plan: Arc<Plan>, key: Key) -> Self {
        let automaton = plan.spare.take().unwrap_or_else(|| Automaton::new(Arc::clone(&plan.paths)));
        let counts = Counts::new(plan.paths.len(), plan.active.detectors().len());
        Self { plan, automaton, key, counts, scratch: Scratch::default(), fresh: Vec::new(), encoded: Vec::new() }
    }

    /// Whether any detector is to look at texts.
    pub(super) fn detects(&self) -> bool {
        !self.plan.active.is_empty()
    }

    /// The detectors that a name calls for.
    pub(super) fn words_in(&self, name: &[u8]) -> Words {
        self.plan.active.words_in(name)
    }

    /// Looks for what is to be masked in `text`; [`Engine::hits`] has it.
    pub(super) fn find(&mut self, text: &[u8], words: &Words) {
        self.plan.active.find(text, words, &mut self.scratch);
    }

    /// What was found last.
    pub(super) fn hits(&self) -> &[Hit] {
        &self.scratch.hits
    }

    pub(super) fn count(&mut self, what: Tally) {
        self.counts.add(what);
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What was counted since doesn't count: it was only tried.
    pub(super) fn restore(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// Puts what takes the place of `text`, which a detector found.
    pub(super) fn put_found<S: Sink>(&mut self, hit: &Hit, text: &[u8], escape: Escape, sink: &mut S) {
        let id = self.plan.active.detectors().id(hit.rule);
        self.fresh.clear();
        replace::text(hit.strategy, &self.key, Some(id), text, &mut self.fresh);
        self.put_fresh(hit.strategy, escape, sink);
    }

    /// Puts what takes the place of `text`, to which a path leads, and counts it.
    pub(super) fn put_chosen<S: Sink>(&mut self, choice: Choice, text: &[u8], escape: Escape, sink: &mut S) {
        self.fresh.clear();
        replace::text(choice.strategy, &self.key, None, text, &mut self.fresh);
        self.put_fresh(choice.strategy, escape, sink);
        self.count(Tally::Path(choice.path));
    }

    /// Puts what takes the place of a JSON number or truth value.
    pub(super) fn put_scalar<S: Sink>(&mut self, strategy: Strategy, literal: &[u8], sink: &mut S) {
        self.fresh.clear();
        replace::scalar(strategy, &self.key, literal, &mut self.fresh);
        sink.put(&self.fresh, strategy);
    }

    fn put_fresh<S: Sink>(&mut self, strategy: Strategy, escape: Escape, sink: &mut S) {
        self.encoded.clear();
        escape.encode(&self.fresh, &mut self.encoded);
        sink.put(&self.encoded, strategy);
    }

    /// Does what was found last in `text` to `raw`, of which it was decoded by `map`. `keep_names`: nothing is dropped,
    /// because a member needs a name.
    pub(super) fn apply_hits<S: Sink>(
        &mut self,
        text: &[u8],
        raw: &[u8],
        map: &Offsets,
        escape: Escape,
        keep_names: bool,
        sink: &mut S,
    ) {
        let mut at = 0;
        for index in 0..self.scratch.hits.len() {
            let mut hit = self.scratch.hits[index];
            if keep_names && hit.strategy == Strategy::Drop {
                hit.strategy = Strategy::Redact;
            }
            let start = map.start(hit.start).clamp(at, raw.len());
            let end = map.end(hit.end).clamp(start, raw.len());
            sink.keep(&raw[at..start]);
            sink.skip(end - start);
            self.put_found(&hit, &text[hit.start..hit.end], escape, sink);
            self.count(Tally::Rule(hit.rule));
            at = end;
        }
        sink.keep(&raw[at..]);
    }
}

/// Does edits to `raw`, whose decoded text was edited.
pub(super) fn apply_edits<S: Sink>(edits: &Edits, raw: &[u8], map: &Offsets, escape: Escape, sink: &mut S) {
    edits.apply(raw, map, sink, |text, out| escape.encode(text, out));
}
