//! Everything on this host that fixtures make, whoever made it: to be taken before and after all tests and compared.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{PINS, ROOMS, cgroup2};

/// How the names begin of all folders, pins and cgroups that fixtures make.
const PREFIX: &str = "interceptor";

/// The programs of Interceptor, by the names that the kernel has of them (at most 15 bytes).
const PROGRAMS: [&str; 22] = [
    "bind4",
    "bind6",
    "changed",
    "connect4",
    "connect6",
    "create",
    "device",
    "egress",
    "filters",
    "getpeername4",
    "getpeername6",
    "made",
    "option",
    "publish",
    "recvmsg4",
    "recvmsg6",
    "released",
    "sendmsg4",
    "sendmsg6",
    "steer",
    "unix_connect",
    "unix_sendmsg",
];

/// A line for each process, cgroup, pin, folder, mount and program of Interceptor's or of a fixture's. `built` is the folder
/// of the binaries that tests run.
///
/// # Errors
/// cgroup2 isn't mounted, or the kernel doesn't say which programs it has (needs root).
pub fn take(built: &Path) -> io::Result<BTreeSet<String>> {
    let cgroups = cgroup2().map_err(io::Error::other)?;
    let mut found = BTreeSet::new();
    for (what, folder) in [("cgroup", cgroups.as_path()), ("pins", Path::new(PINS)), ("files", Path::new(ROOMS))] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
        found.extend(ours.map(|entry| format!("{what} {}", entry.path().display())));
    }
    let places = [Path::new(ROOMS), Path::new(PINS)].map(|folder| folder.join(PREFIX).display().to_string());
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let ours = points.filter(|point| places.iter().any(|place| point.starts_with(place.as_str())));
    found.extend(ours.map(|point| format!("mount {point}")));
    found.extend(processes(built)?);
    found.extend(programs()?);
    Ok(found)
}

/// Processes in a cgroup of a fixture's, or of a binary that was built here or copied by one; but for this one.
fn processes(built: &Path) -> io::Result<Vec<String>> {
    let places = [Path::new(ROOMS).join(PREFIX), built.to_owned()].map(|place| place.display().to_string());
    let mut found = Vec::new();
    for pid in fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let in_cgroup = cgroups.lines().any(|line| line.strip_prefix("0::/").is_some_and(|of| of.starts_with(PREFIX)));
        let program: PathBuf = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let of_ours = places.iter().any(|place| program.display().to_string().starts_with(place.as_str()));
        if pid != std::process::id() && (in_cgroup || of_ours) {
            found.push(format!("process {pid} {}", program.display()));
        }
    }
    Ok(found)
}

/// `BPF_PROG_GET_NEXT_ID`, `BPF_PROG_GET_FD_BY_ID`, `BPF_OBJ_GET_INFO_BY_FD` (include/uapi/linux/bpf.h).
const NEXT: i64 = 11;
const OPEN: i64 = 13;
const INFO: i64 = 15;

/// Where the name is in `struct bpf_prog_info`, and how long it is with its end.
const NAME: usize = 64;
const NAME_BYTES: usize = 16;

fn programs() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut last = 0;
    loop {
        // The id to begin after, and room for the next one.
        let mut attributes = [words(last, 0), 0];
        if let Err(error) = bpf(NEXT, &mut attributes) {
            return if error.raw_os_error() == Some(libc::ENOENT) { Ok(found) } else { Err(error) };
        }
        [_, last] = halves(attributes[0]);
        // It may be gone again.
        if let Ok(name) = name_of(last)
            && PROGRAMS.contains(&name.as_str())
        {
            found.push(format!("program {last} {name}"));
        }
    }
}

fn name_of(id: u32) -> io::Result<String> {
    let descriptor = bpf(OPEN, &mut [words(id, 0), 0])?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: it was just made, and nobody else has it.
    let program = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let mut info = [0_u8; 128];
    // The descriptor, how much there is room for, and where.
    let first = words(program.as_raw_fd().cast_unsigned(), info.len() as u32);
    bpf(INFO, &mut [first, info.as_mut_ptr() as u64])?;
    let name = info[NAME..NAME + NAME_BYTES].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Two words of 32 bits as they lie in memory, one after the other.
fn words(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn halves(word: u64) -> [u32; 2] {
    let bytes = word.to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [half(0), half(4)]
}

fn bpf(command: i64, attributes: &mut [u64]) -> io::Result<i64> {
    // SAFETY: the attributes, and what they point to, live until the call returns, and have the length that is given.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(&*attributes)) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
