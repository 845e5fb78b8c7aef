use proptest::prelude::*;

use super::*;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

fn alloc(bytes: usize) -> *mut u8 {
    // SAFETY: no test asks for nothing.
    let block = unsafe { Heap.alloc(layout(bytes)) };
    assert!(!block.is_null());
    block
}

fn free(block: *mut u8, bytes: usize) {
    // SAFETY: it is from `alloc`, of as many bytes.
    unsafe { Heap.dealloc(block, layout(bytes)) };
}

/// As somebody does who needs memory for a moment.
pub fn turn_over(bytes: usize) {
    free(alloc(bytes), bytes);
}

/// Blocks and bytes on the shelf, counted by walking it.
fn shelf(keeping: &Keeping) -> (usize, usize) {
    // SAFETY: it lives, and nothing else refers to it now.
    let shelf = unsafe { keeping.shelf.as_ref() };
    let (mut blocks, mut bytes) = (0, 0);
    for (number, stack) in shelf.stacks.iter().enumerate() {
        let (mut next, mut count) = (stack.top, 0);
        while !next.is_null() {
            count += 1;
            // SAFETY: what is on the shelf begins with it.
            next = unsafe { (*next).next };
        }
        assert_eq!(count, stack.count as usize);
        blocks += count;
        bytes += count * Size(number).bytes();
    }
    assert_eq!(bytes, shelf.bytes);
    (blocks, bytes)
}

/// What the program has of glibc's heap, in bytes.
fn used() -> usize {
    // SAFETY: mallinfo2(3) takes nothing, and returns numbers.
    unsafe { libc::mallinfo2() }.uordblks
}

#[test]
fn a_size_holds_what_is_asked_and_is_glibcs() {
    for bytes in 0..20_000 {
        let size = Size::to_hold(bytes);
        assert!(size.bytes() >= bytes && size.bytes() - bytes.max(LEAST) < ALIGNED, "{bytes}");
        let block = alloc(bytes.max(1));
        // SAFETY: it is this test's. Where too little would be left of a piece, glibc gives all of it.
        assert!([Some(size), Some(Size(size.0 + 1))].contains(&unsafe { Size::of(block) }), "{bytes}");
        free(block, bytes.max(1));
    }
}

#[test]
fn what_is_freed_serves_the_next_request_of_its_size_alone() {
    let keeping = keep();
    for (bytes, as_well, not) in [(100, 104, 105), (9_152, 9_160, 9_144), (16, 1, 25), (16_370, 16_376, 16_360)] {
        let first = alloc(bytes);
        free(first, bytes);
        assert_eq!(shelf(&keeping).0, 1);
        let other = alloc(not);
        assert_ne!(other, first, "{bytes}");
        assert_eq!(alloc(as_well), first, "{bytes}");
        assert_eq!(shelf(&keeping), (0, 0));
        free(first, as_well);
        free(other, not);
        assert_eq!([alloc(as_well), alloc(not)], [first, other], "{bytes}");
    }
}

#[test]
fn what_is_larger_than_all_sizes_isnt_kept() {
    let keeping = keep();
    for bytes in [Size(SIZES).bytes(), 100_000, 1 << 20] {
        free(alloc(bytes), bytes);
        assert_eq!(shelf(&keeping), (0, 0));
    }
    free(alloc(Size(SIZES - 1).bytes()), Size(SIZES - 1).bytes());
    assert_eq!(shelf(&keeping).0, 1);
}

#[test]
fn a_thread_that_keeps_nothing_gives_back_at_once() {
    let block = alloc(9_000);
    let before = used();
    free(block, 9_000);
    assert!(used() + 9_000 <= before);
}

#[test]
fn no_more_is_kept_than_the_most() {
    let keeping = keep();
    let blocks: Vec<_> = (0..MOST / 8_192 + 50).map(|_| alloc(8_192)).collect();
    for block in blocks {
        free(block, 8_192);
    }
    let one = Size::to_hold(8_192).bytes();
    assert_eq!(shelf(&keeping), (MOST / one, MOST / one * one));
    let smaller: Vec<_> = (0..MOST / 16).map(|_| alloc(16)).collect();
    for block in smaller {
        free(block, 16);
    }
    assert!((MOST - LEAST + 1..=MOST).contains(&shelf(&keeping).1));
}

#[test]
fn what_wasnt_needed_is_given_back_and_what_was_stays() {
    let mut keeping = keep();
    let blocks: Vec<_> = (0..10).map(|_| alloc(2_000)).collect();
    for block in blocks {
        free(block, 2_000);
    }
    // They all were somebody's a moment ago.
    keeping.settle();
    assert_eq!(shelf(&keeping).0, 10);
    // Three at once are turned over.
    for _ in 0..5 {
        for block in [(); 3].map(|()| alloc(2_000)) {
            free(block, 2_000);
        }
    }
    let before = used();
    keeping.settle();
    assert_eq!(shelf(&keeping).0, 3);
    assert!(used() + 7 * 2_000 <= before);
    keeping.settle();
    assert_eq!(shelf(&keeping).0, 0);
}

#[test]
fn all_is_given_back_in_the_end() {
    let before = used();
    let keeping = keep();
    let blocks: Vec<_> = (1..200).map(|number| (alloc(number * 50), number * 50)).collect();
    for (block, bytes) in blocks {
        free(block, bytes);
    }
    assert!(used() > before + 900_000);
    drop(keeping);
    // glibc calls what this thread may have again at once used.
    assert!(used() < before + 30_000, "{}", used() - before);
    assert!(SHELF.get().is_null());
}

#[test]
fn a_block_may_be_freed_by_another_thread_and_kept_there() {
    let here = keep();
    let block = alloc(5_000).addr();
    let there = std::thread::spawn(move || {
        let keeping = keep();
        free(std::ptr::with_exposed_provenance_mut(block), 5_000);
        let kept = shelf(&keeping).0;
        (kept, alloc(5_000).addr())
    });
    assert_eq!(there.join().unwrap(), (1, block));
    assert_eq!(shelf(&here), (0, 0));
}

/// What a test does with the blocks it has.
#[derive(Debug, Clone)]
enum Step {
    Alloc { bytes: usize, align: usize, is_zeroed: bool },
    Realloc(usize, usize),
    Free(usize),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![1..300usize, 900..3_000usize, 15_000..20_000usize, 120_000..150_000usize];
    let alloc = (bytes(), prop_oneof![3 => Just(8), 1 => Just(64)], any::<bool>());
    prop_oneof![
        5 => alloc.prop_map(|(bytes, align, is_zeroed)| Step::Alloc { bytes, align, is_zeroed }),
        3 => (any::<usize>(), bytes()).prop_map(|(which, bytes)| Step::Realloc(which, bytes)),
        4 => any::<usize>().prop_map(Step::Free),
        1 => Just(Step::Settle),
    ]
}

/// A block, what was asked for, and the byte of which it is full.
struct Block(*mut u8, Layout, u8);

impl Block {
    fn fill(block: *mut u8, layout: Layout, byte: u8) -> Self {
        assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
        // SAFETY: it was just asked for, with as many bytes.
        unsafe { block.write_bytes(byte, layout.size()) };
        Self(block, layout, byte)
    }

    /// Whether the first bytes are what they should be.
    fn is_full(&self, bytes: usize) -> bool {
        // SAFETY: it has at least as many.
        unsafe { std::slice::from_raw_parts(self.0, bytes) }.iter().all(|byte| *byte == self.2)
    }

    fn free(self) {
        assert!(self.is_full(self.1.size()));
        // SAFETY: it was asked for with this layout, and is given up.
        unsafe { Heap.dealloc(self.0, self.1) };
    }
}

proptest! {
    /// Whatever is asked for and given back: blocks are aligned, hold what was written into them whatever is written into
    /// others, and are zero where that was asked for.
    #[test]
    fn blocks_are_whose_they_are(steps in prop::collection::vec(step(), 1..300)) {
        let mut keeping = keep();
        let mut blocks: Vec<Block> = Vec::new();
        for (byte, step) in (1..=255).cycle().zip(steps) {
            match step {
                Step::Alloc { bytes, align, is_zeroed } => {
                    let layout = Layout::from_size_align(bytes, align).unwrap();
                    // SAFETY: not of nothing.
                    let block = unsafe { if is_zeroed { Heap.alloc_zeroed(layout) } else { Heap.alloc(layout) } };
                    prop_assert!(!is_zeroed || Block(block, layout, 0).is_full(bytes));
                    blocks.push(Block::fill(block, layout, byte));
                }
                Step::Realloc(which, bytes) if !blocks.is_empty() => {
                    let Block(block, layout, is) = blocks.swap_remove(which % blocks.len());
                    // SAFETY: it was asked for with this layout, and is given up for what comes back.
                    let block = unsafe { Heap.realloc(block, layout, bytes) };
                    let becomes = Layout::from_size_align(bytes, layout.align()).unwrap();
                    prop_assert!(Block(block, becomes, is).is_full(bytes.min(layout.size())));
                    blocks.push(Block::fill(block, becomes, byte));
                }
                Step::Free(which) if !blocks.is_empty() => blocks.swap_remove(which % blocks.len()).free(),
                Step::Settle => keeping.settle(),
                Step::Realloc(..) | Step::Free(_) => {}
            }
            shelf(&keeping);
        }
        blocks.into_iter().for_each(Block::free);
    }
}
