//! What a sock_ops program reads of its context. Part of each object that has such a program.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_ops};
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::programs::SockOpsContext;
use interceptor_common::OriginKey;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// The socket, if it is a full one.
#[inline(always)]
pub(crate) fn socket(ops: *mut bpf_sock_ops) -> Option<*mut bpf_sock> {
    // SAFETY: the verifier knows `ops` as this program's context; it insists on the check for null.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk };
    if sk.is_null() { None } else { Some(sk) }
}

/// The key of a connection, as the end has it for which the program runs. A connect of an IPv6 socket to a mapped address is
/// IPv4 to the peer, which asks for it so.
#[inline(always)]
pub(crate) fn key(ctx: &SockOpsContext) -> Option<OriginKey> {
    let ops = ctx.ops;
    let mapped = 0xffff_u32.to_be();
    // SAFETY: the verifier knows `ops` as this program's context. Reads are volatile so that the compiler keeps them 32
    // bits wide, which is all that the verifier takes.
    let (family, local4, remote4, remote_port) = unsafe {
        (
            (&raw const (*ops).family).read_volatile(),
            (&raw const (*ops).local_ip4).read_volatile(),
            (&raw const (*ops).remote_ip4).read_volatile(),
            (&raw const (*ops).remote_port).read_volatile(),
        )
    };
    // SAFETY: as above.
    let local6 = |at: usize| unsafe { (&raw const (*ops).local_ip6[at]).read_volatile() };
    // SAFETY: as above.
    let remote6 = |at: usize| unsafe { (&raw const (*ops).remote_ip6[at]).read_volatile() };
    let (local, remote) = match family {
        AF_INET => ([0, 0, mapped, local4], [0, 0, mapped, remote4]),
        AF_INET6 => {
            let remote = [remote6(0), remote6(1), remote6(2), remote6(3)];
            if remote[0] == 0 && remote[1] == 0 && remote[2] == mapped {
                ([0, 0, mapped, local4], remote)
            } else {
                ([local6(0), local6(1), local6(2), local6(3)], remote)
            }
        }
        _ => return None,
    };
    // SAFETY: `ops` is this program's context.
    let netns = unsafe { bpf_get_netns_cookie(ops.cast()) };
    Some(OriginKey { netns, local, remote, local_port: ctx.local_port(), remote_port: u32::from_be(remote_port) })
}
