//! Tells of most texts, faster than an automaton could, that no keyword is in them.

/// The bits of [`Sieve`]: 8 KiB, which stay in the first cache.
const BITS: usize = 1 << 16;

/// Three bytes in a row of each keyword, hashed. A text in which none of its own is there holds no keyword.
#[derive(Debug)]
pub(super) struct Sieve(Box<[u64; BITS / 64]>);

impl Sieve {
    /// What tells of these keywords, in any case of ASCII.
    pub(super) fn new<'a>(words: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut sieve = Self(Box::new([0; BITS / 64]));
        for word in words {
            match *word {
                [] => sieve.0.fill(u64::MAX),
                // What follows may be anything, also nothing.
                [one] => (0..=u8::MAX).for_each(|two| (0..=u8::MAX).for_each(|three| sieve.add([one, two, three]))),
                [one, two] => (0..=u8::MAX).for_each(|three| sieve.add([one, two, three])),
                [one, two, three, ..] => sieve.add([one, two, three]),
            }
        }
        sieve
    }

    fn add(&mut self, [one, two, three]: [u8; 3]) {
        let at = place(u32::from_le_bytes([one, two, three, 0]));
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Whether a keyword can be in `text`; false only where none is.
    pub(super) fn lets_through(&self, text: &[u8]) -> bool {
        // Several at a time, because a branch for each costs more than to look at some in vain.
        let mut windows = text.windows(4);
        let mut seen = 0;
        for (count, window) in windows.by_ref().enumerate() {
            seen |= self.bit(u32::from_le_bytes([window[0], window[1], window[2], window[3]]));
            if count % 16 == 15 && seen != 0 {
                return true;
            }
        }
        // The last three bytes, and what is shorter.
        let tail = &text[text.len().saturating_sub(3)..];
        for at in 0..tail.len() {
            let byte = |of: usize| tail.get(at + of).copied().unwrap_or_default();
            seen |= self.bit(u32::from_le_bytes([byte(0), byte(1), byte(2), 0]));
        }
        seen != 0
    }

    fn bit(&self, bytes: u32) -> u64 {
        let at = place(bytes);
        self.0[at / 64] >> (at % 64) & 1
    }
}

/// The bit of the lower three bytes, whatever their case.
fn place(bytes: u32) -> usize {
    let folded = (bytes | 0x0020_2020) & 0x00ff_ffff;
    (folded.wrapping_mul(0x9e37_79b1) >> 16) as usize
}

#[cfg(test)]
mod tests;
