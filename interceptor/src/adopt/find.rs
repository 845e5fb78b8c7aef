//! The cgroups of adopted workloads, as the tree is at the moment.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::container::Engines;
use super::procfs::{Process, is_shortage};
use crate::bpf::adopt::{Number, State, Watched};
use crate::config::{Adopt, Pattern, WorkloadSettings, slice_path};

/// Where the units that `interceptor adopt` wrote a drop-in for are.
const SLICE: &str = "/interceptor.slice";

/// As many cgroups as are looked at for a unit that isn't where it should be.
const LOOKED_AT: usize = 4_096;

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

/// Where a workload is at the moment.
#[derive(Debug, Default)]
pub struct Found {
    /// The cgroups that it is adopted from.
    pub cgroups: Vec<Cgroup>,
    /// Containers of which can't be read now whose they are, and why.
    pub unknown: Vec<(Cgroup, io::Error)>,
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

    /// The cgroups that a workload is adopted from and that are there, and those that it may be.
    ///
    /// # Errors
    /// They can't be looked for now: which there are isn't known.
    pub fn of(&self, settings: &WorkloadSettings) -> io::Result<Found> {
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for adopt in &settings.adopt {
            match adopt {
                Adopt::Unit(name) => {
                    for path in unit_paths(name) {
                        found.extend(self.look(path)?);
                    }
                }
                Adopt::Cgroup(pattern) if pattern.is_whole() => found.extend(self.look(pattern.as_str().to_owned())?),
                Adopt::Cgroup(pattern) => self.search(pattern, &mut found)?,
                Adopt::ContainerLabel(label) => {
                    let mut containers = Vec::new();
                    for pattern in container_patterns() {
                        self.search(&pattern, &mut containers)?;
                    }
                    let paths: Vec<&str> = containers.iter().map(|one| one.path.as_str()).collect();
                    self.engines.keep(paths.iter().copied());
                    for (known, mut one) in self.engines.find_all(&paths).into_iter().zip(containers) {
                        match known {
                            Ok(Some(container)) if container.has(label) => {
                                one.image = container.image;
                                found.push(one);
                            }
                            Ok(_) => {}
                            Err(error) => unknown.push((one, error)),
                        }
                    }
                }
            }
        }
        found.sort();
        found.dedup_by(|a, b| a.id == b.id);
        // A container may be adopted by its cgroup.
        for one in found.iter_mut().filter(|one| one.image.is_none()) {
            one.image = self.engines.image(&one.path);
        }
        // Another selector may have it.
        let ids: BTreeSet<u64> = found.iter().map(|one| one.id).collect();
        unknown.retain(|(one, _)| !ids.contains(&one.id));
        Ok(Found { cgroups: found, unknown })
    }

    /// The cgroup of a workload's that a cgroup is or is below, by its name: whether it is there still, or was found yet,
    /// doesn't matter.
    ///
    /// # Errors
    /// It is a container, and whose isn't known now.
    pub fn own<'a>(&self, settings: &WorkloadSettings, path: &'a Path) -> io::Result<Option<&'a str>> {
        for adopt in &settings.adopt {
            let units = if let Adopt::Unit(name) = adopt { unit_paths(name) } else { Vec::new() };
            for path in path.ancestors().filter_map(Path::to_str) {
                let is_own = match adopt {
                    Adopt::Unit(_) => units.iter().any(|one| one == path),
                    Adopt::Cgroup(pattern) => pattern.fits(path),
                    Adopt::ContainerLabel(label) => {
                        self.engines.find(path)?.is_some_and(|container| container.has(label))
                    }
                };
                if is_own {
                    return Ok(Some(path));
                }
            }
        }
        Ok(None)
    }

    /// Where a unit is that isn't where it is looked for: in another slice (`Slice=`), or with the manager of a user.
    pub fn elsewhere(&self, unit: &str) -> Option<String> {
        let (known, mut looked) = (unit_paths(unit), 0);
        let mut open = vec![String::new()];
        while let Some(path) = open.pop() {
            // It may have gone.
            for entry in fs::read_dir(self.folder(&path)).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) else {
                    continue;
                };
                looked += 1;
                if looked > LOOKED_AT {
                    return None;
                }
                let below = format!("{path}/{name}");
                if name == unit && !known.contains(&below) {
                    return Some(below);
                }
                if name.ends_with(".slice") || name.starts_with("user@") {
                    open.push(below);
                }
            }
        }
        None
    }

    /// The processes in a cgroup and below it.
    ///
    /// # Errors
    /// The cgroup is gone, or can't be read.
    pub fn processes(&self, path: &str) -> io::Result<Vec<u32>> {
        let mut pids = BTreeSet::new();
        processes_below(&self.folder(path), &mut pids)?;
        Ok(pids.into_iter().collect())
    }

    /// The cgroup of a process, as it is seen from the root.
    pub fn of_process(&self, pid: u32) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        // That of one at its end may have been removed.
        Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
    }

    /// Which users but root there are, and in which cgroups: each process's uid with its cgroup.
    ///
    /// # Errors
    /// The processes can't be looked at now.
    pub fn users(&self) -> io::Result<BTreeSet<(u32, String)>> {
        let mut users = BTreeSet::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match self.user(pid) {
                Ok(user) => users.extend(user),
                Err(error) if is_shortage(&error) => return Err(error),
                // It has ended.
                Err(_) => {}
            }
        }
        Ok(users)
    }

    fn user(&self, pid: u32) -> io::Result<Option<(u32, String)>> {
        // Most are root's and the kernel's, of which no more is asked.
        if Process::uid_of(pid)? == 0 {
            return Ok(None);
        }
        let uid = Process::read(pid)?.uids[0];
        // The cgroup after the uid: a service's process is put into its cgroup first, and becomes its user then.
        Ok(self.of_process(pid).map(|path| (uid, path)))
    }

    fn look(&self, path: String) -> io::Result<Option<Cgroup>> {
        let found = there(fs::metadata(self.folder(&path)))?;
        Ok(found.filter(fs::Metadata::is_dir).map(|found| Cgroup { path, id: found.ino(), image: None }))
    }

    fn search(&self, pattern: &Pattern, found: &mut Vec<Cgroup>) -> io::Result<()> {
        let mut paths = vec![String::new()];
        for part in pattern.as_str().split('/').skip(1) {
            let mut below = Vec::new();
            for path in &paths {
                if !part.contains('*') {
                    below.push(format!("{path}/{part}"));
                } else if let Some(names) = there(fs::read_dir(self.folder(path)))? {
                    for name in names {
                        below.extend(name?.file_name().to_str().map(|name| format!("{path}/{name}")));
                    }
                }
            }
            paths = below;
        }
        for path in paths.into_iter().filter(|path| pattern.fits(path)) {
            found.extend(self.look(path)?);
        }
        Ok(())
    }
}

/// What was read, unless it isn't there.
fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    }
}

/// What is to be governed from the moment that it is made. Of what only begins right nobody knows yet whether it is the
/// workload's: until that is found out nothing of it passes.
pub fn watched(settings: &WorkloadSettings, workload: Number) -> Vec<Watched> {
    let whole = |path: String| Watched { path, level: None, workload, state: State::Steered };
    let begins = |pattern: &Pattern| {
        let (path, level) = (pattern.beginning().to_owned(), Some(pattern.level()));
        Watched { path, level, workload, state: State::Refused }
    };
    let mut watched = Vec::new();
    for adopt in &settings.adopt {
        match adopt {
            Adopt::Unit(name) => watched.extend(unit_paths(name).into_iter().map(whole)),
            Adopt::Cgroup(pattern) if pattern.is_whole() => watched.push(whole(pattern.as_str().to_owned())),
            Adopt::Cgroup(pattern) => watched.push(begins(pattern)),
            Adopt::ContainerLabel(_) => watched.extend(container_patterns().iter().map(begins)),
        }
    }
    watched
}

/// The deepest cgroup that all of a workload's are in or are.
pub fn common(settings: &WorkloadSettings) -> String {
    let watched = watched(settings, 0);
    let mut paths = watched.iter().map(|one| if one.level.is_none() { &*one.path } else { folder_of(&one.path) });
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

/// Where systemd puts a unit, by systemd.slice(5) and systemd.special(7): a slice where its name says, others in our slice or
/// in their own by default. Only what is known beforehand is governed from the moment that it is made.
fn unit_paths(name: &str) -> Vec<String> {
    if let Some(path) = slice_path(name) {
        return vec![path];
    }
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

fn processes_below(folder: &Path, pids: &mut BTreeSet<u32>) -> io::Result<()> {
    // 0 is a process of another PID namespace, which can't be one that we govern.
    let numbers = |text: &str| -> Vec<u32> {
        text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|id| *id != 0).collect()
    };
    match fs::read_to_string(folder.join("cgroup.procs")) {
        Ok(text) => pids.extend(numbers(&text)),
        // A threaded one knows threads only (Documentation/admin-guide/cgroup-v2.rst, threads).
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            for thread in numbers(&fs::read_to_string(folder.join("cgroup.threads"))?) {
                match Process::of_thread(thread) {
                    Ok(pid) => {
                        pids.insert(pid);
                    }
                    Err(error) if is_shortage(&error) => return Err(error),
                    // It has ended.
                    Err(_) => {}
                }
            }
        }
        Err(error) => return Err(error),
    }
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            match processes_below(&entry.path(), pids) {
                Err(error) if is_gone(&error) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Whether a cgroup isn't there any more: its files are, for a moment, and say so.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

#[cfg(test)]
mod tests;
