//! What a process's seccomp filters let it do, found out by running them as the kernel would (seccomp(2)): a filter that is
//! there says nothing of what it filters. A process can have brought them itself, and let a call through by something that the
//! kernel never reads of it: so they are run for all calls of a kind at once, and each way through them is gone.

use std::io;

use crate::bpf::FilterReader;

/// System calls of a kind, as filters see them (`struct seccomp_data`): what isn't told here may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// Their number.
    pub(super) number: u32,
    /// `AUDIT_ARCH_…`.
    pub(super) architecture: u32,
    /// The low half of their first argument, if they have the same: a family, of which the kernel reads no more.
    pub(super) family: Option<u32>,
}

/// The filters of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Filters(Vec<Vec<Instruction>>);

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

impl Filters {
    /// Those of a thread that has as many.
    ///
    /// # Errors
    /// They can't be read, or not all of them.
    pub(super) fn of(reader: &mut FilterReader, thread: u32, count: u32) -> io::Result<Self> {
        if count == 0 {
            return Ok(Self::default());
        }
        let filters = reader.read(thread, count)?;
        Ok(Self(filters.into_iter().map(|filter| filter.into_iter().map(Instruction::from).collect()).collect()))
    }

    /// Whether one of these calls is let through to the kernel. What can't be told is.
    pub(super) fn allow(&self, call: &Call) -> bool {
        let (mut steps, mut parted) = (0, 0);
        let mut open = vec![Way::of(call)];
        while let Some(mut way) = open.pop() {
            while let Some(program) = self.0.get(way.filter) {
                steps += 1;
                if steps > STEPS || parted > WAYS {
                    return true;
                }
                match way.step(program) {
                    Some(Step::Goes) => {}
                    Some(Step::Parts(other)) => {
                        parted += 1;
                        open.push(*other);
                    }
                    Some(Step::Returns(action)) if action.is_some_and(|action| !lets_through(action)) => break,
                    // The kernel would have taken no filter that ends in nothing.
                    Some(Step::Returns(_)) | None => way.enter(way.filter + 1),
                }
            }
            if way.filter == self.0.len() {
                return true;
            }
        }
        false
    }
}

/// As many instructions as are run for a call: twice what the kernel takes of a thread (MAX_INSNS_PER_PATH of
/// kernel/seccomp.c), for what managers of services write parts hardly at all.
const STEPS: u32 = 65_536;

/// As many ways as are gone through the filters of a thread.
const WAYS: u32 = 1_024;

/// Values of a word that one way remembers to be none; more are forgotten, which lets more through.
const REMEMBERED: usize = 16;

/// Words of four bytes: the number, the architecture, the instruction pointer, six arguments.
const WORDS: usize = 16;

/// The word that is the low half of the first argument.
const FAMILY: usize = if cfg!(target_endian = "little") { 4 } else { 5 };

fn lets_through(action: u32) -> bool {
    // ALLOW and LOG come last in the order of actions. Where somebody else decides, by USER_NOTIF or TRACE, that may be a
    // friend of the process.
    const LET_THROUGH: [u32; 4] = [0x7fff_0000, 0x7ffc_0000, 0x7ff0_0000, 0x7fc0_0000];
    LET_THROUGH.contains(&(action & 0xffff_0000))
}

impl From<[u8; 8]> for Instruction {
    fn from([a, b, if_true, if_false, k @ ..]: [u8; 8]) -> Self {
        Self { code: u16::from_ne_bytes([a, b]), if_true, if_false, k: u32::from_ne_bytes(k) }
    }
}

/// A way through the filters, as far as it has been gone.
#[derive(Clone)]
struct Way {
    filter: usize,
    at: usize,
    a: Value,
    x: Value,
    memory: [Value; 16],
    /// What each word of the call has to be to get here.
    words: [Word; WORDS],
}

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Known(u32),
    /// A word of the call, as it is.
    Word(usize),
    Any,
}

/// What a word may be: from `low` to `high`, but for some.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    low: u32,
    high: u32,
    but: Vec<u32>,
}

/// What an instruction came to.
enum Step {
    Goes,
    /// It goes on in two ways, of which this is the other one.
    Parts(Box<Way>),
    /// The action; none may be any.
    Returns(Option<u32>),
}

/// What a jump asks of the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal,
    Above,
    AtLeast,
    HasBits,
}

impl Way {
    fn of(call: &Call) -> Self {
        let mut words: [Word; WORDS] = std::array::from_fn(|_| Word { low: 0, high: u32::MAX, but: Vec::new() });
        words[0] = Word::one(call.number);
        words[1] = Word::one(call.architecture);
        if let Some(family) = call.family {
            words[FAMILY] = Word::one(family);
        }
        let zero = Value::Known(0);
        Self { filter: 0, at: 0, a: zero, x: zero, memory: [zero; 16], words }
    }

    /// Begins with a filter.
    fn enter(&mut self, filter: usize) {
        let zero = Value::Known(0);
        (self.filter, self.at, self.a, self.x, self.memory) = (filter, 0, zero, zero, [zero; 16]);
    }

    /// Runs one instruction. None: the program isn't one that the kernel would have taken.
    fn step(&mut self, program: &[Instruction]) -> Option<Step> {
        let Instruction { code, if_true, if_false, k } = *program.get(self.at)?;
        self.at += 1;
        let source = if code & 0x08 == 0 { Value::Known(k) } else { self.x };
        match code {
            0x20 => self.a = loaded(k)?,
            0x00 => self.a = Value::Known(k),
            0x01 => self.x = Value::Known(k),
            0x80 => self.a = Value::Known(64),
            0x81 => self.x = Value::Known(64),
            0x60 => self.a = *self.memory.get(k as usize)?,
            0x61 => self.x = *self.memory.get(k as usize)?,
            0x02 => *self.memory.get_mut(k as usize)? = self.a,
            0x03 => *self.memory.get_mut(k as usize)? = self.x,
            0x04 | 0x0c => self.compute(source, |a, b| Some(a.wrapping_add(b)))?,
            0x14 | 0x1c => self.compute(source, |a, b| Some(a.wrapping_sub(b)))?,
            0x24 | 0x2c => self.compute(source, |a, b| Some(a.wrapping_mul(b)))?,
            0x34 | 0x3c => self.compute(source, u32::checked_div)?,
            0x44 | 0x4c => self.compute(source, |a, b| Some(a | b))?,
            0x54 | 0x5c => self.compute(source, |a, b| Some(a & b))?,
            0xa4 | 0xac => self.compute(source, |a, b| Some(a ^ b))?,
            0x64 | 0x6c => self.compute(source, |a, b| Some(a.checked_shl(b).unwrap_or_default()))?,
            0x74 | 0x7c => self.compute(source, |a, b| Some(a.checked_shr(b).unwrap_or_default()))?,
            0x84 => self.compute(Value::Known(0), |a, _| Some(a.wrapping_neg()))?,
            0x05 => self.at = self.at.checked_add(k as usize)?,
            0x15 | 0x1d => return Some(self.jump(Test::Equal, source, if_true, if_false)),
            0x25 | 0x2d => return Some(self.jump(Test::Above, source, if_true, if_false)),
            0x35 | 0x3d => return Some(self.jump(Test::AtLeast, source, if_true, if_false)),
            0x45 | 0x4d => return Some(self.jump(Test::HasBits, source, if_true, if_false)),
            0x07 => self.x = self.a,
            0x87 => self.a = self.x,
            0x06 => return Some(Step::Returns(Some(k))),
            0x16 => return Some(Step::Returns(self.known(self.a))),
            _ => return None,
        }
        Some(Step::Goes)
    }

    /// What a value is, if it can be but one.
    fn known(&self, value: Value) -> Option<u32> {
        match value {
            Value::Known(value) => Some(value),
            Value::Word(at) => self.words.get(at).filter(|word| word.low == word.high).map(|word| word.low),
            Value::Any => None,
        }
    }

    fn compute(&mut self, source: Value, operation: impl Fn(u32, u32) -> Option<u32>) -> Option<()> {
        self.a = match (self.known(self.a), self.known(source)) {
            (Some(a), Some(source)) => Value::Known(operation(a, source)?),
            _ => Value::Any,
        };
        Some(())
    }

    /// Goes on where it can: where both can be, this way is the one on which the test holds.
    fn jump(&mut self, test: Test, source: Value, if_true: u8, if_false: u8) -> Step {
        let (yes, no) = (self.at + usize::from(if_true), self.at + usize::from(if_false));
        let source = self.known(source);
        if let (Some(a), Some(source)) = (self.known(self.a), source) {
            self.at = if test.holds(a, source) { yes } else { no };
            return Step::Goes;
        }
        let mut other = Box::new(Self { at: no, ..self.clone() });
        self.at = yes;
        let (Value::Word(at), Some(source)) = (self.a, source) else { return Step::Parts(other) };
        let word = &self.words[at];
        match (word.narrowed(test, source, true), word.narrowed(test, source, false)) {
            (Some(holds), Some(fails)) => {
                self.words[at] = holds;
                other.words[at] = fails;
                Step::Parts(other)
            }
            (None, Some(fails)) => {
                other.words[at] = fails;
                *self = *other;
                Step::Goes
            }
            (holds, None) => {
                self.words[at] = holds.unwrap_or_else(|| word.clone());
                Step::Goes
            }
        }
    }
}

/// Four bytes of the data.
fn loaded(offset: u32) -> Option<Value> {
    let at = (offset / 4) as usize;
    (offset.is_multiple_of(4) && at < WORDS).then_some(Value::Word(at))
}

impl Test {
    fn holds(self, a: u32, source: u32) -> bool {
        match self {
            Self::Equal => a == source,
            Self::Above => a > source,
            Self::AtLeast => a >= source,
            Self::HasBits => a & source != 0,
        }
    }
}

impl Word {
    fn one(value: u32) -> Self {
        Self { low: value, high: value, but: Vec::new() }
    }

    /// What it may be where a test came out so; none if it can't.
    fn narrowed(&self, test: Test, source: u32, holds: bool) -> Option<Self> {
        let mut word = self.clone();
        match (test, holds) {
            (Test::Equal, true) => {
                let may_be = (self.low..=self.high).contains(&source) && !self.but.contains(&source);
                return may_be.then(|| Self::one(source));
            }
            (Test::Equal, false) => {
                if word.but.len() < REMEMBERED {
                    word.but.push(source);
                }
            }
            (Test::Above, true) => word.low = word.low.max(source.checked_add(1)?),
            (Test::Above, false) => word.high = word.high.min(source),
            (Test::AtLeast, true) => word.low = word.low.max(source),
            (Test::AtLeast, false) => word.high = word.high.min(source.checked_sub(1)?),
            (Test::HasBits, _) => {}
        }
        while word.low <= word.high && word.but.contains(&word.low) {
            word.low = word.low.checked_add(1)?;
        }
        while word.low <= word.high && word.but.contains(&word.high) {
            word.high = word.high.checked_sub(1)?;
        }
        (word.low <= word.high).then_some(word)
    }
}

#[cfg(test)]
mod tests;
