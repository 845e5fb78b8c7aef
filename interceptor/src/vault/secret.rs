//! A secret in memory: wiped when it is dropped, and shown by nothing.

use std::fmt;

use zeroize::Zeroizing;

/// A secret's bytes.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The fewest bytes of a secret. A shorter one could not be told from ordinary text where an upstream echoes it.
    pub const LEAST: usize = 6;

    /// Takes bytes over, without the line's end that editors leave behind them.
    pub(super) fn new(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        bytes.truncate(end);
        Self(bytes)
    }

    /// The bytes. Whoever copies them keeps the copy from being seen, and wipes it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
