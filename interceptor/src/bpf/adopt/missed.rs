//! Cgroups that were to be governed when they were made, and for which there was no room: what the kernel half tells of them,
//! and that it is told when all of them are governed.

use interceptor_common::{MISSED_COUNT, MISSED_KNOWN, MISSED_LEVEL, MISSED_PARENT, MISSED_SINCE};

use super::Adopter;
use crate::bpf::{BpfError, map_error};

/// How it is with them at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// How many there were.
    count: u64,
    /// Of how many it was said that they are governed.
    known: u64,
    /// The id of the first of the others.
    since: u64,
    /// The id of the cgroup that they are in.
    parent: u64,
    /// Whether they aren't all in that one.
    is_anywhere: bool,
}

impl Missed {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether there are some that may not be governed, so that what was made since in their place is refused.
    pub fn is_open(&self) -> bool {
        self.count != self.known
    }

    /// Whether a cgroup that isn't governed is refused because of that, by its id and the id of the cgroup that it is in.
    pub fn refuses(&self, id: u64, parent: u64) -> bool {
        self.is_open() && id >= self.since && (self.is_anywhere || parent == self.parent)
    }
}

impl Adopter {
    /// What is known of them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn missed(&self) -> Result<Missed, BpfError> {
        let maps = self.maps();
        let number = |at: u32| maps.missed.get(&at, 0).map_err(|source| map_error("missed", source));
        // How many there were first: what comes meanwhile isn't known.
        let count = number(MISSED_COUNT)?;
        Ok(Missed {
            count,
            known: number(MISSED_KNOWN)?,
            since: number(MISSED_SINCE)?,
            parent: number(MISSED_PARENT)?,
            is_anywhere: number(MISSED_LEVEL)? == 0,
        })
    }

    /// Says that those are governed of which `missed` tells, or are nobody's. If there were more since, nothing changes.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn catch_up(&self, missed: &Missed) -> Result<(), BpfError> {
        self.maps().missed.set(MISSED_KNOWN, missed.count, 0).map_err(|source| map_error("missed", source))
    }
}

#[cfg(test)]
mod tests;
