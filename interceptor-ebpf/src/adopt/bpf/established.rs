//! Connects that somebody answered, counted where the kernel changes a socket's state: a count of its own beside those of the
//! hooks that steer, so that a hook that is missing shows in the ledger.

use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::RawTracePointContext;
use interceptor_common::{Fate, Kind};

use super::govern;
use super::tally::count;

/// include/net/tcp_states.h.
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;

/// The workloads of connects under way, by where the kernel keeps the socket.
#[map]
static CONNECTING: LruHashMap<u64, u32> = LruHashMap::with_max_entries(65_536, 0);

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)` of include/trace/events/sock.h.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn changed(ctx: RawTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let (from, to): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let key = sk.addr() as u64;
    if to == TCP_SYN_SENT {
        // The process that calls connect; later changes happen wherever packets come in.
        if let Some(governed) = govern::of_task() {
            let _ = CONNECTING.insert(key, governed.workload, 0);
        }
    } else if from == TCP_SYN_SENT
        && let Some(workload) = CONNECTING.get_ptr(key)
    {
        // SAFETY: a value of this map.
        let workload = unsafe { *workload };
        let _ = CONNECTING.remove(key);
        let fate = if to == TCP_ESTABLISHED { Fate::Established } else { Fate::Failed };
        count(workload, Kind::Tcp, fate);
    }
    0
}
