//! As whom the person behind a process logged in (`/proc/PID/loginuid`, proc(5)): set when somebody logs in, inherited by all
//! that he starts, and not changed by `su` or `sudo`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Of so many users it is kept which process of theirs had a socket last.
const MOST: usize = 1024;

static LATELY: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());

/// What the kernel says; none where no login began it.
pub fn parse_loginuid(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// Whether this kernel knows as whom somebody logged in (CONFIG_AUDIT).
pub fn is_known() -> bool {
    Path::new("/proc/self/loginuid").exists()
}

/// As whom the person logged in whose process has the socket of this inode; `uid` is whose it probably is. The outer none: no
/// process has it any more.
///
/// # Errors
/// The processes can't be listed.
pub fn of_socket(inode: u32, uid: u32) -> io::Result<Option<Option<u32>>> {
    let socket = format!("socket:[{inode}]");
    let lately = || LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    // Who calls often does so from one process.
    let last = lately().get(&uid).cloned();
    if let Some(found) = last.and_then(|folder| of_process(&folder, &socket)) {
        return Ok(Some(found));
    }
    let mut others = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        if folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()).is_none() {
            continue;
        }
        match fs::metadata(&folder) {
            Ok(found) if found.uid() == uid => {
                if let Some(found) = of_process(&folder, &socket) {
                    let mut lately = lately();
                    if lately.len() >= MOST {
                        lately.clear();
                    }
                    lately.insert(uid, folder);
                    return Ok(Some(found));
                }
            }
            Ok(_) => others.push(folder),
            // It has ended.
            Err(_) => {}
        }
    }
    // It may have become somebody else since, or been given the socket.
    Ok(others.iter().find_map(|folder| of_process(folder, &socket)))
}

/// As whom a process's person logged in, if it has this socket.
fn of_process(folder: &Path, socket: &str) -> Option<Option<u32>> {
    let mut open = fs::read_dir(folder.join("fd")).ok()?.flatten();
    open.find(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == socket))?;
    Some(parse_loginuid(&fs::read_to_string(folder.join("loginuid")).ok()?))
}

#[cfg(test)]
mod tests;
