//! How many connections of a workload were taken, how many of those came into the record, and how many questions its resolver
//! had. Kept in the workload's folder, so that a daemon that comes after goes on counting: what somebody else had answered
//! before has to show then as well.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The file in the workload's folder.
const FILE: &str = "taken";

/// Where the numbers are in the file, each in eight bytes, little-endian.
const TAKEN: usize = 0;
const RESET: usize = 1;
const LOST: usize = 2;
const UNEXPLAINED: usize = 3;
const NETNS: usize = 4;
const ASKED: usize = 5;
const RECORDED: usize = 6;
const UNRECORDED: usize = 7;
/// 1 as long as the numbers before are all there were. The last: it is cut off where they may not be.
const WHOLE: usize = 8;
const NUMBERS: usize = 9;

/// The numbers of a workload.
#[derive(Debug, Default)]
pub struct Taken {
    numbers: [AtomicU64; NUMBERS],
    /// Of how many an earlier daemon didn't say what became of them in the record.
    forgotten: u64,
    /// Held by who adds to what several threads count.
    adding: Mutex<()>,
    /// None: it is counted only as long as this daemon lives.
    file: Option<File>,
}

impl Taken {
    /// Begins the numbers in the folder of a workload that is new. Only of those that began with their workload, and were written
    /// down ever since, is it known that they are all there were.
    pub fn begin(folder: &Path) {
        let mut bytes = [0; NUMBERS * 8];
        bytes[WHOLE * 8] = 1;
        let mut options = File::options();
        let made = options.write(true).create(true).truncate(true).mode(0o600).open(folder.join(FILE));
        if let Err(error) = made.and_then(|file| file.write_all_at(&bytes, 0)) {
            tracing::warn!(%error, folder = %folder.display(), "a workload's connections can't be compared with the record");
        }
    }

    /// Those in a workload's folder, or 0 where there are none yet.
    pub fn open(folder: &Path) -> Self {
        // A workload of a test needn't have a folder.
        if folder.as_os_str().is_empty() {
            return Self::default();
        }
        Self::read(File::options().read(true).write(true).create(true).truncate(false).mode(0o600), folder)
            .unwrap_or_else(|error| {
                tracing::warn!(%error, folder = %folder.display(), "a workload's connections are counted from the daemon's start");
                miss(folder);
                Self::default()
            })
    }

    /// Those that an earlier daemon left in a workload's folder.
    ///
    /// # Errors
    /// There are none, or they can't be read.
    pub fn left(folder: &Path) -> io::Result<Self> {
        Self::read(File::options().read(true).write(true), folder)
    }

    fn read(options: &std::fs::OpenOptions, folder: &Path) -> io::Result<Self> {
        let file = options.open(folder.join(FILE))?;
        let mut bytes = [0; NUMBERS * 8];
        let mut length = 0;
        // A file that ends early has zeros there.
        loop {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut taken = Self { file: Some(file), ..Self::default() };
        for (number, bytes) in taken.numbers.iter().zip(bytes.as_chunks::<8>().0) {
            number.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        taken.forgotten = taken.under_way();
        Ok(taken)
    }

    /// One was taken.
    pub(crate) fn take(&self) {
        self.set(TAKEN, self.taken() + 1);
    }

    /// One that was taken was reset before it was anything.
    pub(super) fn turn_away(&self) {
        self.set(RESET, self.reset() + 1);
    }

    /// The resolver had a question over UDP.
    pub(super) fn ask(&self) {
        self.set(ASKED, self.asked() + 1);
    }

    /// How many questions over UDP the resolver had.
    pub fn asked(&self) -> u64 {
        self.get(ASKED)
    }

    /// How many were taken, whatever became of them.
    pub fn taken(&self) -> u64 {
        self.get(TAKEN)
    }

    /// How many of those were reset before they were anything.
    pub fn reset(&self) -> u64 {
        self.get(RESET)
    }

    /// How many are in the record, each as a session.
    pub fn recorded(&self) -> u64 {
        self.get(RECORDED)
    }

    /// How many were kept, and never come into the record as sessions: look-ups over TCP, and what couldn't be recorded.
    pub fn unrecorded(&self) -> u64 {
        self.get(UNRECORDED)
    }

    /// Whether these are all since the workload began. Else there may be more of it in the record than was counted.
    pub fn is_whole(&self) -> bool {
        self.get(WHOLE) == 1
    }

    /// How many that this daemon took may come into the record still.
    pub fn under_way(&self) -> u64 {
        // First: each of these was taken before.
        let settled = self.reset() + self.recorded() + self.unrecorded() + self.forgotten;
        self.taken().saturating_sub(settled)
    }

    /// How many came to the listener of a daemon that ended before it took them.
    pub fn lost(&self) -> u64 {
        self.get(LOST)
    }

    /// The cookie of the launched workload's network namespace; 0 if it isn't known.
    pub fn netns(&self) -> u64 {
        self.get(NETNS)
    }

    /// Goes on after an earlier daemon: so many connects had got an answer, of which so many wait still at listeners that were
    /// kept. What was neither taken nor known to be unexplained is lost.
    pub fn resume(&self, established: u64, waiting: u64) {
        let known = self.taken() + self.get(UNEXPLAINED) + waiting;
        self.set(LOST, established.saturating_sub(known));
    }

    /// Notes how many connections are known to be unexplained.
    pub fn note_unexplained(&self, count: u64) {
        if self.get(UNEXPLAINED) != count {
            self.set(UNEXPLAINED, count);
        }
    }

    /// Notes the cookie of the launched workload's network namespace.
    pub fn note_netns(&self, cookie: u64) {
        self.set(NETNS, cookie);
    }

    /// Whoever sees what became of a connection sees that it was taken as well.
    fn get(&self, at: usize) -> u64 {
        self.numbers[at].load(Ordering::Acquire)
    }

    /// One more of what several threads count: one after the other, so that the file never goes back.
    fn add(&self, at: usize) {
        let _alone = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        self.set(at, self.get(at) + 1);
    }

    /// Each number has one thread at a time that writes it.
    fn set(&self, at: usize, value: u64) {
        self.numbers[at].store(value, Ordering::Release);
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&value.to_le_bytes(), at as u64 * 8)
        {
            tracing::warn!(%error, "that a workload's connection was taken can't be noted down");
            self.numbers[WHOLE].store(0, Ordering::Release);
            // Takes no room, where there is none. Whoever reads it later has to know as well.
            if let Err(error) = file.set_len(WHOLE as u64 * 8) {
                tracing::warn!(%error, "nor that it isn't");
            }
        }
    }
}

/// Notes that what the file in a folder says isn't all any more, without opening it. Where there is none nothing says that it is.
fn miss(folder: &Path) {
    let _ = nix::unistd::truncate(&folder.join(FILE), WHOLE as i64 * 8);
}

/// Goes with a connection that was taken until it is in the record. Whichever is dropped before that never will be there.
#[derive(Debug)]
pub struct Ticket(Option<Arc<Taken>>);

impl Ticket {
    /// One for a connection that is counted there, or that isn't counted.
    pub(crate) fn new(taken: Option<Arc<Taken>>) -> Self {
        Self(taken)
    }

    /// The connection is in the record.
    pub fn recorded(mut self) {
        if let Some(taken) = self.0.take() {
            taken.add(RECORDED);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(taken) = self.0.take() {
            taken.add(UNRECORDED);
        }
    }
}

#[cfg(test)]
mod tests;
