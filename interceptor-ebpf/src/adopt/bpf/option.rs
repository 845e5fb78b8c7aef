//! Socket options that have the kernel send something of its own, or elsewhere than a socket is connected to: joining a multicast
//! group is told to the link, and routing headers and devices lead past the daemon. What is said with each message
//! instead (`cmsg`) ends at the last gate.

use aya_ebpf::bindings::bpf_sockopt;
use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use interceptor_common::{Fate, Kind};

use super::govern;
use super::tally::count;

const EACCES: i32 = 13;

const SOL_SOCKET: i32 = 1;
/// `SO_BINDTODEVICE`, `SO_BINDTOIFINDEX` (include/uapi/asm-generic/socket.h).
const DEVICES: [i32; 2] = [25, 62];

const IPPROTO_IP: i32 = 0;
/// `IP_OPTIONS`, `IP_UNBLOCK_SOURCE`, `IP_BLOCK_SOURCE`, `IP_ADD_MEMBERSHIP`, `IP_ADD_SOURCE_MEMBERSHIP`, `IP_MSFILTER`,
/// `MCAST_JOIN_GROUP`, `MCAST_BLOCK_SOURCE`, `MCAST_UNBLOCK_SOURCE`, `MCAST_JOIN_SOURCE_GROUP`, `MCAST_MSFILTER`,
/// `IP_UNICAST_IF` (include/uapi/linux/in.h).
const V4: [i32; 12] = [4, 37, 38, 35, 39, 41, 42, 43, 44, 46, 48, 50];

const IPPROTO_IPV6: i32 = 41;
/// `IPV6_2292RTHDR`, `IPV6_2292PKTOPTIONS`, `IPV6_ADD_MEMBERSHIP`, `IPV6_JOIN_ANYCAST`, `MCAST_…` as above, `IPV6_HOPOPTS`,
/// `IPV6_RTHDRDSTOPTS`, `IPV6_RTHDR`, `IPV6_DSTOPTS`, `IPV6_UNICAST_IF` (include/uapi/linux/in6.h).
const V6: [i32; 14] = [5, 6, 20, 27, 42, 43, 44, 46, 48, 54, 55, 57, 59, 76];

#[cgroup_sockopt(setsockopt)]
fn option(ctx: SockoptContext) -> i32 {
    let option: *mut bpf_sockopt = ctx.sockopt;
    // SAFETY: the verifier knows `sockopt` as this program's context.
    let (level, name) =
        unsafe { ((&raw const (*option).level).read_volatile(), (&raw const (*option).optname).read_volatile()) };
    let is_refused = match level {
        SOL_SOCKET => DEVICES.contains(&name),
        IPPROTO_IP => V4.contains(&name),
        IPPROTO_IPV6 => V6.contains(&name),
        _ => false,
    };
    if is_refused && let Some(governed) = govern::of_task() {
        count(governed.workload, Kind::Other, Fate::Refused);
        // SAFETY: a helper without pointers.
        let _ = unsafe { bpf_set_retval(-EACCES) };
        return 0;
    }
    // The value stays as the caller gave it, also one that is longer than a page (Documentation/bpf/prog_cgroup_sockopt.rst).
    // SAFETY: as above.
    unsafe { (&raw mut (*option).optlen).write_volatile(0) };
    1
}
