//! Text that isn't what it is read as. All charsets that are taken have ASCII in them, a byte for a character; in UTF-16
//! or UTF-32, whatever the Content-Type says, no name and no value would be found.

/// Watches a text for it, from its beginning.
#[derive(Debug, Default)]
pub(super) struct Wide {
    /// The first two bytes, as far as they have come.
    start: Vec<u8>,
}

impl Wide {
    /// How many of the next bytes are as they are read: all, or those before a zero byte or the end of a byte order mark.
    pub(super) fn before(&mut self, bytes: &[u8]) -> usize {
        let zero = memchr::memchr(0, bytes).unwrap_or(bytes.len());
        let come = self.start.len();
        if come == 2 {
            return zero;
        }
        self.start.extend(bytes.iter().take(2 - come));
        let is_mark = matches!(self.start[..], [0xff, 0xfe] | [0xfe, 0xff]);
        if is_mark { zero.min(1 - come) } else { zero }
    }
}

#[cfg(test)]
mod tests;
