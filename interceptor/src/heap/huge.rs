//! Huge pages for the heap of a daemon that is busy. Blocks that go with each other lie on pages of 4 KiB all over a heap
//! that thousands of connections have filled, more of them than the processor remembers the places of; looking them up
//! again is a tenth of a request's time. So whole stretches of it that are in use anyway are moved onto one page each, which the kernel does at
//! once when it is asked (`MADV_COLLAPSE`, since Linux 6.1; `mm/khugepaged.c`). What is freed there and given back isn't the
//! daemon's any more; the system splits the page that it was part of when it needs the memory.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::unistd::{SysconfVar, sysconf};

/// Where the kernel says whether it is to use huge pages: `always`, `madvise` or `never`.
const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// The size of one, in bytes.
const SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
/// A stretch is moved when at most one in so many of its pages would be new memory.
const SPARE: usize = 4;
/// How many stretches are looked at in one go: moving one takes up to a millisecond.
const AT_ONCE: usize = 64;
/// That a page is there, in an entry of 8 bytes (`Documentation/admin-guide/mm/pagemap.rst`).
const PRESENT: u64 = 1 << 63;

/// What moves the heap onto huge pages.
#[derive(Debug)]
pub struct HugePages {
    /// The sizes in bytes of a huge page and of another one.
    huge: usize,
    page: usize,
    /// `/proc/self/pagemap`.
    pages: File,
    /// The address where the next look begins.
    next: usize,
}

impl HugePages {
    /// None where the system has none, or is told never to use them.
    ///
    /// # Errors
    /// When the kernel doesn't say what there is in memory.
    pub fn new() -> io::Result<Option<Self>> {
        if !is_wanted() {
            return Ok(None);
        }
        let huge = fs::read_to_string(SIZE)?.trim().parse().map_err(io::Error::other)?;
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| usize::try_from(size).ok());
        let page = page.filter(|&page| page > 0 && huge > page).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Some(Self { huge, page, pages: File::open("/proc/self/pagemap")?, next: 0 }))
    }

    /// Moves stretches that are in use onto huge pages, at most 64 of those that weren't looked at longest, and says how
    /// many of them lie there now. One that the kernel can't or won't move stays as it is, and so do all from when the system
    /// is told never to.
    ///
    /// # Errors
    /// When the kernel doesn't say what there is in memory.
    pub fn gather(&mut self) -> io::Result<usize> {
        if !is_wanted() {
            return Ok(0);
        }
        let stretches = self.stretches()?;
        let from = stretches.partition_point(|stretch| stretch.start < self.next);
        let mut moved = 0;
        for stretch in stretches[from..].iter().chain(&stretches[..from]).take(AT_ONCE) {
            self.next = stretch.end;
            if !self.is_in_use(stretch)? {
                continue;
            }
            // SAFETY: what the memory holds doesn't change, wherever it lies and whoever uses it meanwhile.
            match unsafe { libc::madvise(stretch.start as *mut libc::c_void, self.huge, libc::MADV_COLLAPSE) } {
                0 => moved += 1,
                // No huge page is to be had: the next one won't be either.
                _ if io::Error::last_os_error().kind() == io::ErrorKind::OutOfMemory => break,
                _ => {}
            }
        }
        Ok(moved)
    }

    /// What a huge page could take the place of, in the order of addresses: the heap, for little else is anonymous and as
    /// large.
    fn stretches(&self) -> io::Result<Vec<Range<usize>>> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let stretches = maps.lines().filter_map(anonymous).flat_map(|map| {
            let first = map.start.next_multiple_of(self.huge);
            (first..map.end).step_by(self.huge).map(|at| at..at + self.huge).take_while(move |at| at.end <= map.end)
        });
        Ok(stretches.collect())
    }

    /// Whether enough of it is there.
    fn is_in_use(&self, stretch: &Range<usize>) -> io::Result<bool> {
        let count = self.huge / self.page;
        let mut entries = vec![0; count * 8];
        self.pages.read_exact_at(&mut entries, (stretch.start / self.page * 8) as u64)?;
        let (entries, _) = entries.as_chunks::<8>();
        let there = entries.iter().filter(|&&entry| u64::from_ne_bytes(entry) & PRESENT != 0).count();
        Ok(there >= count - count / SPARE)
    }
}

/// Whether the system has huge pages, and isn't told never to use them.
fn is_wanted() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|enabled| !enabled.contains("[never]"))
}

/// The addresses of a line of `/proc/self/maps`, if it is memory of the process's own that it may write to and that has
/// no name or is the heap: no file, no stack of the first thread.
fn anonymous(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let [permissions, _, _, inode] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    if permissions != "rw-p" || inode != "0" || !matches!(fields.next(), None | Some("[heap]")) {
        return None;
    }
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests;
