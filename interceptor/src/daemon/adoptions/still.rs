//! Cgroups that stand still because of us, and when they go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Adoptions, Held, number};
use crate::adopt::Found;
use crate::bpf::adopt::Number;
use crate::config::WorkloadSettings;

impl Adoptions {
    /// Lets what needs the hooks of a workload stand still.
    pub(super) fn freeze(&self, one: &Held) {
        self.marks.freeze(&one.workload.settings.name, &self.to_freeze(one));
    }

    /// Lets the cgroups stand still that were found to be a workload's, and those that may be and that nothing refuses. What only
    /// can't be known for a moment goes on, and so does what another workload has.
    pub(super) fn freeze_found(&self, one: &Held) {
        let found = one.cgroups.values().map(|cgroup| &cgroup.path);
        let cgroups: BTreeSet<String> = found.chain(&one.loose).cloned().collect();
        self.marks.freeze(&one.workload.settings.name, &Vec::from_iter(cgroups));
    }

    /// Lets a workload go on.
    pub(super) fn thaw(&self, one: &Held) {
        self.marks.thaw(&one.workload.settings.name, || self.to_freeze(one));
    }

    /// Lets a cgroup stand still, of a workload that isn't held, until that is taken and has it governed.
    pub(super) fn stand_still(&self, settings: &WorkloadSettings, path: &str) {
        self.marks.freeze(&settings.name, &[path.to_owned()]);
    }

    /// Lets go on what stands still of workloads that nobody holds and that aren't to be adopted any more, and what another one
    /// has by now. To be called when that one was looked for: if it needs it to stand still, it has it in its mark.
    pub(super) fn thaw_given_up(&self, held: &BTreeMap<Number, Held>, wanted: &BTreeSet<Number>) {
        let has = |one: &Held, path: &str| one.cgroups.values().any(|own| Path::new(path).starts_with(&own.path));
        for name in self.marks.names() {
            let number = number(&name);
            if !held.contains_key(&number) {
                let is_wanted = wanted.contains(&number);
                self.marks.give_up(&name, |path| !is_wanted || held.values().any(|one| has(one, path)));
            }
        }
    }

    /// The cgroups that need the hooks: a workload's, and those that may be its and are refused.
    fn to_freeze(&self, one: &Held) -> Vec<String> {
        match self.tree.of(&one.workload.settings) {
            Ok(Found { cgroups, unknown }) => {
                let unknown = unknown.into_iter().map(|(cgroup, _)| cgroup);
                cgroups.into_iter().chain(unknown).map(|cgroup| cgroup.path).collect()
            }
            Err(_) => one.cgroups.values().map(|cgroup| cgroup.path.clone()).collect(),
        }
    }
}
