//! What a daemon under test can leave behind, how it is found, and how it is cleared: processes, its cgroup, its pins,
//! mounts and files. Everything bears the fixture's own name, so that nothing of anybody else is ever touched. What all
//! fixtures have left, and the programs in the kernel, is in [`census`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub mod census;

/// Where each fixture has its folder. Not below /tmp, which a workload sees another one of.
const ROOMS: &str = "/var/lib";
const PINS: &str = "/sys/fs/bpf";

/// The places that one fixture uses.
#[derive(Debug, Clone)]
pub struct Remains {
    name: String,
    room: PathBuf,
    pins: PathBuf,
    cgroup: PathBuf,
}

impl Remains {
    /// The places of the fixture `name`.
    ///
    /// # Errors
    /// cgroup2 isn't mounted.
    pub fn of(name: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            room: Path::new(ROOMS).join(name),
            pins: Path::new(PINS).join(name),
            cgroup: cgroup2()?.join(name),
        })
    }

    /// Its folder.
    pub fn room(&self) -> &Path {
        &self.room
    }

    /// Its folder on the bpffs.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The pids of its processes: those in its cgroup, and those that run a binary from its folder.
    pub fn processes(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let inside = format!("/{}", self.name);
        let is_inside =
            |path: &str| path.strip_prefix(&inside).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let in_cgroup = cgroups.lines().filter_map(|line| line.strip_prefix("0::")).any(is_inside);
            in_cgroup || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(&self.room))
        })
        .collect()
    }

    /// Everything of it that is still there, a line each.
    pub fn list(&self) -> Vec<String> {
        let mut found: Vec<String> = self.processes().iter().map(|pid| format!("process {pid}")).collect();
        for (what, path) in [("cgroup", &self.cgroup), ("pins", &self.pins), ("files", &self.room)] {
            if path.exists() {
                found.push(format!("{what} {}", path.display()));
            }
        }
        found.extend(self.mounts().iter().map(|mount| format!("mount {}", mount.display())));
        found
    }

    /// Ends and removes all of it.
    ///
    /// # Errors
    /// Something is still there afterwards; the error names it.
    pub fn clear(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for pid in self.processes() {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            for mount in self.mounts() {
                let _ = umount2(&mount, MntFlags::MNT_DETACH);
            }
            remove_cgroup(&self.cgroup);
            let gone = [&self.pins, &self.room].map(|folder| remove(folder));
            let left = self.list();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                for result in gone {
                    result?;
                }
                bail!("left behind: {}", left.join(", "));
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
        let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        // The innermost first.
        let mut mounts: Vec<PathBuf> = points.filter(|point| point.starts_with(&self.room)).collect();
        mounts.reverse();
        mounts
    }
}

/// Clears what fixtures whose process was killed have left. `prefix` is the beginning of their names, before the pid.
///
/// # Errors
/// cgroup2 isn't mounted, or a remainder can't be removed.
pub fn sweep(prefix: &str) -> Result<()> {
    let cgroups = cgroup2()?;
    for folder in [Path::new(ROOMS), Path::new(PINS), &cgroups] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                Remains::of(&name)?.clear().with_context(|| format!("can't clear the remains of `{name}`"))?;
            }
        }
    }
    Ok(())
}

/// Where cgroup2 is mounted.
///
/// # Errors
/// It isn't.
pub fn cgroup2() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = text.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4))?
    });
    mount.map(PathBuf::from).context("cgroup2 isn't mounted: mount it at /sys/fs/cgroup")
}

/// A cgroup's files can't be removed, only the folders, the innermost first.
fn remove_cgroup(cgroup: &Path) {
    let Ok(entries) = fs::read_dir(cgroup) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    // Busy while a process in it ends; `clear` tries again.
    let _ = fs::remove_dir(cgroup);
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
