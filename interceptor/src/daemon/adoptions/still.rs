//! Cgroups that stand still because of us. A file in the folder of their workload says which they are, for a daemon that comes
//! after; what somebody else froze stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::{Adoptions, FROZEN, Held, number};
use crate::adopt::Found;
use crate::bpf::adopt::Number;
use crate::config::WorkloadSettings;
use crate::ids::WorkloadName;

/// The first line of the file.
const FROZEN_BY_US: &str = "frozen by Interceptor:";

impl Adoptions {
    /// Lets the processes of a workload stand still, or go on.
    pub(super) fn freeze(&self, one: &Held, still: bool) {
        if still {
            return self.keep_frozen(&one.workload.folder, self.to_freeze(one));
        }
        let mark = one.workload.folder.join(FROZEN);
        let noted = fs::read_to_string(&mark).ok();
        let mut frozen: BTreeSet<String> = noted.as_deref().map(paths).unwrap_or_default();
        // An earlier daemon's file names none, nor does one that couldn't be written.
        if noted.is_none_or(|noted| noted.is_empty()) {
            frozen.extend(self.to_freeze(one));
        }
        frozen.iter().for_each(|path| self.switch(path, false));
        // It may never have been there.
        let _ = fs::remove_file(mark);
    }

    /// Lets a cgroup stand still, of a workload that isn't held, until that is taken and has it governed.
    pub(super) fn stand_still(&self, settings: &WorkloadSettings, path: &str) {
        self.keep_frozen(&self.folder(&settings.name), vec![path.to_owned()]);
    }

    /// Lets go on what stands still of workloads that nobody holds and that aren't to be adopted any more.
    pub(super) fn thaw_given_up(&self, held: &BTreeMap<Number, Held>, wanted: &BTreeSet<Number>) {
        // There is no such folder where nothing was adopted yet.
        for entry in fs::read_dir(self.parts.paths.runtime.join("adopted")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_str().and_then(|name| name.parse::<WorkloadName>().ok());
            let Some(number) = name.map(|name| number(&name)) else { continue };
            let mark = entry.path().join(FROZEN);
            if !held.contains_key(&number)
                && !wanted.contains(&number)
                && let Ok(noted) = fs::read_to_string(&mark)
            {
                paths(&noted).iter().for_each(|path| self.switch(path, false));
                let _ = fs::remove_file(mark);
            }
        }
    }

    /// Freezes those of these cgroups that run, and notes them down in this folder of their workload.
    fn keep_frozen(&self, folder: &Path, cgroups: Vec<String>) {
        let mark = folder.join(FROZEN);
        let mut frozen = fs::read_to_string(&mark).map(|noted| paths(&noted)).unwrap_or_default();
        let switch = |path: &str| self.tree.folder(path).join("cgroup.freeze");
        let runs = |path: &String| fs::read_to_string(switch(path)).is_ok_and(|text| text.trim() == "0");
        // Also what was frozen before: a unit that was started again has another cgroup of that name.
        let new: Vec<String> = cgroups.into_iter().filter(runs).collect();
        frozen.extend(new.iter().cloned());
        let text = frozen.into_iter().fold(FROZEN_BY_US.to_owned(), |text, path| text + "\n" + &path);
        // Before they are, so that none is left that nobody thaws.
        if let Err(error) = fs::write(&mark, text) {
            tracing::warn!(%error, "that a workload is frozen can't be noted down");
        }
        new.iter().for_each(|path| self.switch(path, true));
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

    fn switch(&self, path: &str, still: bool) {
        match fs::write(self.tree.folder(path).join("cgroup.freeze"), if still { "1" } else { "0" }) {
            // It is gone, with its processes.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, cgroup = path, still, "a cgroup can't be frozen or thawed"),
            Ok(()) => {}
        }
    }
}

/// The cgroups that such a file names.
fn paths(noted: &str) -> BTreeSet<String> {
    noted.lines().filter(|line| line.starts_with('/')).map(str::to_owned).collect()
}
