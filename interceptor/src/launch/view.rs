//! The filesystem as a workload sees it: the host's, with what isn't the workload's covered. Everything is a mount in the
//! workload's own mount namespace; nothing on the disk changes, but for two empty cache directories in a guarded home. The
//! tables say what is covered and why; `home` does the user's home, `mounts` the mounting, `trust` finds certificate bundles.

use std::ffi::CString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::environment::{AUTHORITY, BUNDLE, CERTIFICATES, runtime_folder};
use super::plan::{Failure, Plan, failing, path_bytes, planned_path};

mod home;
mod mounts;
mod names;
mod trust;

use mounts::{Captured, cover_with, is_missing};

/// Directories that a workload has its own, empty ones of: path, mode, reason.
const PRIVATE: [(&str, &str, &str); 4] = [
    ("/tmp", "1777", "other programs' files and sockets: X11, editors, agents"),
    ("/var/tmp", "1777", "as /tmp"),
    ("/run", "0755", "the sockets of services: containers, D-Bus, databases, resolvers, key agents"),
    ("/var/run", "0755", "as /run, where it isn't a link to it"),
];

/// Device files that are kept: none leads to a device.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in /dev that programs expect.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Filesystems through which one sees or changes the host, wherever else they are mounted (a chroot's /proc shows all
/// processes).
const KERNEL_FILESYSTEMS: [&str; 17] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "bpf",
    "debugfs",
    "tracefs",
    "securityfs",
    "devpts",
    "devtmpfs",
    "mqueue",
    "nsfs",
    "pstore",
    "configfs",
    "efivarfs",
    "binfmt_misc",
    "fusectl",
];

/// Places whose kernel filesystems are replaced as a whole.
const REPLACED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Where things of ours are inside.
const OURS: &str = "/run/interceptor";
const EMPTY_DIRECTORY: &str = "/run/interceptor/empty";
const EMPTY_FILE: &str = "/run/interceptor/nothing";

/// Builds the view around process 1.
pub(super) fn build(plan: &Plan) -> Result<(), Failure> {
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(failing("make the mounts private"))?;
    // While the host's files can still be seen.
    let strays = stray_kernel_mounts().map_err(failing("read the list of mounts"))?;
    let names = names::Names::read().map_err(failing("read the name service's files"))?;
    let sockets = capture_sockets(plan)?;
    let devices = DEVICES.iter().map(|name| (*name, mounts::capture(&Path::new("/dev").join(name))));
    let devices: Vec<_> = devices.collect();
    let bundle = capture_trust(&plan.bundle)?;
    let authority = capture_trust(&plan.authority)?;

    for (path, mode, _) in PRIVATE {
        private(Path::new(path), mode).map_err(failing(format!("make a private `{path}`")))?;
    }
    make_runtime(plan).map_err(failing("make the runtime folders"))?;
    for (place, captured) in [(BUNDLE, bundle), (AUTHORITY, authority)] {
        captured.place_read_only(Path::new(place)).map_err(failing(format!("show `{place}`")))?;
    }
    make_devices(devices).map_err(failing("make a private `/dev`"))?;
    mounts::filesystem(c"sysfs", "/sys", &[], mounts::INERT | libc::MOUNT_ATTR_RDONLY)
        .map_err(failing("mount `/sys`"))?;
    mounts::filesystem(c"proc", "/proc", &[], mounts::INERT).map_err(failing("mount `/proc`"))?;

    // What lies in a private folder is hidden by that, and our own things are there by now: the daemon's runtime folder may
    // have the same name.
    let hidden = plan.hidden.iter().map(|path| planned_path(path)).filter(|path| !is_private(path));
    for path in strays.iter().cloned().chain(hidden) {
        hide(&path).map_err(failing(format!("hide `{}`", path.display())))?;
    }
    names.place().map_err(failing("place the name service's files"))?;
    trust::place(plan).map_err(failing("place the certificate bundle"))?;
    home::place(plan)?;
    for (path, socket) in sockets {
        socket.place(&path).map_err(failing(format!("show the socket `{}`", path.display())))?;
    }
    Ok(())
}

/// Whether a path leads into a folder that the workload has its own of.
fn is_private(path: &Path) -> bool {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    PRIVATE.iter().any(|(private, ..)| real.starts_with(private))
}

/// Why a path can't be seen inside, if the view is the reason.
pub(super) fn unseen(plan: &Plan, path: &Path) -> Option<String> {
    let private = PRIVATE.iter().find(|(private, ..)| path.starts_with(private));
    private
        .map(|(private, ..)| format!("`{private}` is private to the workload"))
        .or_else(|| {
            plan.hidden.iter().any(|hidden| path.starts_with(planned_path(hidden))).then(|| "it is hidden".into())
        })
        .or_else(|| home::unseen(plan, path))
}

/// Sockets that the workload may connect to. They are shown wherever they lie.
fn capture_sockets(plan: &Plan) -> Result<Vec<(PathBuf, Captured)>, Failure> {
    let capture = |path: &Vec<u8>| {
        let path = planned_path(path);
        let next = "start its service first, or take it out of the workload's `unix`";
        let refuse = |e: io::Error| Failure::new(format!("socket `{}`: {e}", path.display()), next);
        let real = fs::canonicalize(&path).map_err(refuse)?;
        let captured = mounts::capture(&real).map_err(refuse)?;
        Ok((path, captured))
    };
    plan.unix.iter().map(capture).collect()
}

fn capture_trust(path: &[u8]) -> Result<Captured, Failure> {
    let path = planned_path(path);
    let refuse = |e: io::Error| {
        Failure::new(
            format!("certificates `{}`: {e}", path.display()),
            "see `interceptor doctor` and `interceptor ca show`",
        )
    };
    let everybody = fs::metadata(&path).map_err(refuse)?.permissions().mode() & 0o444 == 0o444;
    if !everybody {
        return Err(refuse(io::Error::other("not readable by everybody")));
    }
    mounts::capture(&path).map_err(refuse)
}

/// Mounts an empty directory over a path, unless it is a link into another private one.
fn private(path: &Path, mode: &str) -> io::Result<()> {
    let real = match fs::canonicalize(path) {
        Err(e) if is_missing(&e) => return Ok(()),
        other => other?,
    };
    if real != path && PRIVATE.iter().any(|(private, ..)| real.starts_with(private)) {
        return Ok(());
    }
    let mode = CString::new(mode)?;
    mounts::filesystem(c"tmpfs", &real, &[(c"mode", &mode)], libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)
}

fn make_runtime(plan: &Plan) -> io::Result<()> {
    let directory = |path: &str, mode| {
        DirBuilder::new().recursive(true).mode(mode).create(path)?;
        // The mode above is subject to the umask.
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    directory("/run/lock", 0o1777)?;
    directory("/run/user", 0o755)?;
    let own = runtime_folder(plan.uid);
    directory(&own, 0o700)?;
    std::os::unix::fs::chown(&own, Some(plan.uid), Some(plan.gid))?;
    for path in [OURS, CERTIFICATES, EMPTY_DIRECTORY] {
        directory(path, 0o755)?;
    }
    fs::write(EMPTY_FILE, "")?;
    fs::set_permissions(EMPTY_FILE, Permissions::from_mode(0o444))
}

fn make_devices(devices: Vec<(&str, io::Result<Captured>)>) -> io::Result<()> {
    let quiet = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    mounts::filesystem(c"tmpfs", "/dev", &[(c"mode", c"0755"), (c"size", c"64k")], quiet)?;
    for (name, device) in devices {
        match device {
            Err(e) if is_missing(&e) => {}
            device => device?.place(&Path::new("/dev").join(name))?,
        }
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, Path::new("/dev").join(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(Path::new("/dev").join(name))?;
    }
    // 5 is the group `tty` everywhere.
    let terminals = [(c"mode", c"0620"), (c"ptmxmode", c"0666"), (c"gid", c"5")];
    mounts::filesystem(c"devpts", "/dev/pts", &terminals, quiet)?;
    mounts::filesystem(c"tmpfs", "/dev/shm", &[(c"mode", c"1777")], mounts::INERT)?;
    match mounts::filesystem(c"mqueue", "/dev/mqueue", &[], mounts::INERT) {
        // A kernel without message queues.
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// Covers what lies at a path with nothing.
fn hide(path: &Path) -> io::Result<()> {
    match mounts::place(path) {
        Err(e) if is_missing(&e) => Ok(()),
        place => hide_place(&place?),
    }
}

/// Covers what a descriptor stands for with an empty directory or file.
fn hide_place(place: &OwnedFd) -> io::Result<()> {
    let directory = mounts::is_directory(place)?;
    cover_with(Path::new(if directory { EMPTY_DIRECTORY } else { EMPTY_FILE }), place)
}

/// Mounts of kernel filesystems outside the places that are replaced.
fn stray_kernel_mounts() -> io::Result<Vec<PathBuf>> {
    Ok(strays(&fs::read("/proc/self/mountinfo")?))
}

/// Finds them in the text of mountinfo (proc_pid_mountinfo(5)).
fn strays(mountinfo: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b' ');
        let Some(path) = fields.nth(4).map(unescape) else { continue };
        // Optional fields end with a lone hyphen; the type follows.
        let kind = fields.skip_while(|field| *field != b"-").nth(1).unwrap_or_default();
        let kernel = KERNEL_FILESYSTEMS.iter().any(|known| known.as_bytes() == kind);
        let covered = REPLACED.iter().chain(PRIVATE.iter().map(|(path, ..)| path)).any(|place| path.starts_with(place));
        if kernel && !covered {
            found.push(path);
        }
    }
    found
}

/// Undoes mountinfo's escapes: a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// A path as a C string.
fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path_bytes(path))?)
}

#[cfg(test)]
mod tests;
