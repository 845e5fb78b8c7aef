//! Disk space that is kept for the record's own last words: a file that is given up when the disk is full, so that the
//! outage and the denials can still be recorded, and is made again when there is room. Not here: what is denied
//! meanwhile (`backlog`), and who tells it (`writer`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;

use super::RecordError;

/// The space, if it is there.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    /// What has to be free besides it before it is made again: room for the journals to go on.
    beside: u64,
    held: bool,
}

impl Reserve {
    /// Takes `bytes` of space as the file `path`; none for 0. Where there isn't as much, the record goes without, which is
    /// told to the operator.
    pub(super) fn take(path: PathBuf, bytes: u64, beside: u64) -> Self {
        let mut reserve = Self { path, bytes, beside, held: false };
        let made = if bytes == 0 { remove(&reserve.path) } else { reserve.make(0) };
        match made {
            Ok(()) => reserve.held = bytes > 0,
            Err(error) => {
                let path = reserve.path.display();
                tracing::warn!(%path, bytes, %error, "the disk has no room for the record's reserve; it goes without");
            }
        }
        reserve
    }

    /// Whether there is none, though some is wanted.
    pub(super) fn is_missing(&self) -> bool {
        self.bytes > 0 && !self.held
    }

    /// Gives the space up. Gives whether there was any.
    pub(super) fn release(&mut self) -> bool {
        if !self.held {
            return false;
        }
        self.held = false;
        match remove(&self.path) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the record's reserve can't be given up");
                false
            }
        }
    }

    /// Takes the space again, if there is as much and room beside it. Gives whether it is there.
    pub(super) fn retake(&mut self) -> bool {
        self.held = self.held || self.make(self.beside).is_ok();
        self.held
    }

    fn make(&self, beside: u64) -> io::Result<()> {
        let length = i64::try_from(self.bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&self.path)?;
        let made = (|| {
            fallocate(&file, FallocateFlags::empty(), 0, length)?;
            file.set_len(self.bytes)?;
            if room(&file)? < beside { Err(Errno::ENOSPC.into()) } else { Ok(()) }
        })();
        if made.is_err() {
            // Half of it would only be in the way.
            let _gone = remove(&self.path);
        }
        made
    }
}

/// The bytes that are free on the disk of a file.
fn room(file: &File) -> io::Result<u64> {
    let disk = fstatvfs(file)?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether an error says that the disk is full.
pub(super) fn is_no_room(error: &RecordError) -> bool {
    match error {
        RecordError::File { source, .. } | RecordError::Failed(source) => {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        RecordError::Database(rusqlite::Error::SqliteFailure(failure, _)) => {
            failure.code == rusqlite::ErrorCode::DiskFull
        }
        _ => false,
    }
}
