//! What /proc says of a process, as far as it decides what the process may.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A process, at the moment that it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// A thread of it that is at work. What /proc has of the process itself is empty once its first thread has ended, and
    /// others may go on.
    pub thread: u32,
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
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let thread = if is_at_work(&stat) { pid } else { other_thread(pid)? };
        let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status"))?;
        let mut process = Self::parse(&status).ok_or_else(|| io::Error::other("a status without uids"))?;
        process.pid = pid;
        process.thread = thread;
        process.started = field(&stat, STARTED).ok_or_else(|| io::Error::other("a stat without a start time"))?;
        process.namespaces = Namespaces::of(&format!("{pid}/task/{thread}"))?;
        Ok(process)
    }

    /// The real uid of a process, also of one at its end.
    ///
    /// # Errors
    /// It is gone.
    pub fn uid_of(pid: u32) -> io::Result<u32> {
        first(pid, "Uid:")
    }

    /// The process of a thread.
    ///
    /// # Errors
    /// It is gone.
    pub fn of_thread(thread: u32) -> io::Result<u32> {
        first(thread, "Tgid:")
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

    /// For how long a process has been there, to a hundredth of a second.
    ///
    /// # Errors
    /// It is gone.
    pub fn age_of(pid: u32) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let uptime = fs::read_to_string("/proc/uptime")?;
        age(&stat, &uptime).ok_or_else(|| io::Error::other("a stat or an uptime without a time"))
    }

    /// The folder that has what /proc knows of it.
    pub fn folder(&self) -> PathBuf {
        format!("/proc/{}/task/{}", self.pid, self.thread).into()
    }

    /// All of its threads that are at work, each as a process: what one may do the others needn't. Those at their end make
    /// no more calls, and their filters go before they do.
    pub(super) fn threads(&self) -> io::Result<Vec<Self>> {
        let mut threads = Vec::new();
        for thread in threads_of(self.pid)? {
            let Ok(status) = fs::read_to_string(format!("/proc/{}/task/{thread}/status", self.pid)) else { continue };
            let Some(parsed) = Self::parse(&status).filter(|_| !is_ending(self.pid, thread)) else { continue };
            threads.push(Self { pid: self.pid, thread, started: self.started, namespaces: self.namespaces, ..parsed });
        }
        Ok(threads)
    }

    /// Whether its thread is gone, or at its end.
    pub(super) fn is_ending(&self) -> bool {
        is_ending(self.pid, self.thread)
    }
}

/// The first number of a line of the status file.
fn first(id: u32, name: &str) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok());
    found.ok_or_else(|| io::Error::other(format!("a status without `{name}`")))
}

/// Whether something couldn't be looked at for want of descriptors or memory: that says nothing of whether it is there.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// The ids of a process's threads.
///
/// # Errors
/// It is gone.
pub(super) fn threads_of(pid: u32) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// A thread of a process whose first one has ended.
fn other_thread(pid: u32) -> io::Result<u32> {
    let threads = threads_of(pid)?;
    threads.into_iter().find(|thread| !is_ending(pid, *thread)).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether a thread is gone, or at its end.
pub(super) fn is_ending(pid: u32, thread: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")) {
        Ok(stat) => !is_at_work(&stat),
        Err(error) => matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
    }
}

/// Whether a stat file is of one that isn't at its end.
fn is_at_work(stat: &str) -> bool {
    field(stat, FLAGS).is_none_or(|flags| flags & EXITING == 0)
}

/// By a stat file and /proc/uptime (proc_uptime(5)). Ticks are hundredths of a second (USER_HZ of
/// include/asm-generic/param.h).
fn age(stat: &str, uptime: &str) -> Option<Duration> {
    let seconds: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    let started = Duration::from_millis(field(stat, STARTED)?.checked_mul(10)?);
    Some(Duration::try_from_secs_f64(seconds).ok()?.saturating_sub(started))
}

/// PF_EXITING of include/linux/sched.h.
const EXITING: u64 = 0x4;

/// Fields of a stat file (proc_pid_stat(5)), counted from 1.
const FLAGS: usize = 9;
const STARTED: usize = 22;

/// A number of a stat file. The second field is the command in parentheses, which may hold anything.
fn field(stat: &str, number: usize) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}
