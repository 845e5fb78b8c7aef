//! Whether a keyword is in a text, which is told faster than which ones are: in most texts there is none.

/// The entries of [`Sieve`]: one byte each, 32 KiB, which stay in the first cache.
const PLACES: usize = 1 << 15;

/// Where case makes no difference in ASCII, in each of eight bytes. Some other bytes are taken for each other too.
const FOLD: u64 = 0x2020_2020_2020_2020;

/// Of each keyword the three bytes in a row that are the rarest in texts. Where they aren't, that keyword isn't; where they
/// are, all of it is looked at.
#[derive(Debug)]
pub(super) struct Sieve {
    /// Not zero where such bytes may be, by their hash.
    places: Box<[u8; PLACES]>,
    /// The bytes themselves, folded, with what of each keyword is before them; sorted.
    triples: Vec<(u32, usize, Box<[u8]>)>,
    /// Whether a keyword is shorter than that: any text may hold it.
    all: bool,
}

impl Sieve {
    /// What tells of these keywords, in any case of ASCII.
    pub(super) fn new<'a>(words: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut sieve = Self { places: Box::new([0; PLACES]), triples: Vec::new(), all: false };
        for word in words {
            let commonness = |at: &usize| word[*at..*at + 3].iter().map(|byte| common(*byte)).sum::<u32>();
            let Some(at) = (0..word.len().saturating_sub(2)).min_by_key(commonness) else {
                sieve.all = true;
                continue;
            };
            let triple = folded([word[at], word[at + 1], word[at + 2]]);
            sieve.places[place(triple)] = 1;
            sieve.triples.push((triple, at, word.into()));
        }
        sieve.triples.sort_unstable();
        sieve
    }

    /// Whether a keyword is in `text`; where one has fewer than three bytes, whether one may be.
    pub(super) fn lets_through(&self, text: &[u8]) -> bool {
        if self.all {
            return true;
        }
        // Six at a time, because a branch for each costs more than to look at some in vain.
        let mut at = 0;
        while let Some(bytes) = text[at..].first_chunk::<8>() {
            if self.may_hold(u64::from_le_bytes(*bytes), 6) && self.holds(text, at, 6) {
                return true;
            }
            at += 6;
        }
        let rest = &text[at..];
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.may_hold(u64::from_le_bytes(last), 6) && self.holds(text, at, rest.len())
    }

    /// Whether what is looked for may begin at one of the first bytes.
    fn may_hold(&self, eight: u64, count: usize) -> bool {
        let eight = eight | FOLD;
        (0..count).fold(0, |seen, at| seen | self.places[place(from(eight, at))]) != 0
    }

    /// Whether the middle of a keyword that is in `text` begins at one of these bytes.
    #[cold]
    fn holds(&self, text: &[u8], first: usize, count: usize) -> bool {
        (first..first + count).any(|at| {
            let Some(&[one, two, three]) = text.get(at..).and_then(|rest| rest.first_chunk()) else { return false };
            let triple = folded([one, two, three]);
            if self.places[place(triple)] == 0 {
                return false;
            }
            let from = self.triples.partition_point(|(known, ..)| *known < triple);
            let candidates = self.triples[from..].iter().take_while(|(known, ..)| *known == triple);
            candidates.into_iter().any(|(_, before, word)| {
                let start = at.checked_sub(*before);
                let there = start.and_then(|start| text.get(start..start + word.len()));
                there.is_some_and(|there| there.eq_ignore_ascii_case(word))
            })
        })
    }
}

/// The bytes from one on.
#[expect(clippy::cast_possible_truncation, reason = "those behind are left out")]
fn from(eight: u64, at: usize) -> u32 {
    (eight >> (8 * at)) as u32
}

fn folded([one, two, three]: [u8; 3]) -> u32 {
    from(FOLD, 5) | u32::from_le_bytes([one, two, three, 0])
}

/// The place of the lower three bytes, whatever the fourth is.
fn place(bytes: u32) -> usize {
    ((bytes << 8).wrapping_mul(0x9e37_79b1) >> 17) as usize
}

/// How often a byte is in texts, roughly in percent of the letters of English; digits are in ids.
fn common(byte: u8) -> u32 {
    match byte.to_ascii_lowercase() {
        b'e' => 12,
        b't' => 9,
        b'a' => 8,
        b'o' | b'i' | b'n' => 7,
        b's' | b'r' | b'h' | b'0'..=b'9' => 6,
        b'l' | b'd' => 4,
        b'c' | b'u' | b'm' => 3,
        b'w' | b'f' | b'g' | b'y' | b'p' | b'-' | b'.' | b'/' | b' ' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
