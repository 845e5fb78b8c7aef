//! What a run was made on: figures mean nothing without it.

use std::fs;

use interceptor::clock::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use crate::affinity::cores;

/// The machine and the moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) memory_kib: u64,
    pub(crate) kernel: String,
    /// The load average of the last minute when the run began: above some tenths others used the machine.
    pub(crate) load_before: f64,
    /// The cargo profile that everything of ours was built with.
    pub(crate) profile: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            date: SystemClock.now().strftime("%Y-%m-%d").to_string(),
            cores: cores(),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            memory_kib: memory.trim_end_matches(" kB").parse().unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
            profile: profile(),
        }
    }
}

/// cargo puts what it builds into a folder of the profile's name.
fn profile() -> String {
    let own = std::env::current_exe().ok();
    let folder = own.as_deref().and_then(|path| path.parent()?.file_name()?.to_str().map(str::to_owned));
    folder.unwrap_or_else(|| "unknown".into())
}
