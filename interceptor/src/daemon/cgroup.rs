//! The daemon's own cgroup, beside those of its workloads: a daemon inside a slice that it governs would govern itself.

use std::io;
use std::path::{Path, PathBuf};

use crate::bpf::{BpfError, mounts};

/// Why the daemon can't keep itself apart.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no cgroup2 mount.
    #[error(transparent)]
    NoMount(#[from] BpfError),
    /// A cgroup can't be made or entered.
    #[error("the cgroup `{}` can't be used: {error}; the daemon needs one of its own, outside every slice", path.display())]
    Unusable {
        /// The cgroup's folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The cgroups that the daemon works with.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    /// The folder of the parent of all workloads' cgroups; it holds no process itself.
    pub(super) workloads: PathBuf,
    /// The same, as /proc/PID/cgroup shows it.
    pub(super) below_root: PathBuf,
}

impl Cgroups {
    /// Makes the cgroups below `<cgroup2>/<name>` and moves this process into `<name>/daemon`.
    ///
    /// # Errors
    /// When there is no cgroup2, or a cgroup can't be made or entered.
    pub(super) fn enter(name: &str) -> Result<Self, CgroupError> {
        let mount = mounts::cgroup2()?;
        let (daemon, workloads) = (mount.join(name).join("daemon"), mount.join(name).join("workloads"));
        for folder in [&daemon, &workloads] {
            std::fs::create_dir_all(folder).map_err(|error| unusable(folder, error))?;
        }
        // "0" is the writing process itself (Documentation/admin-guide/cgroup-v2.rst, cgroup.procs).
        std::fs::write(daemon.join("cgroup.procs"), "0").map_err(|error| unusable(&daemon, error))?;
        let below_root = own().map_err(|error| unusable(&daemon, error))?.with_file_name("workloads");
        Ok(Self { workloads: workloads.clone(), below_root })
    }
}

/// The cgroup that this process is in now, as /proc/PID/cgroup shows it: relative to its cgroup namespace, which needn't
/// begin at the mount (cgroup_namespaces(7)). cgroup2's line is the one with hierarchy 0 (cgroups(7)).
fn own() -> io::Result<PathBuf> {
    let lines = std::fs::read_to_string("/proc/self/cgroup")?;
    let line = lines.lines().find_map(|line| line.strip_prefix("0::"));
    line.map(PathBuf::from).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "/proc/self/cgroup shows no cgroup2"))
}

fn unusable(path: &Path, error: io::Error) -> CgroupError {
    CgroupError::Unusable { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests;
