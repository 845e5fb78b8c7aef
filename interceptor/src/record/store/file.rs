//! What the database's file is like, without looking into it: which one it is, and whether it was written since it was
//! looked at last.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells a file from every other one: its device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::record) struct FileId(u64, u64);

impl FileId {
    /// Of the file that `path` names now.
    pub(in crate::record) fn of(path: &Path) -> io::Result<Self> {
        Found::at(path).map(|found| found.id)
    }
}

/// A file as it was found: two of one file that differ have a write between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Which one it is.
    pub(super) id: FileId,
    /// When it was written last, and how long it was then.
    written: (i64, i64, u64),
}

impl Found {
    /// The file that `path` names now.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(Self::from)
    }
}

impl From<Metadata> for Found {
    fn from(found: Metadata) -> Self {
        Self { id: FileId(found.dev(), found.ino()), written: (found.mtime(), found.mtime_nsec(), found.len()) }
    }
}
