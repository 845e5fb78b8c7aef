//! What /proc says of a process, as far as it decides what the process may.

use std::fs;
use std::io;

/// A process, at the moment that it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with the id it is one process and no other.
    pub started: u64,
    /// Its real, effective, saved and filesystem uids.
    pub uids: [u32; 4],
    /// What it may use now, what it may take, and what a program that it runs may have (capabilities(7)).
    pub capabilities: [u64; 3],
    /// Whether programs that it runs give it no privileges.
    pub no_new_privs: bool,
    /// How many seccomp filters it has.
    pub filters: u32,
    /// Its namespaces.
    pub namespaces: Namespaces,
}

/// Namespaces, by their inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// Of users.
    pub user: u64,
    /// Of processes.
    pub pid: u64,
    /// Of mounts.
    pub mount: u64,
    /// Of the network.
    pub net: u64,
}

impl Namespaces {
    /// Those of a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(pid: &str) -> io::Result<Self> {
        let inode = |name: &str| -> io::Result<u64> {
            let link = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
            let link = link.to_string_lossy();
            let number = link.split(['[', ']']).nth(1).and_then(|number| number.parse().ok());
            number.ok_or_else(|| io::Error::other(format!("`{link}` isn't a namespace")))
        };
        Ok(Self { user: inode("user")?, pid: inode("pid")?, mount: inode("mnt")?, net: inode("net")? })
    }
}

impl Process {
    /// Looks at a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn read(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let started = started(&fs::read_to_string(format!("/proc/{pid}/stat"))?);
        let mut process = Self::parse(&status).ok_or_else(|| io::Error::other("a status without uids"))?;
        process.pid = pid;
        process.started = started.ok_or_else(|| io::Error::other("a stat without a start time"))?;
        process.namespaces = Namespaces::of(&pid.to_string())?;
        Ok(process)
    }

    /// What the status file says (proc_pid_status(5)).
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
        };
        let mut uids = [0; 4];
        let mut numbers = field("Uid")?.split_ascii_whitespace();
        for uid in &mut uids {
            *uid = numbers.next()?.parse().ok()?;
        }
        let mask = |name| field(name).and_then(|text| u64::from_str_radix(text, 16).ok());
        Some(Self {
            uids,
            capabilities: [mask("CapEff")?, mask("CapPrm")?, mask("CapBnd")?],
            no_new_privs: field("NoNewPrivs")? == "1",
            filters: field("Seccomp_filters").and_then(|text| text.parse().ok()).unwrap_or_default(),
            ..Self::default()
        })
    }

    /// The thread with the fewest filters; what was set before the program began, all have.
    pub(super) fn barest_thread(&self) -> io::Result<(u32, u32)> {
        let mut barest = (self.pid, self.filters);
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))?.flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            if let Some(thread) = Self::parse(&status).filter(|thread| thread.filters < barest.1) {
                barest = (tid, thread.filters);
            }
        }
        Ok(barest)
    }
}

/// The 22nd field; the second is the command in parentheses, which may hold anything.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}
