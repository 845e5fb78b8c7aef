//! The marks of what stands still because of us: a file in the folder of a workload says which cgroups those are, for a daemon that
//! comes after. What somebody else froze stays as it is, and what stands still for two workloads does so until neither needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::adopt::Tree;
use crate::ids::WorkloadName;

/// The file.
const FROZEN: &str = "frozen";

/// Its first line.
const FROZEN_BY_US: &str = "frozen by Interceptor:";

/// The marks of all workloads.
#[derive(Debug)]
pub(super) struct Marks {
    tree: Tree,
    /// What the workloads' folders are in.
    folder: PathBuf,
    /// What stands still of those of which it couldn't be noted down.
    unnoted: Mutex<BTreeMap<WorkloadName, BTreeSet<String>>>,
}

impl Marks {
    /// Those of workloads with their cgroups in this tree and their folders in this one.
    pub(super) fn new(tree: Tree, folder: PathBuf) -> Self {
        Self { tree, folder, unnoted: Mutex::default() }
    }

    /// The folder of a workload.
    pub(super) fn folder(&self, name: &WorkloadName) -> PathBuf {
        self.folder.join(name.as_str())
    }

    /// The workloads that may have one.
    pub(super) fn names(&self) -> BTreeSet<WorkloadName> {
        // There is no such folder where nothing was adopted yet.
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: BTreeSet<WorkloadName> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse::<WorkloadName>().ok()).collect();
        names.extend(self.unnoted().keys().cloned());
        names
    }

    /// Whether something of a workload stands still, as far as that is known.
    pub(super) fn has(&self, name: &WorkloadName) -> bool {
        self.file(name).exists() || self.unnoted().contains_key(name)
    }

    /// Freezes those of these cgroups of a workload that run, and notes them down, with those that stand still for another one.
    pub(super) fn freeze(&self, name: &WorkloadName, cgroups: &[String]) {
        let mut noted = self.noted(name);
        let is_noted = |path: &String| noted.contains(path);
        let others = if cgroups.iter().all(is_noted) { BTreeSet::new() } else { self.others(name) };
        // Also what was frozen before: a unit that was started again has another cgroup of that name.
        let running: BTreeSet<&String> = cgroups.iter().filter(|path| self.runs(path)).collect();
        let is_nameless = self.is_nameless(name);
        let is_ours = |path: &&String| is_nameless || running.contains(*path) || others.contains(*path);
        let new: Vec<String> = cgroups.iter().filter(|path| !is_noted(path)).filter(is_ours).cloned().collect();
        let is_late = self.unnoted().contains_key(name);
        // Before they are, so that none is left that nobody thaws; and not at each look.
        if !new.is_empty() || is_late {
            noted.extend(new);
            self.note(name, noted);
        }
        running.iter().for_each(|path| self.switch(path, true));
    }

    /// Lets a workload go on, but for what stands still for another one. `all` are its cgroups, for a mark that names none, as
    /// earlier daemons made them.
    pub(super) fn thaw(&self, name: &WorkloadName, all: impl FnOnce() -> Vec<String>) {
        let mut frozen = self.noted(name);
        if self.is_nameless(name) {
            frozen.extend(all());
        }
        self.go_on(name, &frozen);
        self.remove(name);
    }

    /// Lets go on what stands still of a workload that nobody holds, as far as it `is_over`, and not for another one.
    pub(super) fn give_up(&self, name: &WorkloadName, is_over: impl Fn(&str) -> bool) {
        if !self.has(name) {
            return;
        }
        if self.is_nameless(name) {
            let mark = self.file(name).display().to_string();
            return tracing::error!(mark, "it doesn't say what stands still of a workload; thaw that, and remove it");
        }
        let (over, left): (BTreeSet<String>, BTreeSet<String>) =
            self.noted(name).into_iter().partition(|path| is_over(path));
        self.go_on(name, &over);
        if left.is_empty() {
            self.remove(name);
        } else if !over.is_empty() {
            self.note(name, left);
        }
    }

    /// Removes what there is in the folder of a workload that is let go of, but for its mark: it stands still until somebody has it
    /// or it is given up.
    pub(super) fn clear(&self, name: &WorkloadName) {
        let folder = self.folder(name);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten().filter(|entry| entry.file_name() != FROZEN) {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let _ = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
        // It isn't empty if there is a mark.
        let _ = fs::remove_dir(folder);
    }

    fn go_on(&self, name: &WorkloadName, frozen: &BTreeSet<String>) {
        let others = if frozen.is_empty() { BTreeSet::new() } else { self.others(name) };
        frozen.difference(&others).for_each(|path| self.switch(path, false));
    }

    /// The cgroups that stand still of a workload.
    fn noted(&self, name: &WorkloadName) -> BTreeSet<String> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        let noted = text.lines().filter(|line| line.starts_with('/')).map(str::to_owned);
        noted.chain(self.unnoted().get(name).into_iter().flatten().cloned()).collect()
    }

    /// Those that stand still of others.
    fn others(&self, name: &WorkloadName) -> BTreeSet<String> {
        self.names().iter().filter(|other| *other != name).flat_map(|other| self.noted(other)).collect()
    }

    /// Whether a mark is there and doesn't say what stands still.
    fn is_nameless(&self, name: &WorkloadName) -> bool {
        let file = self.file(name);
        file.exists() && fs::read_to_string(file).map_or(true, |text| text.is_empty())
    }

    /// Notes down what stands still of a workload. As long as that can't be, this daemon at least remembers it.
    fn note(&self, name: &WorkloadName, frozen: BTreeSet<String>) {
        let text = frozen.iter().fold(FROZEN_BY_US.to_owned(), |text, path| text + "\n" + path);
        if let Err(error) = replace(&self.file(name), &text) {
            let is_known = self.unnoted().insert(name.clone(), frozen).is_some();
            // Several times a second, so it is said once.
            if !is_known {
                tracing::warn!(%error, workload = %name, "that a workload is frozen can't be noted down");
            }
        } else {
            self.unnoted().remove(name);
        }
    }

    fn remove(&self, name: &WorkloadName) {
        self.unnoted().remove(name);
        // It may never have been there; nor is there more of a workload that nobody holds.
        let _ = fs::remove_file(self.file(name));
        let _ = fs::remove_dir(self.folder(name));
    }

    fn file(&self, name: &WorkloadName) -> PathBuf {
        self.folder(name).join(FROZEN)
    }

    fn runs(&self, path: &str) -> bool {
        fs::read_to_string(self.tree.folder(path).join("cgroup.freeze")).is_ok_and(|text| text.trim() == "0")
    }

    fn switch(&self, path: &str, still: bool) {
        match fs::write(self.tree.folder(path).join("cgroup.freeze"), if still { "1" } else { "0" }) {
            // It is gone, with its processes.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, cgroup = path, still, "a cgroup can't be frozen or thawed"),
            Ok(()) => {}
        }
    }

    fn unnoted(&self) -> MutexGuard<'_, BTreeMap<WorkloadName, BTreeSet<String>>> {
        self.unnoted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a file in place as a whole: what it said before is worth more than half of what it says now.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension("draft");
    fs::write(&draft, text).and_then(|()| fs::rename(&draft, file)).inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

#[cfg(test)]
mod tests;
