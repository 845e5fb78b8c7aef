//! The allocator: glibc's, and before it what each worker has freed itself and will want again.
//!
//! glibc keeps seven blocks of a size for each thread, and of those above 1 KiB none. A worker that serves dozens of
//! exchanges at once gives back and asks for more than that, and each time glibc looks for room among whatever thousands of
//! idle connections have left of the heap: a miss of the caches for each look. So a worker keeps the blocks that it frees
//! ([`keep`]), by size, up to [`MOST`] bytes, and gives back what it doesn't turn over ([`Keeping::settle`]). Other threads get
//! theirs from glibc alone. `docs/performance.md` has what it is worth.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};

mod huge;

pub use huge::HugePages;

/// What a thread keeps at most, in bytes: more than 32 exchanges need that one worker has under way.
const MOST: usize = 2 << 20;
/// The smallest block of glibc's; the others are larger by multiples of [`ALIGNED`], to which all are aligned.
const LEAST: usize = 24;
const ALIGNED: usize = 16;
/// How many sizes are kept: up to 16 KiB, because nothing that each request needs is larger.
const SIZES: usize = 1024;

/// The global allocator of the daemon's binary.
#[derive(Debug)]
pub struct Heap;

/// How many bytes a block has room for, as glibc has it: `LEAST + ALIGNED * n`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Size(usize);

impl Size {
    /// The smallest with room for as many.
    #[inline]
    const fn to_hold(bytes: usize) -> Self {
        Self(bytes.saturating_sub(LEAST).div_ceil(ALIGNED))
    }

    /// That of a block. None has less room than [`LEAST`] in glibc; where another allocator stands in its place, one may.
    ///
    /// # Safety
    /// It is of glibc's, and somebody's or kept.
    #[inline]
    unsafe fn of(block: *mut u8) -> Option<Self> {
        // SAFETY: as the caller promises. The number that malloc_usable_size(3) returns may all be used.
        let bytes = unsafe { libc::malloc_usable_size(block.cast()) };
        Some(Self(bytes.checked_sub(LEAST)? / ALIGNED))
    }

    /// How many they are.
    #[inline]
    const fn bytes(self) -> usize {
        LEAST + self.0 * ALIGNED
    }
}

/// The first bytes of a block that is kept: the next one of its size.
struct Free {
    next: *mut Free,
}

/// The blocks of one size.
#[derive(Clone, Copy)]
struct Stack {
    top: *mut Free,
    count: u32,
    /// The fewest that there were since it settled: so many nobody needed.
    fewest: u32,
}

/// What a thread keeps.
struct Shelf {
    stacks: [Stack; SIZES],
    /// In all its blocks.
    bytes: usize,
}

thread_local! {
    /// This thread's, if it keeps any. It has no destructor, and so is there for whatever a thread frees last.
    static SHELF: Cell<*mut Shelf> = const { Cell::new(null_mut()) };
}

/// As long as it lives, its thread keeps what it frees.
#[derive(Debug)]
pub struct Keeping {
    /// It came from a box, and is only used by the thread that made it.
    shelf: NonNull<Shelf>,
    before: *mut Shelf,
}

/// Lets this thread keep what it frees, for itself.
#[must_use]
pub fn keep() -> Keeping {
    let empty = Stack { top: null_mut(), count: 0, fewest: 0 };
    let shelf = NonNull::from(Box::leak(Box::new(Shelf { stacks: [empty; SIZES], bytes: 0 })));
    Keeping { shelf, before: SHELF.replace(shelf.as_ptr()) }
}

/// Whether this thread keeps anything now.
#[must_use]
pub fn keeps() -> bool {
    // SAFETY: what is set lives, and nothing else of this thread refers to it.
    unsafe { SHELF.get().as_ref() }.is_some_and(|shelf| shelf.bytes > 0)
}

impl Keeping {
    /// Gives back what wasn't needed since it was called last: of each size the fewest blocks that there were at any time.
    pub fn settle(&mut self) {
        // SAFETY: the shelf lives as long as this, and nothing else refers to it while this runs: what follows calls
        // glibc's allocator, which knows nothing of it.
        let shelf = unsafe { self.shelf.as_mut() };
        for number in 0..SIZES {
            for _ in 0..shelf.stacks[number].fewest {
                if let Some(block) = shelf.take(Size(number)) {
                    // SAFETY: it is glibc's, and nobody has it any more.
                    unsafe { libc::free(block.as_ptr().cast()) };
                }
            }
            shelf.stacks[number].fewest = shelf.stacks[number].count;
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        // Twice: at first those that were needed lately stay.
        self.settle();
        self.settle();
        SHELF.set(self.before);
        // SAFETY: it is the box that was made in `keep`, and the thread doesn't find it any more.
        drop(unsafe { Box::from_raw(self.shelf.as_ptr()) });
    }
}

impl Shelf {
    /// A block, if there is one.
    #[inline]
    fn take(&mut self, size: Size) -> Option<NonNull<u8>> {
        let stack = self.stacks.get_mut(size.0)?;
        let top = NonNull::new(stack.top)?;
        // SAFETY: what is kept is ours alone, and begins with what `put` wrote there.
        stack.top = unsafe { top.as_ref() }.next;
        stack.count -= 1;
        stack.fewest = stack.fewest.min(stack.count);
        self.bytes -= size.bytes();
        Some(top.cast())
    }

    /// Keeps a block, if there is room.
    ///
    /// # Safety
    /// It is of that size, and nobody uses it any more.
    #[inline]
    unsafe fn put(&mut self, size: Size, block: *mut u8) -> bool {
        let Some(stack) = self.stacks.get_mut(size.0).filter(|_| self.bytes + size.bytes() <= MOST) else {
            return false;
        };
        let block = block.cast::<Free>();
        // SAFETY: each block has room for a pointer, and is aligned for one.
        unsafe { block.write(Free { next: stack.top }) };
        stack.top = block;
        stack.count += 1;
        self.bytes += size.bytes();
        true
    }
}

/// A block that this thread keeps. It stands by its own name, so that who counts what a request allocates (`cargo xtask
/// bench --stages`) finds it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn interceptor_heap_take(shelf: &mut Shelf, number: usize) -> *mut u8 {
    shelf.take(Size(number)).map_or(null_mut(), NonNull::as_ptr)
}

/// This thread's block of a size, or null.
#[inline]
fn kept(size: Size) -> *mut u8 {
    // SAFETY: what is set lives, and nothing else of this thread refers to it: no function of its calls this one.
    match unsafe { SHELF.get().as_mut() } {
        Some(shelf) if shelf.stacks.get(size.0).is_some_and(|stack| !stack.top.is_null()) => {
            interceptor_heap_take(shelf, size.0)
        }
        _ => null_mut(),
    }
}

// SAFETY: each block is glibc's, of `malloc`, `calloc`, `realloc` or `posix_memalign`, of which `free` takes all. In between it is
// either somebody's, who asked for no more bytes than it has room for, or on one thread's shelf.
//
// Nothing here can panic, so that the compiler needs no way out behind each of the tens of thousands of places that allocate
// or free; and it isn't put into each of them, nor does freeing look at the layout, which each would have to hand over. All
// that is pages of code, and so memory.
unsafe impl GlobalAlloc for Heap {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNED {
            return aligned(layout);
        }
        let block = kept(Size::to_hold(layout.size()));
        // SAFETY: malloc(3) takes any number.
        if block.is_null() { unsafe { libc::malloc(layout.size()) }.cast() } else { block }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = if layout.align() > ALIGNED { aligned(layout) } else { kept(Size::to_hold(layout.size())) };
        if !block.is_null() {
            // SAFETY: it has at least as many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
            return block;
        }
        if layout.align() > ALIGNED {
            return block;
        }
        // SAFETY: calloc(3) takes any numbers.
        unsafe { libc::calloc(layout.size(), 1) }.cast()
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: as in `kept`; and the caller gives up the block, which is of the size that glibc says.
        let is_kept = unsafe {
            SHELF.get().as_mut().is_some_and(|shelf| Size::of(block).is_some_and(|size| shelf.put(size, block)))
        };
        if !is_kept {
            // SAFETY: the caller gives it up.
            unsafe { libc::free(block.cast()) };
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        let becomes = Size::to_hold(bytes);
        let moved = if layout.align() > ALIGNED {
            // SAFETY: the caller promises that as many fit the alignment.
            let moved = aligned(unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) });
            if moved.is_null() {
                return moved;
            }
            moved
        // SAFETY: the block is the caller's.
        } else if unsafe { Size::of(block) } == Some(becomes) {
            return block;
        } else {
            kept(becomes)
        };
        if moved.is_null() {
            // SAFETY: the block is the caller's, who gives it up for what is returned.
            return unsafe { libc::realloc(block.cast(), bytes) }.cast();
        }
        // SAFETY: the two don't overlap, both have what the smaller holds, and the old one is given up once.
        unsafe {
            moved.copy_from_nonoverlapping(block, layout.size().min(bytes));
            self.dealloc(block, layout);
        }
        moved
    }
}

/// What needs more than glibc aligns to; it isn't kept for such, but may be for others.
fn aligned(layout: Layout) -> *mut u8 {
    let mut block: *mut c_void = null_mut();
    // SAFETY: it writes where it is told to. The alignment is a power of two, and larger than a pointer.
    match unsafe { libc::posix_memalign(&raw mut block, layout.align(), layout.size()) } {
        0 => block.cast(),
        _ => null_mut(),
    }
}

/// Gives what glibc keeps back to the system. It takes milliseconds, in which others that allocate may wait.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: malloc_trim(3) takes no pointer, and is safe to call from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Nothing: only glibc can be told to.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::turn_over;
