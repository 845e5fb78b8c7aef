//! The cgroups of adopted workloads, as the tree is at the moment.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::container::Engines;
use super::procfs::Process;
use crate::bpf::adopt::{Number, State, Watched};
use crate::config::{Adopt, Pattern, WorkloadSettings};

/// Where the units that `interceptor adopt` wrote a drop-in for are.
const SLICE: &str = "/interceptor.slice";

/// A cgroup that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// Its path from the root of cgroup2.
    pub path: String,
    /// Its id.
    pub id: u64,
    /// The image of the container that it is, by its digest, if that is known.
    pub image: Option<String>,
}

/// The tree of cgroups.
#[derive(Debug, Clone)]
pub struct Tree {
    mount: PathBuf,
    engines: Engines,
}

impl Tree {
    /// The tree below this mount of cgroup2, with the containers of these engines.
    pub fn new(mount: PathBuf, engines: Engines) -> Self {
        Self { mount, engines }
    }

    /// The folder of a cgroup.
    pub fn folder(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// The cgroups that a workload is adopted from and that are there.
    pub fn of(&self, settings: &WorkloadSettings) -> Vec<Cgroup> {
        let mut found = Vec::new();
        for adopt in &settings.adopt {
            match adopt {
                Adopt::Unit(name) => found.extend(unit_paths(name).into_iter().filter_map(|path| self.look(path))),
                Adopt::Cgroup(pattern) if pattern.is_whole() => found.extend(self.look(pattern.as_str().to_owned())),
                Adopt::Cgroup(pattern) => self.search(pattern, &mut found),
                Adopt::ContainerLabel(label) => {
                    let mut containers = Vec::new();
                    container_patterns().iter().for_each(|pattern| self.search(pattern, &mut containers));
                    self.engines.keep(containers.iter().map(|one| one.path.as_str()));
                    for mut one in containers {
                        if let Some(container) = self.engines.find(&one.path)
                            && container.has(label)
                        {
                            one.image = container.image;
                            found.push(one);
                        }
                    }
                }
            }
        }
        found.sort();
        found.dedup_by(|a, b| a.id == b.id);
        found
    }

    /// Whether a cgroup is one of a workload's, or below one.
    pub fn is_of(&self, settings: &WorkloadSettings, path: &Path) -> bool {
        path.ancestors().filter_map(Path::to_str).any(|path| {
            settings.adopt.iter().any(|adopt| match adopt {
                Adopt::Unit(name) => unit_paths(name).iter().any(|one| one == path),
                Adopt::Cgroup(pattern) => pattern.fits(path),
                Adopt::ContainerLabel(label) => self.engines.find(path).is_some_and(|container| container.has(label)),
            })
        })
    }

    /// The processes in a cgroup and below it.
    ///
    /// # Errors
    /// The cgroup is gone, or can't be read.
    pub fn processes(&self, path: &str) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        processes_below(&self.folder(path), &mut pids)?;
        Ok(pids)
    }

    /// The cgroup of a process, as it is seen from the root.
    pub fn of_process(&self, pid: u32) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
    }

    /// Which users but root there are, and in which cgroups: each process's uid with its cgroup.
    pub fn users(&self) -> BTreeSet<(u32, String)> {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let users = pids.filter_map(|pid| {
            // Most are root's and the kernel's, of which no more is asked.
            if Process::uid_of(pid).ok()? == 0 {
                return None;
            }
            let uid = Process::read(pid).ok()?.uids[0];
            // The cgroup after the uid: a service's process is put into its cgroup first, and becomes its user then. One that
            // is gone is nowhere.
            Some((uid, self.of_process(pid)?))
        });
        users.collect()
    }

    fn look(&self, path: String) -> Option<Cgroup> {
        let found = fs::metadata(self.folder(&path)).ok()?;
        found.is_dir().then(|| Cgroup { path, id: found.ino(), image: None })
    }

    fn search(&self, pattern: &Pattern, found: &mut Vec<Cgroup>) {
        let mut paths = vec![String::new()];
        for part in pattern.as_str().split('/').skip(1) {
            let mut below = Vec::new();
            for path in &paths {
                if part.contains('*') {
                    let names = fs::read_dir(self.folder(path)).into_iter().flatten().flatten();
                    below.extend(names.filter_map(|name| Some(format!("{path}/{}", name.file_name().to_str()?))));
                } else {
                    below.push(format!("{path}/{part}"));
                }
            }
            paths = below;
        }
        found.extend(paths.into_iter().filter(|path| pattern.fits(path)).filter_map(|path| self.look(path)));
    }
}

/// What is to be governed from the moment that it is made. Of what only begins right nobody knows yet whether it is the
/// workload's: until that is found out nothing of it passes.
pub fn watched(settings: &WorkloadSettings, workload: Number) -> Vec<Watched> {
    let whole = |path: String| Watched { path, whole: true, workload, state: State::Steered };
    let begins = |path: &str| Watched { path: path.to_owned(), whole: false, workload, state: State::Refused };
    let mut watched = Vec::new();
    for adopt in &settings.adopt {
        match adopt {
            Adopt::Unit(name) => watched.extend(unit_paths(name).into_iter().map(whole)),
            Adopt::Cgroup(pattern) if pattern.is_whole() => watched.push(whole(pattern.as_str().to_owned())),
            Adopt::Cgroup(pattern) => watched.push(begins(pattern.beginning())),
            Adopt::ContainerLabel(_) => watched.extend(container_patterns().iter().map(|one| begins(one.beginning()))),
        }
    }
    watched
}

/// The deepest cgroup that all of a workload's are in or are.
pub fn common(settings: &WorkloadSettings) -> String {
    let watched = watched(settings, 0);
    let mut paths = watched.iter().map(|one| if one.whole { one.path.as_str() } else { folder_of(&one.path) });
    let first = paths.next().unwrap_or_default().to_owned();
    paths.fold(first, |common, path| {
        let same = common.split('/').zip(path.split('/')).take_while(|(a, b)| a == b).map(|(part, _)| part);
        same.collect::<Vec<_>>().join("/")
    })
}

fn folder_of(beginning: &str) -> &str {
    beginning.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// What a workload is adopted from, for people.
pub fn told(settings: &WorkloadSettings) -> String {
    let one = |adopt: &Adopt| match adopt {
        Adopt::Unit(name) => format!("unit {name}"),
        Adopt::Cgroup(pattern) => format!("cgroup {}", pattern.as_str()),
        Adopt::ContainerLabel(label) => format!("containers with {label}"),
    };
    settings.adopt.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Where systemd puts a unit, by systemd.slice(5) and systemd.special(7): our slice, its own by default.
fn unit_paths(name: &str) -> Vec<String> {
    let mut paths = vec![format!("{SLICE}/{name}"), format!("/system.slice/{name}")];
    if let Some((template, _)) = name.split_once('@') {
        // A dash is a level of slices, so systemd escapes it in a name.
        let slice = template.replace('-', "\\x2d");
        paths.push(format!("/system.slice/system-{slice}.slice/{name}"));
    }
    paths
}

/// Where Docker and Podman put containers, with either driver of cgroups; those of a pod are in its slice.
fn container_patterns() -> Vec<Pattern> {
    let texts = [
        "/docker/*",
        "/system.slice/docker-*.scope",
        "/libpod_parent/libpod-*",
        "/machine.slice/libpod-*.scope",
        "/machine.slice/machine-libpod_pod_*/libpod-*.scope",
    ];
    texts.into_iter().filter_map(|text| Pattern::new(text).ok()).collect()
}

fn processes_below(folder: &Path, pids: &mut Vec<u32>) -> io::Result<()> {
    let text = fs::read_to_string(folder.join("cgroup.procs"))?;
    // 0 is a process of another PID namespace, which can't be one that we govern.
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            match processes_below(&entry.path(), pids) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
