//! What the processes of an adopted workload may that would get around the hooks. Nothing is believed of the unit or
//! container that started them: it is read from the processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::filter::{Call, Filters};
use super::find::Tree;
use super::procfs::{Namespaces, Process, is_shortage};
use crate::bpf::FilterReader;

/// Something that is open, in words for the operator: what it is, and how to close it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hole {
    /// What is open.
    pub what: String,
    /// How to close it.
    pub mend: String,
}

impl Hole {
    fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into() }
    }
}

impl std::fmt::Display for Hole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.mend)
    }
}

/// Looks at processes, and remembers what it found: what a process may can only become less, but for what a program that
/// it runs brings, which is a look of its own.
#[derive(Debug)]
pub struct Survey {
    own: Namespaces,
    /// Whether `io_uring` is switched off for all.
    no_io_uring: bool,
    /// None: this kernel doesn't let filters be read.
    reader: Option<FilterReader>,
    seen: BTreeMap<(u32, u64), (Fingerprint, BTreeSet<Hole>)>,
}

/// What a look depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint(Process, String);

/// Capabilities in the host's namespace of users, with which the network can be reached past the hooks, or the hooks
/// themselves, or with which it can become or change what is outside of it (capabilities(7)). Namespaces of mounts and processes
/// are no wall to those: the tree of cgroups may be in them, and a file of the host's can be opened by its handle.
const FOREIGN: [(u32, &str); 18] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (16, "CAP_SYS_MODULE"),
    (17, "CAP_SYS_RAWIO"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (22, "CAP_SYS_BOOT"),
    (27, "CAP_MKNOD"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
    (40, "CAP_CHECKPOINT_RESTORE"),
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (2, "CAP_DAC_READ_SEARCH"),
    (3, "CAP_FOWNER"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (31, "CAP_SETFCAP"),
];

/// The families of sockets that the hooks know: unix, IPv4, IPv6, netlink.
const KNOWN_FAMILIES: [u32; 4] = [1, 2, 10, 16];

/// As many as the kernel has.
const FAMILIES: u32 = 46;

/// How many threads of a process may end while it is looked at.
const TRIES: u32 = 16;

const FAMILIES_MEND: &str = "set `RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK`";

impl Survey {
    /// Looks from the daemon's own namespaces.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn new() -> io::Result<Self> {
        let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        let own = Namespaces::of("self")?;
        Ok(Self { own, no_io_uring: disabled.trim() == "2", reader: None, seen: BTreeMap::new() })
    }

    /// Reads seccomp filters by this from now on.
    pub fn read_filters_by(&mut self, reader: FilterReader) {
        self.reader = Some(reader);
    }

    /// What is open to these processes of the cgroup at `path`. `outside` are the uids of processes of no workload.
    pub fn look(&mut self, tree: &Tree, path: &str, pids: &[u32], outside: &BTreeSet<u32>) -> BTreeSet<Hole> {
        let mut holes = BTreeSet::new();
        let mut uids = BTreeSet::new();
        let mut networks = BTreeMap::new();
        for pid in pids {
            let process = match Process::read(*pid) {
                Ok(process) => process,
                Err(error) if is_shortage(&error) => {
                    let what = format!("process {pid} can't be looked at ({error})");
                    holes.insert(Hole::new(what, "let the daemon have more files and memory (`LimitNOFILE=`)"));
                    continue;
                }
                // One that is gone did what it did under the hooks.
                Err(_) => continue,
            };
            holes.extend(self.of(&process).iter().cloned());
            if process.namespaces.pid == self.own.pid {
                uids.extend(process.uids.iter().copied().filter(|uid| *uid != 0 && outside.contains(uid)));
            }
            holes.extend(leaving(tree, path, &process));
            // One of each network.
            networks.insert(process.namespaces.net, process.folder());
        }
        for folder in networks.into_values() {
            let list = fs::read_to_string(folder.join("net/netlink")).unwrap_or_default();
            if let Some(port) = user_netlink(&list) {
                holes.insert(Hole::new(
                    format!("a process that it can reach listens at NETLINK_USERSOCK, as port {port}"),
                    "end that process, or set `RestrictAddressFamilies=` without AF_NETLINK",
                ));
            }
        }
        for uid in uids {
            holes.insert(Hole::new(
                format!("uid {uid} also runs processes outside of it, which it can take over"),
                "give it a user of its own (`User=`, or `DynamicUser=yes`)",
            ));
        }
        holes
    }

    /// Forgets those that have ended.
    pub fn keep(&mut self, live: &BTreeSet<u32>) {
        self.seen.retain(|(pid, _), _| live.contains(pid));
    }

    fn of(&mut self, process: &Process) -> &BTreeSet<Hole> {
        let fingerprint = fingerprint_of(process);
        let key = (process.pid, process.started);
        let is_new = self.seen.get(&key).is_none_or(|(before, _)| *before != fingerprint);
        if is_new {
            let holes = self.holes(process);
            self.seen.insert(key, (fingerprint, holes));
        }
        &self.seen.entry(key).or_insert_with(|| (fingerprint_of(process), BTreeSet::new())).1
    }

    fn holes(&mut self, process: &Process) -> BTreeSet<Hole> {
        let mut holes = BTreeSet::new();
        for _ in 0..TRIES {
            // Gone in between: it did what it did under the hooks.
            let Ok(threads) = process.threads() else { return holes };
            holes.extend(threads.iter().flat_map(|thread| privileges(thread, &self.own)));
            // What was set before the program began, all have.
            let Some(barest) = threads.into_iter().min_by_key(|thread| thread.filters) else { return holes };
            let read = match &mut self.reader {
                Some(reader) => Filters::of(reader, barest.thread, barest.filters),
                None if barest.filters == 0 => Ok(Filters::default()),
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            match read {
                Ok(filters) => {
                    calls(&filters, self.no_io_uring, &mut holes);
                    return holes;
                }
                // It came to its end meanwhile; another one is the barest now.
                Err(_) if barest.is_ending() => {}
                Err(error) => {
                    let what = format!("what its seccomp filters let through can't be read ({error})");
                    holes.insert(Hole::new(what, "use a kernel with BTF and CONFIG_CHECKPOINT_RESTORE"));
                    return holes;
                }
            }
        }
        let mend = "let it have threads that live longer";
        holes.insert(Hole::new("what its seccomp filters let through can't be read (its threads end too fast)", mend));
        holes
    }
}

/// The executable is part of it: what a program brings in capabilities and filters comes with it.
fn fingerprint_of(process: &Process) -> Fingerprint {
    let exe = fs::read_link(process.folder().join("exe")).map(|path| path.display().to_string());
    Fingerprint(process.clone(), exe.unwrap_or_default())
}

/// The port id of a process that listens for messages of other processes, of a /proc/PID/net/netlink: no cgroup hook sees
/// those, and a filter by families lets them through with NETLINK_ROUTE.
fn user_netlink(list: &str) -> Option<&str> {
    const USERSOCK: &str = "2";
    list.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (protocol, port) = (fields.next()?, fields.next()?);
        // 0 is the kernel.
        (protocol == USERSOCK && port != "0").then_some(port)
    })
}

/// What its uids and capabilities open. Capabilities in a namespace of users of its own are worth nothing outside of it.
fn privileges(process: &Process, own: &Namespaces) -> BTreeSet<Hole> {
    let mut holes = BTreeSet::new();
    // As the daemon sees it: who is only called root in a namespace of users of his own is somebody else.
    if process.uids.contains(&0) {
        holes.insert(Hole::new(
            "it runs as root, who owns the cgroups",
            "give it a user of its own (`User=`; a container: `--user`)",
        ));
    }
    if process.namespaces.user != own.user {
        holes.extend(sharing_a_way_out(process, own));
        return holes;
    }
    // Without no_new_privs what counts is what a set-uid program could have.
    let held = process.capabilities[0] | process.capabilities[1];
    let held = if process.no_new_privs { held } else { held | process.capabilities[2] };
    let named: Vec<&str> = FOREIGN.iter().filter(|(bit, _)| held & (1 << bit) != 0).map(|(_, name)| *name).collect();
    if !named.is_empty() {
        let how = if process.no_new_privs { "it holds" } else { "it holds, or a set-uid program gives it," };
        holes.insert(Hole::new(
            format!("{how} {}", named.join(", ")),
            "set `CapabilityBoundingSet=`, `AmbientCapabilities=` and `NoNewPrivileges=yes` (a container: `--cap-drop ALL`)",
        ));
    }
    if !process.no_new_privs && !process.uids.contains(&0) {
        holes.insert(Hole::new(
            "it can become root by a set-uid program",
            "set `NoNewPrivileges=yes` (a container: `--security-opt no-new-privileges`)",
        ));
    }
    holes
}

/// In a namespace of users of its own it may do what it likes to a network that belongs to that as well. One that has only `lo`
/// leads nowhere; a rootless container's leads out.
fn sharing_a_way_out(process: &Process, own: &Namespaces) -> Option<Hole> {
    const NETWORK: u64 = 1 << 12 | 1 << 13;
    // The host's network belongs to the host's namespace of users.
    if process.namespaces.net == own.net || (process.capabilities[0] | process.capabilities[1]) & NETWORK == 0 {
        return None;
    }
    let devices = fs::read_to_string(process.folder().join("net/dev")).unwrap_or_default();
    let device = other_device(&devices)?;
    Some(Hole::new(
        format!(
            "it holds CAP_NET_RAW or CAP_NET_ADMIN in a namespace of users of its own, and its network has `{device}`"
        ),
        "set `RestrictNamespaces=~user` (a rootless container: `--cap-drop ALL`)",
    ))
}

/// The first device that isn't `lo`, of a /proc/PID/net/dev (proc_pid_net(5)).
fn other_device(list: &str) -> Option<&str> {
    let names = list.lines().skip(2).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim()).find(|name| *name != "lo")
}

/// What its filters let through that the hooks don't see.
fn calls(filters: &Filters, no_io_uring: bool, holes: &mut BTreeSet<Hole>) {
    let call = |number: i64, family| Call { number: number as u32, architecture: NATIVE, family };
    let makes = |family: u32| filters.allow(&call(libc::SYS_socket, Some(family)));
    let mut foreign = (0..FAMILIES).filter(|family| !KNOWN_FAMILIES.contains(family));
    if foreign.any(makes) {
        let vsock = if makes(libc::AF_VSOCK.unsigned_abs()) { " (AF_VSOCK among them)" } else { "" };
        holes.insert(Hole::new(
            format!("it can make sockets of families that the hooks don't see{vsock}"),
            FAMILIES_MEND,
        ));
    }
    let uring = filters.allow(&call(libc::SYS_io_uring_setup, None));
    if uring && !no_io_uring {
        let what = "it can use io_uring, whose sockets no filter sees";
        holes.insert(Hole::new(
            what,
            "set `SystemCallFilter=~io_uring_setup`, or the sysctl `kernel.io_uring_disabled` to 2",
        ));
    }
    for (architecture, number, family) in OTHER_TABLES {
        if filters.allow(&Call { number, architecture, family }) {
            let what = "it can make system calls of another architecture, whose sockets no filter sees";
            holes.insert(Hole::new(what, "set `SystemCallArchitectures=native`"));
        }
    }
}

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
/// `socketcall` and `socket` of i386, `socket` of x32, these with AF_VSOCK.
#[cfg(target_arch = "x86_64")]
const OTHER_TABLES: [(u32, u32, Option<u32>); 3] =
    [(0x4000_0003, 102, None), (0x4000_0003, 359, Some(40)), (NATIVE, 0x4000_0029, Some(40))];
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;
/// `socket` of 32-bit ARM, with AF_VSOCK.
#[cfg(target_arch = "aarch64")]
const OTHER_TABLES: [(u32, u32, Option<u32>); 1] = [(0x4000_0028, 281, Some(40))];

/// Whether a process may write the list of processes of a cgroup above its own: then it can leave
/// (Documentation/admin-guide/cgroup-v2.rst, delegation).
fn leaving(tree: &Tree, path: &str, process: &Process) -> Option<Hole> {
    let uid = process.uids[1];
    if uid == 0 {
        return None;
    }
    let above = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
    let open = above.into_iter().find(|path| {
        let found = fs::metadata(tree.folder(path).join("cgroup.procs"));
        found.is_ok_and(|found| found.uid() == uid || found.mode() & 0o022 != 0)
    })?;
    Some(Hole::new(
        format!("uid {uid} may move processes out of it, into `{open}`"),
        "don't delegate the cgroup above it (`Delegate=`)",
    ))
}

#[cfg(test)]
mod tests;
