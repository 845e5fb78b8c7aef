use std::ptr::{NonNull, null_mut};

use nix::sys::prctl::set_thp_disable;

use super::*;

/// Memory of the test's own, which begins where a huge page could; it is unmapped in the end.
struct Memory {
    whole: *mut libc::c_void,
    length: usize,
    at: usize,
}

impl Memory {
    /// Room for so many stretches, of which every page is touched but each `skipped`th.
    fn touched(pages: &HugePages, stretches: usize, skipped: usize) -> Self {
        let length = (stretches + 1) * pages.huge;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses a place where nothing is.
        let whole = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
        assert_ne!(whole, libc::MAP_FAILED);
        let memory = Self { whole, length, at: (whole as usize).next_multiple_of(pages.huge) };
        // A system that uses huge pages everywhere isn't to do so here by itself.
        set_thp_disable(true).unwrap();
        for number in 0..stretches * pages.huge / pages.page {
            if number % skipped != 0 {
                memory.page(pages, number).iter_mut().for_each(|byte| *byte = number as u8);
            }
        }
        set_thp_disable(false).unwrap();
        memory
    }

    #[expect(clippy::mut_from_ref, reason = "each page is asked for once at a time")]
    fn page(&self, pages: &HugePages, number: usize) -> &mut [u8] {
        let page = NonNull::new((self.at + number * pages.page) as *mut u8).unwrap();
        // SAFETY: it is in what was mapped, which lives as long, and all bytes are something.
        unsafe { NonNull::slice_from_raw_parts(page, pages.page).as_mut() }
    }

    /// How much of it is there, and how much of that on huge pages, in bytes.
    fn figures(&self) -> (usize, usize) {
        let (mut resident, mut huge, mut inside) = (0, 0, false);
        for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            let kib = |line: &str| line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10;
            if let Some(range) = line.split_once('-').filter(|_| line.contains(" rw-p ")).and_then(|_| anonymous(line))
            {
                inside = range.contains(&self.at);
            } else if line.contains("-p ") {
                inside = false;
            } else if inside && line.starts_with("Rss:") {
                resident = kib(line);
            } else if inside && line.starts_with("AnonHugePages:") {
                huge = kib(line);
            }
        }
        (resident, huge)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nothing refers to it any more.
        unsafe { libc::munmap(self.whole, self.length) };
    }
}

/// None where this system is told never to use huge pages: then there is nothing to be seen.
fn huge_pages() -> Option<HugePages> {
    let pages = HugePages::new().unwrap();
    if pages.is_none() {
        println!("skipped: this system has no huge pages");
    }
    pages
}

#[test]
fn what_is_in_use_lies_on_huge_pages_and_is_what_it_was() {
    let Some(mut pages) = huge_pages() else { return };
    let memory = Memory::touched(&pages, 4, 5);
    let (resident, _) = memory.figures();
    let before = memory.figures().1;
    assert!(pages.gather().unwrap() >= 4);
    let (all, huge) = memory.figures();
    assert_eq!((before, huge), (0, 4 * pages.huge));
    assert!(all <= resident + resident / 3, "{resident} became {all}");
    for number in 0..4 * pages.huge / pages.page {
        let is = if number % 5 == 0 { 0 } else { number as u8 };
        assert!(memory.page(&pages, number).iter().all(|&byte| byte == is), "page {number}");
    }
    // It may be asked for again, and as often as one likes.
    assert!(pages.gather().unwrap() >= 4);
}

#[test]
fn what_is_hardly_in_use_stays_as_it_is() {
    let Some(mut pages) = huge_pages() else { return };
    let memory = Memory::touched(&pages, 2, 3);
    let (resident, _) = memory.figures();
    pages.gather().unwrap();
    assert_eq!(memory.figures(), (resident, 0));
}

#[test]
fn what_is_left_over_comes_next_time() {
    let Some(mut pages) = huge_pages() else { return };
    let memory = Memory::touched(&pages, AT_ONCE + 8, 16);
    let looks = (0..3).map(|_| pages.gather().unwrap()).collect::<Vec<_>>();
    assert!(looks.iter().all(|&moved| moved <= AT_ONCE), "{looks:?}");
    assert_eq!(memory.figures().1, (AT_ONCE + 8) * pages.huge);
}

#[test]
fn only_nameless_memory_of_the_processs_own_is_taken() {
    let is = |line| anonymous(line).is_some();
    assert_eq!(anonymous("7f00-7fff rw-p 00000000 00:00 0 "), Some(0x7f00..0x7fff));
    assert_eq!(anonymous("7f00-7fff rw-p 00000000 00:00 0                          [heap]"), Some(0x7f00..0x7fff));
    assert!(!is("7f00-7fff rw-p 00000000 00:00 0                          [stack]"));
    assert!(!is("7f00-7fff rw-p 00001000 fe:00 860498                     /usr/bin/interceptor"));
    assert!(!is("7f00-7fff r--p 00000000 00:00 0 "));
    assert!(!is("7f00-7fff rw-s 00000000 00:00 0 "));
    assert!(!is("7f00-7fff ---p 00000000 00:00 0 "));
    assert!(!is("") && !is("x-y rw-p 0 0 0"));
}
