//! How the daemon's end learns where a steered connection was to go: published under the connecting socket's address
//! before its SYN leaves, taken over by the daemon's end when that is established, and gone when the connect fails, or ends before it is taken over.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr;

use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT,
};
use aya_ebpf::macros::{map, sock_ops};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::SockOpsContext;
use interceptor_common::{Fate, Flow, Kind, OriginKey};

use super::storage::{ACCEPTED, STEERED};
use super::tally::count;
use crate::ops::{key, socket};

/// Connects under way that are noted down for one workload; what has no room any more doesn't leave.
const UNDER_WAY: u64 = 16_384;

/// How many of these are left to connects that have passed [`is_full`] and aren't noted down yet: threads in the middle of a call.
const LEFT: u64 = 1024;

/// Connects under way, by the address of the connecting socket.
#[map]
static FLOWS: HashMap<OriginKey, Flow> = HashMap::with_max_entries(262_144, 1);

/// How many of them each workload has.
#[map]
static WAITING: HashMap<u32, u64> = HashMap::with_max_entries(4096, 1);

#[sock_ops]
fn publish(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            if let Some(sk) = socket(ctx.ops)
                && let Some(flow) = STEERED.get(sk)
                && let Some(key) = key(&ctx)
            {
                if note(&key, flow) {
                    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
                } else {
                    // The daemon couldn't tell where it was to go. What isn't steered doesn't leave.
                    STEERED.remove(sk);
                }
            }
        }
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            if let Some(key) = key(&ctx).map(of_peer)
                && let Some(found) = FLOWS.get_ptr(key)
                && let Some(sk) = socket(ctx.ops)
            {
                // SAFETY: a value of this map; entries are never changed, only replaced.
                let mut flow = unsafe { *found };
                if ACCEPTED.get_or_make(sk, &mut flow).is_some() {
                    take(&key, flow.workload);
                    count(flow.workload, Kind::Tcp, Fate::Arrived);
                }
            }
        }
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => {
            if let Some(sk) = socket(ctx.ops)
                && let Some(flow) = STEERED.get(sk)
                && let Some(key) = key(&ctx)
            {
                let was_there = take(&key, flow.workload);
                if ctx.arg(0) == BPF_TCP_SYN_SENT {
                    // The next connect of this socket is judged anew.
                    STEERED.remove(sk);
                } else if was_there {
                    count(flow.workload, Kind::Tcp, Fate::Lost);
                }
            }
        }
        _ => {}
    }
    1
}

/// Whether a workload has so many connects under way that another one mightn't be noted down. It would be answered all the same,
/// and nobody could tell by whom.
#[inline(always)]
pub(super) fn is_full(workload: u32) -> bool {
    let Some(waiting) = WAITING.get_ptr(workload) else { return false };
    // SAFETY: a value of this map.
    let waiting = unsafe { ptr::read_volatile(waiting) };
    waiting >= UNDER_WAY - LEFT
}

/// Notes a connect down; false if there is no room for it.
#[inline(always)]
fn note(key: &OriginKey, flow: &Flow) -> bool {
    if !make_room(flow.workload) {
        return false;
    }
    if FLOWS.insert(key, *flow, BPF_NOEXIST.into()).is_ok() {
        return true;
    }
    // What another socket left under this address has no one to take it. It may be another workload's.
    // SAFETY: a value of this map.
    let left = FLOWS.get_ptr(key).map(|left| unsafe { (*left).workload });
    let is_noted = FLOWS.insert(key, *flow, 0).is_ok();
    if !is_noted {
        add(flow.workload, -1);
    } else if let Some(workload) = left {
        add(workload, -1);
    }
    is_noted
}

#[inline(always)]
fn make_room(workload: u32) -> bool {
    match WAITING.get_ptr_mut(workload) {
        // SAFETY: a value of this map.
        Some(waiting) if unsafe { ptr::read_volatile(waiting) } >= UNDER_WAY => return false,
        Some(_) => {}
        None => {
            let _ = WAITING.insert(workload, 0, BPF_NOEXIST.into());
        }
    }
    add(workload, 1);
    true
}

#[inline(always)]
fn take(key: &OriginKey, workload: u32) -> bool {
    let was_there = FLOWS.remove(key).is_ok();
    if was_there {
        add(workload, -1);
    }
    was_there
}

#[inline(always)]
fn add(workload: u32, by: i64) {
    if let Some(waiting) = WAITING.get_ptr_mut(workload) {
        // The target's atomics in `core` stop at loads and stores, which is all that every BPF has; this one has an add.
        // SAFETY: a value of this map, aligned, which is only ever changed atomically.
        let _ = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(waiting, by as u64) };
    }
}

/// The key of the other end.
#[inline(always)]
fn of_peer(key: OriginKey) -> OriginKey {
    let OriginKey { netns, local, remote, local_port, remote_port } = key;
    OriginKey { netns, local: remote, remote: local, local_port: remote_port, remote_port: local_port }
}
