//! Which cgroups an adopted workload consists of, and how well a workload has to be contained.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How well a workload is contained: computed from what its processes are and may, never configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something is open, and named.
    Steered,
    /// Nothing gets around it.
    #[default]
    Contained,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Level::Contained { "contained" } else { "steered" })
    }
}

/// The cgroups of an adopted workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopt {
    /// A unit of systemd, by its whole name: where systemd puts it unless it is told otherwise, or in our slice.
    Unit(String),
    /// The cgroups whose paths fit, with all below them.
    Cgroup(Pattern),
    /// Containers with this label and value (`key=value`; without `=` whatever its value).
    ContainerLabel(String),
}

/// Where systemd puts a slice: in those that its name says, `a-b.slice` at `/a.slice/a-b.slice` (systemd.slice(5)). None: it is
/// the root, or no slice's name.
pub fn slice_path(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.strip_suffix(".slice")?.split('-').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    Some((1..=parts.len()).map(|count| format!("/{}.slice", parts[..count].join("-"))).collect())
}

/// A path of a cgroup from the root of cgroup2; `*` stands for any part of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// Why a pattern can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPattern(&'static str);

impl Pattern {
    /// A pattern.
    ///
    /// # Errors
    /// It isn't an absolute, plain path below the root, or all of the tree.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        let parts: Vec<&str> = text.split('/').skip(1).collect();
        if !text.starts_with('/') || parts.iter().any(|part| part.is_empty() || [".", ".."].contains(part)) {
            return Err(BadPattern("a cgroup's path begins with `/` and has no empty parts, `.` or `..`"));
        }
        if parts.first().is_some_and(|first| first.starts_with('*')) {
            return Err(BadPattern("a pattern has to name its first part, or it would be everything on the host"));
        }
        if text.contains('\0') || text.len() >= interceptor_common::PATH_BYTES {
            return Err(BadPattern("a cgroup's path has at most 251 bytes, without NUL"));
        }
        if parts.len() > interceptor_common::DEEPEST_LEVEL as usize {
            return Err(BadPattern("a cgroup can be governed down to the 15th level"));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How all that fit begin: all of it, if it has no `*`.
    pub fn beginning(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// The level of the tree at which all are that fit; `/` is 0.
    pub fn level(&self) -> u32 {
        self.0.bytes().map(|byte| u32::from(byte == b'/')).sum()
    }

    /// Whether only one path fits.
    pub fn is_whole(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether a path fits.
    pub fn fits(&self, path: &str) -> bool {
        let (mut wanted, mut found) = (self.0.split('/'), path.split('/'));
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return true,
                (Some(wanted), Some(found)) if part_fits(wanted, found) => {}
                _ => return false,
            }
        }
    }
}

/// Whether a name fits a pattern without `/`.
fn part_fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests;
