//! Which cgroups are governed. The daemon says so for those that are there; for those that are made later a tracepoint
//! does, in the moment they are made and before a process can enter them, also while no daemon runs. Another one forgets
//! those that are gone.

use core::ptr;

use aya_ebpf::bindings::{__sk_buff, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id};
use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes};
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::programs::RawTracePointContext;
use interceptor_common::{DEEPEST_LEVEL, GOVERNED_MOST, Governed, PATH_BYTES, Watched};

use super::missed;

/// By the id of the cgroup.
#[map]
static GOVERNED: HashMap<u64, Governed> = HashMap::with_max_entries(GOVERNED_MOST, BPF_F_NO_PREALLOC);

/// The levels of the tree at which there are governed cgroups, a bit for each.
#[map]
static LEVELS: Array<u32> = Array::with_max_entries(1, 0);

/// Paths of cgroups that are governed when they are made. A whole path ends in NUL; else it is a beginning.
#[map]
static WATCHED: LpmTrie<[u8; PATH_BYTES], Watched> = LpmTrie::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Room for a path, too large for the stack.
#[map]
static PATH: PerCpuArray<Key<[u8; PATH_BYTES]>> = PerCpuArray::with_max_entries(1, 0);

/// Where the kernel has what, from its BTF: `root`, `level` and `kn` in `struct cgroup`, `hierarchy_id` in
/// `struct cgroup_root`, `id` in `struct kernfs_node`.
#[unsafe(no_mangle)]
static ROOT_AT: u32 = 0;
#[unsafe(no_mangle)]
static LEVEL_AT: u32 = 0;
#[unsafe(no_mangle)]
static NODE_AT: u32 = 0;
#[unsafe(no_mangle)]
static HIERARCHY_AT: u32 = 0;
#[unsafe(no_mangle)]
static ID_AT: u32 = 0;

/// The workload of the calling task, if it has one.
#[inline(always)]
pub(super) fn of_task() -> Option<Governed> {
    // SAFETY: a helper without pointers.
    outermost(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// The workload in whose cgroup the packet's socket was made, if it is one's.
#[inline(always)]
pub(super) fn of_socket(skb: *mut __sk_buff) -> Option<Governed> {
    // SAFETY: the verifier knows `skb` as the program's context.
    outermost(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })
}

#[inline(always)]
fn outermost(ancestor: impl Fn(i32) -> u64) -> Option<Governed> {
    let levels = levels();
    if levels == 0 {
        return None;
    }
    let mut deepest = 0;
    for level in 1..=DEEPEST_LEVEL {
        if levels & (1 << level) == 0 {
            continue;
        }
        let id = ancestor(level as i32);
        if id == 0 {
            break;
        }
        if let Some(governed) = GOVERNED.get_ptr(id) {
            // SAFETY: a value of this map.
            return Some(unsafe { *governed });
        }
        deepest = id;
    }
    missed::refused(deepest, ancestor)
}

/// The levels of the tree at which governed cgroups are looked for, a bit for each.
#[inline(always)]
pub(super) fn levels() -> u32 {
    LEVELS.get(0).copied().unwrap_or_default()
}

/// Whether the cgroup with this id is governed, if its level is one of these.
#[inline(always)]
pub(super) fn is_governed(id: u64) -> bool {
    GOVERNED.get_ptr(id).is_some()
}

/// `TP_PROTO(struct cgroup *cgrp, const char *path)` of include/trace/events/cgroup.h.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
fn made(ctx: RawTracePointContext) -> i32 {
    let cgroup: *const u8 = ctx.arg(0);
    let path: *const u8 = ctx.arg(1);
    // Ids of the first version's hierarchies are their own; the second version's has the id 0.
    if pointer(cgroup, &raw const ROOT_AT).and_then(|root| word(root, &raw const HIERARCHY_AT)) != Some(0) {
        return 0;
    }
    let Some(key) = PATH.get_ptr_mut(0) else { return 0 };
    // SAFETY: a value of this map, this processor's own; tracepoints of one processor don't interrupt each other.
    let length = unsafe {
        let data: *mut [u8; PATH_BYTES] = &raw mut (*key).data;
        match bpf_probe_read_kernel_str_bytes(path, &mut *data) {
            Ok(read) => read.len(),
            Err(_) => return 0,
        }
    };
    if length >= PATH_BYTES {
        return 0;
    }
    // SAFETY: as above. With the NUL behind it.
    let found = unsafe {
        (&raw mut (*key).prefix_len).write_unaligned((length as u32 + 1) * 8);
        WATCHED.get(&*key)
    };
    if let Some(watched) = found
        && may_fit(watched, cgroup)
        && let Some(id) = id(cgroup)
        && GOVERNED.insert(id, Governed { workload: watched.workload, state: watched.state.into() }, 0).is_err()
    {
        // There are too many already, or no memory is left.
        missed::note(cgroup, id, watched.workload);
    }
    0
}

/// Whether a cgroup whose path begins right may be the workload's. One above those that may is nobody's, also if they will be in it;
/// deeper ones are governed with the one that they are in, or are nobody's.
#[inline(always)]
fn may_fit(watched: &Watched, cgroup: *const u8) -> bool {
    let levels = u32::from(watched.levels);
    levels == 0 || level_of(cgroup).is_none_or(|level| level <= DEEPEST_LEVEL && levels.wrapping_shr(level) & 1 != 0)
}

/// Once nothing holds a cgroup any more that was removed, no socket of it either: its id is no other's, and would take the room
/// of one that is made. `TP_PROTO` as above.
#[raw_tracepoint(tracepoint = "cgroup_release")]
fn released(ctx: RawTracePointContext) -> i32 {
    let cgroup: *const u8 = ctx.arg(0);
    if pointer(cgroup, &raw const ROOT_AT).and_then(|root| word(root, &raw const HIERARCHY_AT)) != Some(0) {
        return 0;
    }
    if let Some(id) = id(cgroup) {
        // Most were never governed.
        let _ = GOVERNED.remove(id);
    }
    0
}

/// The level of the tree at which a cgroup is.
#[inline(always)]
pub(super) fn level_of(cgroup: *const u8) -> Option<u32> {
    word(cgroup, &raw const LEVEL_AT)
}

/// The id of a cgroup.
#[inline(always)]
pub(super) fn id(cgroup: *const u8) -> Option<u64> {
    pointer(cgroup, &raw const NODE_AT).and_then(|node| long(node, &raw const ID_AT))
}

/// The place of a member, by the global that says how far in it is.
#[inline(always)]
pub(super) fn at(base: *const u8, offset: *const u32) -> *const u8 {
    // SAFETY: a global that the loader has set; volatile, or the compiler would take it for 0.
    base.wrapping_add(unsafe { ptr::read_volatile(offset) } as usize)
}

/// A pointer that the kernel has at such a place.
#[inline(always)]
pub(super) fn pointer(base: *const u8, offset: *const u32) -> Option<*const u8> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at(base, offset).cast::<*const u8>()) }.ok()
}

/// Four bytes, likewise.
#[inline(always)]
fn word(base: *const u8, offset: *const u32) -> Option<u32> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at(base, offset).cast::<u32>()) }.ok()
}

#[inline(always)]
fn long(base: *const u8, offset: *const u32) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at(base, offset).cast::<u64>()) }.ok()
}
