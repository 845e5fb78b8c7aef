//! JSON that streams by (RFC 8259; JSON Lines; JSON in a JSON string): each value is masked as the paths and detectors
//! say, and every other byte is passed on as it is. Only what has to be known as a whole is held: a string that is looked
//! into, a value that a filter judges, a member that may be dropped.

use super::Withheld;
use super::counts::Tally;
use super::detector::Words;
use super::edit::{Edits, Offsets, Sink};
use super::engine::Engine;
use super::escape::{Decoded, Escape};
use super::path::{Choice, DEAD, Next, StateId};
use super::window::Window;
use crate::config::Strategy;
use name::Names;
use token::{End, is_blank};

mod hold;
mod name;
mod string;
mod token;

/// The deepest nesting that is followed.
const DEEPEST: usize = 256;
/// The longest name of a member.
const LONGEST_NAME: usize = 64 * 1024;
/// The most that is held of one value that a filter judges, or that is a document in a string.
const HELD: usize = 1024 * 1024;
/// The most that stands before a value that may be dropped: a comma, blanks, a name.
const PREFIX: usize = 2 * LONGEST_NAME;
/// How many containers that filters judge may stand in each other: each is held until it is judged.
const MOST_JUDGED: u8 = 16;

/// A stream of JSON.
#[derive(Debug)]
pub(super) struct Json {
    /// Whether more documents may follow the first.
    lines: bool,
    /// How many strings this document stands in.
    within: u8,
    /// How many values that filters judge it stands in, also around those strings.
    judged: u8,
    expect: Expect,
    stack: Vec<Frame>,
    top: Frame,
    /// The state of the member whose name was read.
    member: Next,
    /// The detectors that its name calls for.
    words: Words,
    target: Target,
    whole: Option<Whole>,
    held: Vec<u8>,
    prefix: Prefix,
    /// How far a string that isn't complete yet was read.
    resume: Option<(usize, bool)>,
    window: Window,
    decoded: Decoded,
    names: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A byte order mark, or a document.
    Start,
    Value,
    ElementOrEnd,
    NameOrEnd,
    Name,
    Colon,
    CommaOrEnd,
    /// The document is complete.
    Done,
    /// The rest of a string that is too long to be held.
    Rest(Rest),
}

/// What is done with the rest of a long string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Copy,
    Skip,
    Detect,
}

/// A container that is open, or the stream itself.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    object: bool,
    /// Whether a member or element of it was passed on.
    emitted: bool,
    state: StateId,
    /// The next element's index.
    index: u32,
    /// How all in it is masked.
    choice: Option<Choice>,
    /// The detectors that the names above it call for.
    words: Words,
}

/// Where bytes go that aren't masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Out,
    /// Held until it is known whether the value after it is dropped.
    Prefix,
    Held,
    Nowhere,
}

/// A value that is taken as a whole: until the stack is as high again as it is now.
#[derive(Debug, Clone, Copy)]
struct Whole {
    height: usize,
    /// What it leads to, for a value that filters judge; none for one that is dropped.
    judged: Option<(Next, Option<Choice>, Words)>,
    /// Where bytes went before.
    target: Target,
}

/// A comma, blanks and a name.
#[derive(Debug, Default)]
struct Prefix {
    bytes: Vec<u8>,
    /// The name, where detectors found something in it: where it stands in `bytes`, and what becomes of it.
    name: Option<(std::ops::Range<usize>, Edits)>,
}

/// A piece of the stream, how far it was read, and how far it was passed on.
struct Piece<'a> {
    bytes: &'a [u8],
    at: usize,
    from: usize,
    last: bool,
}

impl Json {
    /// A stream; with `lines`, of many documents.
    pub(super) fn new(engine: &Engine, lines: bool) -> Self {
        let frame = Frame { state: engine.automaton.start(), ..Frame::default() };
        Self::starting(frame, lines, 0, 0)
    }

    /// What a field holds, whose name calls for these detectors: a document, or several.
    pub(super) fn in_field(engine: &Engine, words: Words) -> Self {
        let frame = Frame { state: engine.automaton.start(), words, ..Frame::default() };
        Self::starting(frame, true, 1, 0)
    }

    /// Whether more documents may follow the first.
    pub(super) fn is_lines(&self) -> bool {
        self.lines
    }

    /// A stream whose documents are masked as `top` says.
    fn starting(top: Frame, lines: bool, within: u8, judged: u8) -> Self {
        Self {
            lines,
            within,
            judged,
            expect: Expect::Start,
            stack: Vec::new(),
            top,
            member: Next::default(),
            words: top.words,
            target: Target::Out,
            whole: None,
            held: Vec::new(),
            prefix: Prefix::default(),
            resume: None,
            window: Window::default(),
            decoded: Decoded::default(),
            names: Names::default(),
        }
    }

    /// Reads a piece of the stream; says how much of it was taken. What wasn't has to come again, with more after it.
    ///
    /// # Errors
    /// What isn't JSON, or is too large or deep.
    pub(super) fn push<S: Sink>(
        &mut self,
        bytes: &[u8],
        last: bool,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<usize, Withheld> {
        let mut piece = Piece { bytes, at: 0, from: 0, last };
        while self.step(&mut piece, engine, sink)? {}
        self.flush(&mut piece, sink)?;
        if last && !(piece.at == bytes.len() && matches!(self.expect, Expect::Start | Expect::Done)) {
            return Err(Withheld::invalid("the document isn't complete"));
        }
        Ok(piece.at)
    }

    /// Reads one token; false if it isn't complete.
    #[inline]
    fn step<S: Sink>(&mut self, piece: &mut Piece<'_>, engine: &mut Engine, sink: &mut S) -> Result<bool, Withheld> {
        if let Expect::Rest(rest) = self.expect {
            return self.rest(rest, piece, engine, sink);
        }
        while piece.bytes.get(piece.at).is_some_and(|byte| is_blank(*byte)) {
            piece.at += 1;
        }
        let Some(&byte) = piece.bytes.get(piece.at) else { return Ok(false) };
        match (self.expect, byte) {
            (Expect::CommaOrEnd, b',') => {
                if engine.plan.drops && self.whole.is_none() {
                    self.begin_prefix(piece, sink)?;
                }
                piece.at += 1;
                self.expect = if self.top.object { Expect::Name } else { Expect::Value };
            }
            (Expect::Name | Expect::NameOrEnd, b'"') => return self.name(piece, engine, sink),
            (Expect::Colon, b':') => {
                piece.at += 1;
                self.expect = Expect::Value;
            }
            (Expect::CommaOrEnd | Expect::NameOrEnd, b'}') if self.top.object => self.close(piece, engine, sink)?,
            (Expect::CommaOrEnd | Expect::ElementOrEnd, b']') if !self.top.object => self.close(piece, engine, sink)?,
            (Expect::Value | Expect::ElementOrEnd, byte) => return self.value(byte, piece, engine, sink),
            (Expect::Start, 0xef) => {
                let mark = &piece.bytes[piece.at..piece.bytes.len().min(piece.at + 3)];
                if mark.len() < 3 && !piece.last {
                    return Ok(false);
                }
                if mark != b"\xef\xbb\xbf" {
                    return Err(Withheld::invalid("a character outside of strings"));
                }
                piece.at += 3;
                self.expect = Expect::Value;
            }
            (Expect::Start | Expect::Done, RECORD) if self.lines => piece.at += 1,
            (Expect::Start, byte) => return self.value(byte, piece, engine, sink),
            (Expect::Done, byte) if self.lines => {
                // A text in brackets may go on with numbers that belong together.
                if self.within > 0 && !matches!(byte, b'{' | b'[' | b'"') && !is_on_new_line(piece) {
                    return Err(Withheld::invalid("more than one document"));
                }
                self.expect = Expect::Value;
                self.top.emitted = false;
            }
            (Expect::Done, _) => return Err(Withheld::invalid("more than one document")),
            _ => return Err(Withheld::invalid("a character where none of its kind can be")),
        }
        Ok(true)
    }

    fn value<S: Sink>(
        &mut self,
        byte: u8,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<bool, Withheld> {
        if self.whole.is_some() {
            return self.value_as(byte, None, Next::default(), piece, engine, sink);
        }
        let next = if self.stack.is_empty() {
            Next { state: self.top.state, filters: 0 }
        } else if self.top.object {
            self.member
        } else if self.top.state == DEAD {
            Next::default()
        } else {
            engine.automaton.element(self.top.state, self.top.index)?
        };
        if !self.top.object {
            self.words = self.top.words;
        }
        if next.filters != 0 {
            if self.judged >= MOST_JUDGED && matches!(byte, b'{' | b'[') {
                return Err(Withheld::TooDeep);
            }
            self.begin_whole(Some((next, self.top.choice, self.words)), Target::Held, piece, sink)?;
            return Ok(true);
        }
        let choice =
            if next.state == DEAD { self.top.choice } else { self.top.choice.max(engine.automaton.choice(next.state)) };
        if let Some(Choice { strategy: Strategy::Drop, path }) = choice {
            self.begin_whole(None, Target::Nowhere, piece, sink)?;
            self.discard_prefix(sink);
            // A stream can't be without its document.
            let left: &[u8] = if self.stack.is_empty() { b"null" } else { b"" };
            sink.put(left, Strategy::Drop);
            engine.count(Tally::Path(path));
            return Ok(true);
        }
        self.value_as(byte, choice, next, piece, engine, sink)
    }

    /// Reads a value that is neither dropped nor judged.
    fn value_as<S: Sink>(
        &mut self,
        byte: u8,
        choice: Option<Choice>,
        next: Next,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<bool, Withheld> {
        match byte {
            b'{' | b'[' => {
                if self.stack.len() == DEEPEST {
                    return Err(Withheld::TooDeep);
                }
                self.commit_prefix(piece, sink)?;
                self.stack.push(self.top);
                let object = byte == b'{';
                self.top = Frame { object, emitted: false, state: next.state, index: 0, choice, words: self.words };
                piece.at += 1;
                if engine.plan.drops && self.whole.is_none() {
                    self.begin_prefix(piece, sink)?;
                }
                self.expect = if object { Expect::NameOrEnd } else { Expect::ElementOrEnd };
                Ok(true)
            }
            b'"' => self.string(choice, next.state, piece, engine, sink),
            _ => {
                let end = match token::scalar(piece.bytes, piece.at, piece.last) {
                    End::At(end, _) => end,
                    End::Open(..) => return Ok(false),
                    End::Bad => return Err(Withheld::invalid("neither a value nor a number")),
                };
                self.commit_prefix(piece, sink)?;
                self.scalar(choice, end, piece, engine, sink)?;
                self.end_value(piece, engine, sink)?;
                Ok(true)
            }
        }
    }

    /// A number, a truth value or null, up to `end`. A null stays: that there is no value is no value.
    fn scalar<S: Sink>(
        &mut self,
        choice: Option<Choice>,
        end: usize,
        piece: &mut Piece<'_>,
        engine: &mut Engine,
        sink: &mut S,
    ) -> Result<(), Withheld> {
        /// Shorter numbers are nothing that a detector knows.
        const SHORTEST: usize = 9;
        let literal = &piece.bytes[piece.at..end];
        let found = match choice {
            Some(choice) if literal != b"null" => {
                engine.count(Tally::Path(choice.path));
                Some(choice.strategy)
            }
            None if self.whole.is_none() && literal.len() >= SHORTEST && engine.detects() => {
                engine.find(literal, &self.words);
                let hit = engine.hits().first().copied();
                hit.map(|hit| {
                    engine.count(Tally::Rule(hit.rule));
                    hit.strategy
                })
            }
            _ => None,
        };
        if let Some(strategy) = found {
            self.flush(piece, sink)?;
            sink.skip(literal.len());
            engine.put_scalar(strategy, literal, sink);
            piece.from = end;
        }
        piece.at = end;
        Ok(())
    }

    fn close<S: Sink>(&mut self, piece: &mut Piece<'_>, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        self.commit_prefix(piece, sink)?;
        self.top = self.stack.pop().unwrap_or_default();
        piece.at += 1;
        self.end_value(piece, engine, sink)
    }

    /// A value ends before `piece.at`.
    fn end_value<S: Sink>(&mut self, piece: &mut Piece<'_>, engine: &mut Engine, sink: &mut S) -> Result<(), Withheld> {
        if let Some(whole) = self.whole.filter(|whole| whole.height == self.stack.len()) {
            self.end_whole(whole, piece, engine, sink)?;
        } else if self.whole.is_none() {
            self.top.emitted = true;
        }
        self.top.index = self.top.index.saturating_add(1);
        self.expect = if self.stack.is_empty() { Expect::Done } else { Expect::CommaOrEnd };
        Ok(())
    }

    /// Passes on what was read and isn't masked.
    fn flush<S: Sink>(&mut self, piece: &mut Piece<'_>, sink: &mut S) -> Result<(), Withheld> {
        let bytes = &piece.bytes[piece.from..piece.at];
        piece.from = piece.at;
        match self.target {
            Target::Out => sink.keep(bytes),
            Target::Nowhere => sink.skip(bytes.len()),
            Target::Held => {
                if self.held.len() + bytes.len() > HELD {
                    return Err(Withheld::too_large("a value that a filter judges"));
                }
                self.held.extend_from_slice(bytes);
            }
            Target::Prefix => {
                if self.prefix.bytes.len() + bytes.len() > PREFIX {
                    return Err(Withheld::too_large("what stands before a value"));
                }
                self.prefix.bytes.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// The index of the closing quote of the string at `piece.at`, and whether it has escapes; none if it isn't here, or
    /// not within the first `most` bytes: whatever comes behind those is the same for every cut.
    #[inline]
    fn string_end(&mut self, piece: &Piece<'_>, most: usize) -> Result<Option<(usize, bool)>, Withheld> {
        let (read, escaped) = self.resume.take().unwrap_or((1, false));
        // With its quotes.
        let end = piece.bytes.len().min(piece.at + most + 2);
        match token::string(&piece.bytes[..end], piece.at + read, escaped) {
            End::At(end, escaped) => Ok(Some((end, escaped))),
            End::Open(at, escaped) => {
                self.resume = Some((at - piece.at, escaped));
                Ok(None)
            }
            End::Bad => Err(Withheld::invalid("a control character in a string")),
        }
    }
}

/// The record separator of JSON text sequences (RFC 7464).
const RECORD: u8 = 0x1e;

/// Whether what is to be read next starts a line, or a record.
fn is_on_new_line(piece: &Piece<'_>) -> bool {
    let before = piece.bytes[..piece.at].iter().rev();
    before.take_while(|byte| is_blank(**byte) || **byte == RECORD).any(|byte| !matches!(*byte, b' ' | b'\t'))
}

/// The text of a string's content, with the places of its bytes.
fn decode<'a>(raw: &'a [u8], escaped: bool, decoded: &'a mut Decoded) -> Result<(&'a [u8], &'a Offsets), Withheld> {
    if !escaped {
        decoded.map.clear();
        return Ok((raw, &decoded.map));
    }
    Escape::Json.decode(raw, true, decoded).map_err(|_bad| Withheld::invalid("a bad escape in a string"))?;
    Ok((&decoded.text, &decoded.map))
}

#[cfg(test)]
mod tests;
