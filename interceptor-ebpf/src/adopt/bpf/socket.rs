//! Which sockets a governed process can make: TCP and UDP. What else there is (raw, ping, UDP-Lite, SCTP, MPTCP) would
//! pass the hooks on addresses.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use interceptor_common::{Fate, Kind};

use super::govern;
use super::tally::count;

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const EPROTONOSUPPORT: i32 = 93;

#[cgroup_sock(sock_create)]
fn create(ctx: SockContext) -> i32 {
    let Some(governed) = govern::of_task() else { return 1 };
    // SAFETY: the verifier knows `sock` as this program's context.
    let (kind, protocol) =
        unsafe { ((&raw const (*ctx.sock).type_).read_volatile(), (&raw const (*ctx.sock).protocol).read_volatile()) };
    match (kind, protocol) {
        (SOCK_STREAM, 0 | IPPROTO_TCP) | (SOCK_DGRAM, 0 | IPPROTO_UDP) => 1,
        _ => {
            count(governed.workload, Kind::Raw, Fate::Refused);
            // Clients of MPTCP fall back to TCP on this.
            // SAFETY: a helper without pointers.
            let _ = unsafe { bpf_set_retval(-EPROTONOSUPPORT) };
            0
        }
    }
}
