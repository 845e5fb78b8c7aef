//! Which cgroups are governed from the moment that they are made, by their paths: what the kernel half is told of them.

use std::collections::BTreeMap;

use aya::maps::lpm_trie;
use interceptor_common::{DEEPEST_LEVEL, PATH_BYTES, Watched as RawWatched};

use super::{Adopter, Number, State, level};
use crate::bpf::{BpfError, map_error};

/// Cgroups that are governed when they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The path from the root of cgroup2, as in `/system.slice/crm.service`.
    pub path: String,
    /// The level of the tree at which a path that begins so may fit; `/` is 0. None: it is the whole path.
    pub level: Option<u32>,
    /// The workload.
    pub workload: Number,
    /// What becomes of it at first.
    pub state: State,
}

/// By the bits that count of a path, and its bytes.
type Entries = BTreeMap<(u32, [u8; PATH_BYTES]), RawWatched>;

impl Watched {
    /// The level of the tree at which there may be cgroups that are watched so.
    fn fits_at(&self) -> Result<u32, BpfError> {
        let own = level(&self.path)?;
        let Some(at) = self.level else { return Ok(own) };
        // What begins with a folder is below it.
        let first = own + u32::from(self.path.ends_with('/'));
        if (first..=DEEPEST_LEVEL).contains(&at) {
            return Ok(at);
        }
        Err(BpfError::Mount(format!(
            "cgroups that begin with `{}` can't be watched at level {at}: it has to be {first} to {DEEPEST_LEVEL}",
            self.path
        )))
    }

    /// What becomes at first of a cgroup at this level that is watched so, where these were named before.
    fn at_first(&self, at: u32, before: &[Self]) -> State {
        let may_have = |other: &Self| other.level == Some(at) && self.path.starts_with(&other.path);
        let is_anothers = before.iter().any(|other| other.workload != self.workload && may_have(other));
        // Whose it is nobody knows until it was looked at: steered, it would be decided as this one's.
        if is_anothers { State::Refused } else { self.state }
    }
}

impl Adopter {
    /// Says what is governed from now on when it is made; replaces what was said before. Of what several name, the first has it.
    ///
    /// # Errors
    /// A path that is too long or too deep, or what the kernel said.
    pub fn watch(&self, watched: &[Watched]) -> Result<(), BpfError> {
        let (levels, wanted) = entries(watched)?;
        let mut maps = self.maps();
        // Levels first, or a cgroup that is made now would be listed and not looked for. What is governed still stays so.
        maps.deepest |= levels;
        let all = maps.deepest;
        maps.levels.set(0, all, 0).map_err(|source| map_error("levels", source))?;
        let failed = |source| map_error("watched", source);
        let there = maps.watched.keys().collect::<Result<Vec<_>, _>>().map_err(failed)?;
        for ((bits, data), governed) in &wanted {
            maps.watched.insert(&lpm_trie::Key::new(*bits, *data), *governed, 0).map_err(failed)?;
        }
        for key in there.iter().filter(|key| !wanted.contains_key(&(key.prefix_len(), key.data()))) {
            maps.watched.remove(key).map_err(failed)?;
        }
        Ok(())
    }
}

/// The levels of the tree at which there may be such cgroups, a bit for each, and what the kernel half has of them.
fn entries(watched: &[Watched]) -> Result<(u32, Entries), BpfError> {
    let places = watched.iter().map(Watched::fits_at).collect::<Result<Vec<u32>, _>>()?;
    let mut beginnings: BTreeMap<&str, u16> = BTreeMap::new();
    for (one, at) in watched.iter().zip(&places).filter(|(one, _)| one.level.is_some()) {
        *beginnings.entry(one.path.as_str()).or_default() |= 1_u16 << *at;
    }
    let (mut all, mut entries) = (0, Entries::new());
    for (number, (one, at)) in watched.iter().zip(&places).enumerate() {
        all |= 1_u32 << *at;
        // The longest beginning counts in the kernel, also for what fits a shorter one only, at another level.
        let others = beginnings.iter().filter(|(begins, _)| one.level.is_some() && one.path.starts_with(*begins));
        let levels = others.fold(1_u16 << *at, |levels, (_, more)| levels | more);
        let before = watched.get(..number).unwrap_or_default();
        let state = one.at_first(*at, before).raw(one.workload).state as u16;
        // The first that says so has it.
        let raw = RawWatched { workload: one.workload, state, levels };
        entries.entry(path_key(&one.path, one.level.is_none())?).or_insert(raw);
    }
    Ok((all, entries))
}

/// The bits that count and the bytes.
fn path_key(path: &str, whole: bool) -> Result<(u32, [u8; PATH_BYTES]), BpfError> {
    let mut data = [0; PATH_BYTES];
    let end = path.len() + usize::from(whole);
    if end > PATH_BYTES {
        return Err(BpfError::Mount(format!("the cgroup's path `{path}` has more than {} bytes", PATH_BYTES - 1)));
    }
    data[..path.len()].copy_from_slice(path.as_bytes());
    Ok((end as u32 * 8, data))
}

#[cfg(test)]
mod tests;
