//! How names are looked up inside: by the resolver on the workload's own loopback, and by no service's socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::mounts::{self, cover_with, is_missing};
use super::{OURS, PRIVATE};

/// The resolver answers at once or not at all; two attempts are for a daemon that restarts meanwhile.
const RESOLV: &str = "nameserver 127.0.0.1\nsearch .\noptions timeout:5 attempts:2 edns0\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
const HOSTS_LINE: &str = "hosts: files dns";
const LINKS: usize = 16;

/// The files, and where they go.
pub(super) struct Names(Vec<(PathBuf, String)>);

impl Names {
    /// Reads what the host says, and settles what is said inside.
    pub(super) fn read() -> io::Result<Self> {
        let mut files = vec![(final_place("/etc/resolv.conf")?, RESOLV.into())];
        let hostname = nix::unistd::gethostname()?.into_string().unwrap_or_default();
        let own = if hostname.is_empty() { String::new() } else { format!("127.0.1.1 {hostname}\n") };
        files.push((final_place("/etc/hosts")?, format!("{HOSTS}{own}")));
        match fs::read_to_string("/etc/nsswitch.conf") {
            Ok(text) => files.push((final_place("/etc/nsswitch.conf")?, only_dns(&text))),
            // The C library's own default asks DNS.
            Err(e) if is_missing(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(Self(files))
    }

    /// Shows the files at their places. One in a private directory is simply written there; one that the host doesn't have
    /// can't be shown anywhere, and the C library's default (the resolver on loopback) is what it would say.
    pub(super) fn place(&self) -> io::Result<()> {
        for (path, text) in &self.0 {
            if PRIVATE.iter().any(|(private, ..)| path.starts_with(private)) {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
                write(path, text)?;
                continue;
            }
            match mounts::place(path) {
                Err(e) if is_missing(&e) => {}
                place => {
                    let copy = Path::new(OURS).join(path.file_name().unwrap_or_default());
                    write(&copy, text)?;
                    cover_with(&copy, &place?)?;
                }
            }
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// The `nsswitch.conf` given, with `hosts` looked up in the file and by DNS only (nsswitch.conf(5)).
fn only_dns(text: &str) -> String {
    let other = |line: &&str| !line.trim_start().starts_with("hosts:");
    text.lines().filter(other).chain([HOSTS_LINE]).flat_map(|line| [line, "\n"]).collect()
}

/// Where a path leads after all links, also if nothing is there: /etc/resolv.conf is often a link into /run.
fn final_place(path: &str) -> io::Result<PathBuf> {
    let mut path = PathBuf::from(path);
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = normal(&path.parent().unwrap_or(Path::new("/")).join(target)),
            // Not a link (EINVAL), or nothing: as far as it goes. What its parents are has no links left, if it is there.
            Err(_) => return Ok(fs::canonicalize(&path).unwrap_or(path)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
