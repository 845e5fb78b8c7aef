//! What has to be held: a value until its filters were asked, and what stands before a value until it is known whether
//! the value is dropped.

use super::super::Withheld;
use super::super::counts::Tally;
use super::super::detector::Words;
use super::super::edit::{Offsets, Sink};
use super::super::engine::Engine;
use super::super::path::{Choice, Next};
use super::{Expect, Frame, Json, Piece, Prefix, Target, Whole};
use crate::config::Strategy;

impl Json {
    pub(super) fn begin_whole<S: Sink>(
        &mut self,
        judged: Option<(Next, Option<Choice>, Words)>,
        target: Target,
        piece: &mut Piece<'_>,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        self.flush(piece, sink)?;
        self.whole = Some(Whole { height: self.stack.len(), judged, target: self.target });
        self.target = target;
        self.held.clear();
        if self.expect == Expect::Start {
            self.expect = Expect::Value;
        }
        Ok(())
    }

    pub(super) fn end_whole<S: Sink>(
        &mut self,
        whole: Whole,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        self.flush(piece, sink)?;
        self.whole = None;
        self.target = Target::Out;
        let Some((next, choice, words)) = whole.judged else { return Ok(()) };
        self.target = whole.target;
        let held = std::mem::take(&mut self.held);
        let state = engine.automaton.ask(next, &held)?;
        let choice = choice.max(engine.automaton.choice(state));
        if let Some(Choice { strategy: Strategy::Drop, path }) = choice {
            self.discard_prefix(sink);
            // Blanks behind it stand before no value: a comma has to be the first of what does.
            self.target = Target::Out;
            sink.put(&[], Strategy::Drop);
            sink.skip(held.len());
            engine.count(Tally::Path(path));
        } else {
            self.commit_prefix(piece, sink)?;
            // With its own state it is read as any document is.
            let frame = Frame { state, choice, words, ..Frame::default() };
            let mut again = Self::starting(frame, false, self.within, self.judged + 1);
            again.push(&held, true, engine, sink)?;
            self.top.emitted = true;
        }
        self.held = held;
        Ok(())
    }

    pub(super) fn begin_prefix<S: Sink>(&mut self, piece: &mut Piece<'_>, sink: &mut S) -> Result<(), Withheld> {
        self.flush(piece, sink)?;
        self.target = Target::Prefix;
        Ok(())
    }

    /// What stands before a value goes out with it: without the comma, if nothing went out before.
    #[inline]
    pub(super) fn commit_prefix<S: Sink>(&mut self, piece: &mut Piece<'_>, sink: &mut S) -> Result<(), Withheld> {
        if self.target != Target::Prefix {
            return Ok(());
        }
        self.flush(piece, sink)?;
        let Prefix { bytes, name } = &mut self.prefix;
        let mut at = usize::from(!self.top.emitted && bytes.first() == Some(&b','));
        if at == 1 {
            sink.skip(1);
        }
        if let Some((range, edits)) = name.take() {
            sink.keep(&bytes[at..range.start]);
            at = range.end;
            edits.apply(&bytes[range], &Offsets::default(), sink, |fresh, out| out.extend_from_slice(fresh));
        }
        sink.keep(&bytes[at..]);
        bytes.clear();
        self.target = Target::Out;
        Ok(())
    }

    pub(super) fn discard_prefix<S: Sink>(&mut self, sink: &mut S) {
        sink.skip(self.prefix.bytes.len());
        self.prefix.bytes.clear();
        self.prefix.name = None;
    }
}
