//! Where cgroup2 and bpffs are mounted.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::{BpfError, io_error};

const BPFFS: &str = "/sys/fs/bpf";

/// Where cgroup2 is mounted, as /proc/self/mountinfo says; on hosts with both hierarchies it isn't /sys/fs/cgroup.
pub fn cgroup2() -> Result<PathBuf, BpfError> {
    let text = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|source| io_error("reading /proc/self/mountinfo".into(), source))?;
    find(&text, "cgroup2").ok_or_else(|| {
        BpfError::Mount(
            "cgroup2 is not mounted; mount it: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`".into(),
        )
    })
}

/// The first mount of a file system of this type that shows its root (proc_pid_mountinfo(5)).
pub(super) fn find(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (system.split(' ').next()? == kind && root == "/").then(|| PathBuf::from(unescape(point)))
    })
}

/// Undoes the octal escapes of mountinfo (`\040` is a space).
fn unescape(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;

    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(out)
}

/// Makes sure that `pins` is on a bpffs; mounts one at /sys/fs/bpf if that is where it should be and isn't.
pub(super) fn require_bpffs(pins: &Path) -> Result<(), BpfError> {
    let is_bpffs = |path: &Path| file_system(path) == Some(BPF_FS_MAGIC);
    if pins.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
        mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("mode=0700"),
        )
        .map_err(|error| io_error(format!("mounting a bpffs at `{BPFFS}`"), error.into()))?;
    }
    let existing = pins.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if is_bpffs(existing) {
        Ok(())
    } else {
        Err(BpfError::Mount(format!("`{}` is not on a bpffs; give `pins` a folder below `{BPFFS}`", pins.display())))
    }
}

/// Makes sure that `path` is a cgroup of the second version.
pub(super) fn require_cgroup2(path: &Path) -> Result<(), BpfError> {
    if file_system(path) == Some(CGROUP2_SUPER_MAGIC) {
        Ok(())
    } else {
        Err(BpfError::Mount(format!("`{}` is not a cgroup on cgroup2; make it with mkdir", path.display())))
    }
}

fn file_system(path: &Path) -> Option<FsType> {
    statfs(path).ok().map(|found| found.filesystem_type())
}
