//! Who may have written a file. The daemon reads its configuration, its policies and its roots only where root (or the
//! user it runs as) alone could have written them: each folder on the way is opened, judged, and the next one opened
//! from there, so that nothing can be swapped between the look and the read.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::ConfigError;

/// Whether files are judged before they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// For the daemon: the file and every folder above it belong to root or to the daemon's user, and nobody else may
    /// write them. A link is followed where it belongs to them as well, and each step behind it is judged.
    Daemon,
    /// For checks that act on nothing.
    Unchecked,
}

/// The policy files in `dir`, `*.cedar`, as (path, text), sorted by path. Hidden files are left out.
///
/// # Errors
///
/// The folder or a file can't be read, isn't trusted, isn't UTF-8, or is larger than 4 MiB.
pub fn policy_sources(dir: &Path, trust: Trust) -> Result<Vec<(String, String)>, ConfigError> {
    let failed = |why: io::Error| ConfigError::Read { path: dir.to_path_buf(), why };
    // Held until the folder is read: the path in /proc leads to the very folder that was judged.
    let place = if trust == Trust::Daemon { Some(walk(dir)?) } else { None };
    let entries = match &place {
        None => std::fs::read_dir(dir),
        Some(place) => {
            private(&fstat(place).map_err(|why| failed(why.into()))?, dir)?;
            std::fs::read_dir(format!("/proc/self/fd/{}", place.as_raw_fd()))
        }
    }
    .map_err(failed)?;
    let mut paths = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".cedar") && !bytes.starts_with(b".") {
            paths.push(dir.join(name));
        }
    }
    paths.sort();
    paths.iter().map(|path| Ok((path.display().to_string(), read(path, trust)?))).collect()
}

/// As [`policy_sources`], of a folder that needn't exist.
///
/// # Errors
///
/// As there; that there is no folder is none.
pub fn break_glass_sources(dir: &Path, trust: Trust) -> Result<Vec<(String, String)>, ConfigError> {
    match policy_sources(dir, trust) {
        Err(ConfigError::Read { why, .. }) if why.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The bytes of a secret, at most 64 KiB: a file that only root, or the daemon's own user, can read or write, and that
/// nobody else could have put there. They are wiped when they are dropped.
///
/// # Errors
///
/// The file can't be read, isn't trusted, others can read it, or it is too large.
pub fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    const LARGEST_SECRET: usize = 64 << 10;
    let failed = |why: io::Error| ConfigError::Read { path: path.to_path_buf(), why };
    let (place, stat) = regular(path)?;
    if stat.st_mode & 0o077 != 0 {
        let why = format!("others may read it (mode {:04o}); `chmod 600` it", stat.st_mode & 0o7777);
        return Err(ConfigError::Untrusted { path: path.to_path_buf(), why });
    }
    let mut file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(failed)?;
    // Never grown, so that no copy stays behind in memory that was given back.
    let mut bytes = Zeroizing::new(vec![0; LARGEST_SECRET + 1]);
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if length > LARGEST_SECRET {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 KiB")));
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// The text of a file that nobody besides root, or the daemon's own user, could have written or put there.
///
/// # Errors
///
/// The file can't be read, isn't trusted, isn't UTF-8, or is larger than 4 MiB.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    read(path, Trust::Daemon)
}

/// Checks a program that the daemon is to run: a file that nobody besides root, or the daemon's own user, could have
/// written or put there.
///
/// # Errors
///
/// It can't be found, isn't a file that may be executed, or isn't trusted.
pub fn program(path: &Path) -> Result<(), ConfigError> {
    let (_place, stat) = regular(path)?;
    if stat.st_mode & 0o111 == 0 {
        let why = io::Error::new(io::ErrorKind::PermissionDenied, "it isn't executable");
        return Err(ConfigError::Read { path: path.to_path_buf(), why });
    }
    Ok(())
}

/// Opens (O_PATH) a regular file that nobody else could have written or put there.
fn regular(path: &Path) -> Result<(OwnedFd, FileStat), ConfigError> {
    let failed = |why: io::Error| ConfigError::Read { path: path.to_path_buf(), why };
    let place = walk(path)?;
    let stat = fstat(&place).map_err(|why| failed(why.into()))?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a regular file")));
    }
    private(&stat, path)?;
    Ok((place, stat))
}

/// The text of the file at `path`.
pub(super) fn read(path: &Path, trust: Trust) -> Result<String, ConfigError> {
    let failed = |why: io::Error| ConfigError::Read { path: path.to_path_buf(), why };
    let file = match trust {
        Trust::Unchecked => File::open(path).map_err(failed)?,
        Trust::Daemon => {
            let (place, _stat) = regular(path)?;
            // The very inode that was judged: its name may mean another one by now.
            File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(failed)?
        }
    };
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 4 MiB")));
    }
    Ok(text)
}

const LARGEST: u64 = 4 << 20;

/// Links on one way; more are a loop.
const LINKS: usize = 16;

/// Opens what `path` names (O_PATH), having judged every folder and link on the way.
fn walk(path: &Path) -> Result<OwnedFd, ConfigError> {
    let failed = |why: io::Error| ConfigError::Read { path: path.to_path_buf(), why };
    let absolute = std::path::absolute(path).map_err(failed)?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = open("/", flags, Mode::empty()).map_err(|why| failed(why.into()))?;
    let mut way = vec![(root, PathBuf::from("/"))];
    let mut ahead: VecDeque<OsString> = parts(&absolute).collect();
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == "/" {
            way.truncate(1);
            continue;
        }
        if part == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let Some((above, above_path)) = way.last() else { break };
        let here = above_path.join(&part);
        let found = openat(above, part.as_os_str(), flags, Mode::empty()).map_err(|why| failed(why.into()))?;
        let stat = fstat(&found).map_err(|why| failed(why.into()))?;
        judge(&stat, &here)?;
        if kind(&stat) != SFlag::S_IFLNK {
            way.push((found, here));
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(failed(io::Error::other("too many symbolic links on the way")));
        }
        let target = readlinkat(&found, "").map_err(|why| failed(why.into()))?;
        for part in parts(Path::new(&target)).collect::<Vec<_>>().into_iter().rev() {
            ahead.push_front(part);
        }
    }
    way.pop().map(|(fd, _)| fd).ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter(|part| *part != Component::CurDir).map(|part| part.as_os_str().to_owned())
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether what is at `path` could lead somewhere else tomorrow by the will of somebody who isn't trusted.
fn judge(stat: &FileStat, path: &Path) -> Result<(), ConfigError> {
    let trusted = [0, geteuid().as_raw()];
    if !trusted.contains(&stat.st_uid) {
        let why = format!("it belongs to uid {}; `chown root` it", stat.st_uid);
        return Err(ConfigError::Untrusted { path: path.to_path_buf(), why });
    }
    // In a folder with the sticky bit (/tmp) others can't replace what belongs to somebody else.
    let sticky = kind(stat) == SFlag::S_IFDIR && stat.st_mode & 0o1000 != 0;
    if kind(stat) == SFlag::S_IFLNK || sticky { Ok(()) } else { private(stat, path) }
}

fn private(stat: &FileStat, path: &Path) -> Result<(), ConfigError> {
    if stat.st_mode & 0o022 == 0 {
        return Ok(());
    }
    let why = format!("others may write it (mode {:04o}); `chmod go-w` it", stat.st_mode & 0o7777);
    Err(ConfigError::Untrusted { path: path.to_path_buf(), why })
}

#[cfg(test)]
mod tests;
