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
    /// At which level of the tree they are; 0 if they aren't all in that one.
    level: usize,
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

    /// Whether a cgroup that isn't governed is refused because of that, by its path from the root of cgroup2 and its id. `id_of`
    /// tells the id of a cgroup above it, by that one's path; the root's is empty.
    pub fn refuses(&self, path: &str, id: u64, id_of: impl Fn(&str) -> Option<u64>) -> bool {
        if !self.is_open() {
            return false;
        }
        if self.level == 0 {
            return id >= self.since;
        }
        // As the hooks have it, with all that is below one that was made since.
        let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).skip(self.level - 1);
        let (Some(parent), Some(own)) = (ends.next(), ends.next()) else { return false };
        let id_to = |end: usize| if end == path.len() { Some(id) } else { id_of(path.get(..end)?) };
        id_to(own).is_some_and(|own| own >= self.since) && id_to(parent) == Some(self.parent)
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
            level: number(MISSED_LEVEL)? as usize,
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
