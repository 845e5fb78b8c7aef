//! Who a connection belongs to: the workload (exact: a launched one's namespace, an adopted one's record of the steered
//! connection), and the process and thread (as the connect hooks saw them; a miss is "unknown", never somebody else).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bpf::Origin;
use crate::config::WorkloadSettings;
use crate::ids::LaunchId;

mod callers;
pub mod login;

pub use callers::{Call, Callers, LATE};

/// Stands for no user in the kernel's calls: nobody launched an adopted workload, and it runs as whoever it runs as.
pub const NOBODY: u32 = u32::MAX;

/// A workload that lives: one launch, or all that an adopted one's configuration fits, for as long as it says so.
#[derive(Debug)]
pub struct Workload {
    /// This launch, or this adoption.
    pub id: LaunchId,
    /// What the configuration says of it, as of its launch.
    pub settings: Arc<WorkloadSettings>,
    /// The uid of the person who launched it; of an adopted one [`NOBODY`].
    pub initiator: u32,
    /// As whom that person logged in (`loginuid`, proc(5)), where the kernel knows it: somebody else's uid after `sudo`.
    pub loginuid: Option<u32>,
    /// The uid it runs as; of an adopted one [`NOBODY`].
    pub uid: u32,
    /// The pid of its process 1, in the daemon's PID namespace; 0 of an adopted one.
    pub init: u32,
    /// Its cgroup, an absolute path below the cgroup2 mount; of an adopted one the deepest that all of its are in.
    pub cgroup: PathBuf,
    /// The folder for what must survive the daemon while the workload lives: its state, its synthetic names.
    pub folder: PathBuf,
}

/// The process behind a connection, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The process id, in the daemon's PID namespace.
    pub pid: u32,
    /// The thread that called connect.
    pub tid: u32,
    /// What the kernel calls it (`comm`): what the process chose, evidence only.
    pub comm: String,
    /// The executable, if it could still be read.
    pub exe: Option<PathBuf>,
}

/// A connection whose workload is known.
#[derive(Debug, Clone)]
pub struct Attribution {
    /// The workload.
    pub workload: Arc<Workload>,
    /// The process, if a connect hook saw it.
    pub process: Option<Process>,
    /// Where the process connected to: `getsockname` of the accepted socket in a launched workload's namespace, what the
    /// hooks kept of an adopted one's.
    pub original: SocketAddr,
    /// The process's own end.
    pub peer: SocketAddr,
}

/// Attributes a connection of `workload` that `origin` made, as far as the hooks saw that.
pub fn attribute(
    workload: &Arc<Workload>,
    origin: Option<Origin>,
    original: SocketAddr,
    peer: SocketAddr,
) -> Attribution {
    let process = origin.and_then(|origin| process(origin, &workload.cgroup));
    Attribution { workload: workload.clone(), process, original, peer }
}

/// What is known of the process that connected. A process that has ended in the meantime is still the one; a pid that
/// is somebody else's by now is nobody.
fn process(origin: Origin, cgroup: &Path) -> Option<Process> {
    let exe = fs::read_link(format!("/proc/{}/exe", origin.pid)).ok();
    let exe = match fs::read_to_string(format!("/proc/{}/cgroup", origin.pid)) {
        Ok(text) if is_within(&text, cgroup) => exe,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => None,
        Ok(_) | Err(_) => return None,
    };
    Some(Process { pid: origin.pid, tid: origin.tid, comm: origin.comm, exe })
}

/// Whether a /proc/PID/cgroup names this cgroup or one below it. The file gives the path from the root of the reader's
/// cgroup namespace, which is an end of the path through the mount.
fn is_within(proc_cgroup: &str, cgroup: &Path) -> bool {
    let Some(path) = proc_cgroup.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return false;
    };
    Path::new(path).ancestors().filter(|path| !path.as_os_str().is_empty()).any(|path| cgroup.ends_with(path))
}

#[cfg(test)]
mod tests;
