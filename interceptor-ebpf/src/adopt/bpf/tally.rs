//! The kernel's side of the ledger: what each workload tried, and what became of it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuHashMap;
use interceptor_common::{Fate, Kind, TallyKey};

/// Counts, each processor its own.
#[map]
static TALLIES: PerCpuHashMap<TallyKey, u64> = PerCpuHashMap::with_max_entries(8192, 0);

/// Counts one.
#[inline(always)]
pub(super) fn count(workload: u32, kind: Kind, fate: Fate) {
    let key = TallyKey { workload, what: kind as u32 | ((fate as u32) << 16) };
    match TALLIES.get_ptr_mut(key) {
        // SAFETY: a value of this map; it is this processor's own, and an interruption loses a count at most between two
        // programs of different types, which count different things.
        Some(count) => unsafe { *count += 1 },
        None => {
            let _ = TALLIES.insert(key, 1, 0);
        }
    }
}
