//! Cgroups that were to be governed when they were made, and for which there was no room. They can't be told from others any
//! more, so what was made since in the same place is refused, until the daemon has governed them: ids of cgroups only grow
//! (`kernfs_new_node` of fs/kernfs/dir.c), and what was there before goes on as it did.

use core::ptr;

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use interceptor_common::{
    DEEPEST_LEVEL, Governed, MISSED_COUNT, MISSED_KNOWN, MISSED_LEVEL, MISSED_NUMBERS, MISSED_PARENT, MISSED_SINCE,
    MISSED_WORKLOAD, STATE_REFUSED,
};

use super::govern::{at, id, is_governed, level_of, levels, pointer};

/// By `MISSED_COUNT` and its like.
#[map]
static MISSED: Array<u64> = Array::with_max_entries(MISSED_NUMBERS, 0);

/// Where the kernel has what, from its BTF: `self` in `struct cgroup`, `parent` in `struct cgroup_subsys_state`.
#[unsafe(no_mangle)]
static SELF_AT: u32 = 0;
#[unsafe(no_mangle)]
static PARENT_AT: u32 = 0;

/// What who is in no governed cgroup counts as. `deepest` is the id of the cgroup that he is in at the deepest level at which
/// there are governed ones; `ancestor` tells the one at a level. 0 is none.
#[inline(always)]
pub(super) fn refused(deepest: u64, ancestor: impl Fn(i32) -> u64) -> Option<Governed> {
    if number(MISSED_COUNT) == number(MISSED_KNOWN) {
        return None;
    }
    let (level, since) = (number(MISSED_LEVEL) as i32, number(MISSED_SINCE));
    if level == 0 {
        if deepest < since {
            return None;
        }
    } else {
        if ancestor(level) < since {
            return None;
        }
        if ancestor(level - 1) != number(MISSED_PARENT) {
            return None;
        }
    }
    Some(Governed { workload: number(MISSED_WORKLOAD) as u32, state: STATE_REFUSED })
}

/// Notes a cgroup down that there was no room for. There are never two at once: the kernel makes one after the other.
#[inline(always)]
pub(super) fn note(cgroup: *const u8, of: u64, workload: u32) {
    let covered = covered(cgroup, of);
    if covered == BY_GOVERNED {
        return;
    }
    let count = number(MISSED_COUNT);
    if count == number(MISSED_KNOWN) {
        let parent = id_above(cgroup);
        let level = if parent == 0 { 0 } else { level_of(cgroup).unwrap_or_default() };
        put(MISSED_SINCE, of);
        put(MISSED_PARENT, parent);
        put(MISSED_LEVEL, level.into());
        put(MISSED_WORKLOAD, workload.into());
    } else if covered == BY_NOTHING {
        put(MISSED_LEVEL, 0);
    }
    // Last: from here on the others count. It is one more in any case, or the daemon could say that it knows of all before it
    // has looked for this one.
    put(MISSED_COUNT, count + 1);
}

/// What covers a cgroup: one above it that is governed and that the hooks look for, the place in which what is new is refused, or
/// nothing.
const BY_GOVERNED: u32 = 2;
const BY_REFUSAL: u32 = 1;
const BY_NOTHING: u32 = 0;

#[inline(always)]
fn covered(cgroup: *const u8, of: u64) -> u32 {
    let (place, since) = (number(MISSED_PARENT), number(MISSED_SINCE));
    let (mut cgroup, mut own, mut covered) = (cgroup, of, BY_NOTHING);
    let (levels, mut level) = (levels(), level_of(cgroup).unwrap_or_default());
    for _ in 0..DEEPEST_LEVEL {
        cgroup = above(cgroup);
        if cgroup.is_null() {
            break;
        }
        let next = id(cgroup).unwrap_or_default();
        level = level.wrapping_sub(1);
        if levels.wrapping_shr(level) & 1 != 0 && is_governed(next) {
            return BY_GOVERNED;
        }
        if next == place && own >= since {
            covered = BY_REFUSAL;
        }
        own = next;
    }
    covered
}

/// The id of the cgroup that this one is in; 0 if there is none.
#[inline(always)]
fn id_above(cgroup: *const u8) -> u64 {
    let cgroup = above(cgroup);
    if cgroup.is_null() { 0 } else { id(cgroup).unwrap_or_default() }
}

/// The cgroup that this one is in; null if there is none.
#[inline(always)]
fn above(cgroup: *const u8) -> *const u8 {
    let parent = pointer(at(cgroup, &raw const SELF_AT), &raw const PARENT_AT).unwrap_or(ptr::null());
    if parent.is_null() {
        return ptr::null();
    }
    // SAFETY: a global that the loader has set; volatile, or the compiler would take it for 0.
    parent.wrapping_sub(unsafe { ptr::read_volatile(&raw const SELF_AT) } as usize)
}

#[inline(always)]
fn number(at: u32) -> u64 {
    // SAFETY: a value of this map; volatile, because others write it meanwhile.
    MISSED.get_ptr(at).map_or(0, |number| unsafe { ptr::read_volatile(number) })
}

#[inline(always)]
fn put(at: u32, value: u64) {
    if let Some(number) = MISSED.get_ptr_mut(at) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(number, value) };
    }
}
