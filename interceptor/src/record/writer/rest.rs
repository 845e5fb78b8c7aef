//! What the writer does when it rests after much: it gives back the memory that it worked with. SQLite keeps pages of the
//! database for what comes next, up to 8 MiB, and glibc the room for batches.

use std::time::{Duration, Instant};

use super::Writer;
use crate::heap;
use crate::record::RecordError;

/// How much it has moved by then, in bytes of the journal: what comes now and then changes few pages, and they stay.
const MUCH: u64 = 1 << 20;
/// How long nothing came.
const LONG: Duration = Duration::from_secs(1);

/// When it rests.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Moved since the last one.
    bytes: u64,
    /// When it is time, if nothing comes; none while there is little to give back.
    pub(super) at: Option<Instant>,
}

impl Rest {
    /// As many bytes more were moved.
    pub(super) fn put_off(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.at = (self.bytes >= MUCH).then(|| Instant::now() + LONG);
    }

    /// Whether it is time; then the next one is due after as much again.
    fn begins(&mut self) -> bool {
        let begins = self.at.is_some_and(|at| at <= Instant::now());
        if begins {
            *self = Self::default();
        }
        begins
    }
}

impl Writer {
    /// Gives memory back if it is time.
    pub(super) fn rest(&mut self) -> Result<(), RecordError> {
        if let Some(store) = self.store.as_ref()
            && self.rest.begins()
        {
            store.release_memory()?;
            heap::give_back();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
