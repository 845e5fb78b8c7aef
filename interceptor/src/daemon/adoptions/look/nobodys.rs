//! What a look doesn't find. A cgroup is governed before it can be seen: `cgroup_mkdir` of kernel/cgroup/cgroup.c runs the
//! tracepoint first and `kernfs_activate` then. So it is nobody's only if a later look doesn't find it either.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::daemon::adoptions::TICK;

/// What was nobody's at the last look, and since when that is so.
#[derive(Debug, Default)]
pub(super) struct Nobodys {
    cgroups: BTreeMap<u64, Instant>,
    missed: Option<(u64, Instant)>,
}

impl Nobodys {
    /// Those of these cgroups that can be let go of: at each look they have been nobody's, since one a tick ago or longer.
    /// `cgroups` are all of them, by id, at a look that began at `now`, when they were governed already.
    pub(super) fn settled(&mut self, cgroups: impl Iterator<Item = u64>, now: Instant) -> Vec<u64> {
        let before = std::mem::take(&mut self.cgroups);
        self.cgroups = cgroups.map(|id| (id, before.get(&id).copied().unwrap_or(now))).collect();
        let settled = self.cgroups.iter().filter(|(_, since)| is_long_ago(**since, now));
        settled.map(|(id, _)| *id).collect()
    }

    /// Whether as many cgroups that there was no room for were counted a tick ago already, so that this look found them all.
    pub(super) fn is_settled(&mut self, missed: u64, now: Instant) -> bool {
        let since = self.missed.filter(|(count, _)| *count == missed).map_or(now, |(_, since)| since);
        self.missed = Some((missed, since));
        is_long_ago(since, now)
    }
}

fn is_long_ago(since: Instant, now: Instant) -> bool {
    now.duration_since(since) >= TICK
}

#[cfg(test)]
mod tests;
