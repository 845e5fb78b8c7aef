//! The last gate: no packet of a governed cgroup's socket leaves unless the socket was steered, or answers who came to
//! it. What was there before the adoption, and what slips past the other hooks, ends here.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use interceptor_common::{Fate, Kind};

use super::govern;
use super::storage::{INBOUND, STEERED};
use super::tally::count;

const IPPROTO_TCP: u32 = 6;
/// A listener, for its SYN-ACKs (include/net/tcp_states.h).
const TCP_LISTEN: u32 = 10;

/// Bytes of an IPv6 header (RFC 8200); where the flags are in a TCP header, and RST among them (RFC 9293).
const IPV6_HEADER: usize = 40;
const TCP_FLAGS: usize = 13;
const TCP_RST: u8 = 4;

const DROP: i32 = 0;
const PASS: i32 = 1;

#[cgroup_skb(egress)]
fn egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(governed) = govern::of_socket(skb) else { return PASS };
    // SAFETY: the verifier knows `skb` as this program's context; it insists on the checks for null.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return drop_one(governed.workload);
    }
    // SAFETY: not null.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return drop_one(governed.workload);
    }
    if is_right(&ctx, sk) { PASS } else { drop_one(governed.workload) }
}

#[inline(always)]
fn is_right(ctx: &SkBuffContext, sk: *mut bpf_sock) -> bool {
    // SAFETY: a whole socket, not null.
    let (protocol, state) =
        unsafe { ((&raw const (*sk).protocol).read_volatile(), (&raw const (*sk).state).read_volatile()) };
    if STEERED.get(sk).is_some() {
        // A datagram's destination is its own, whatever was sent before.
        return protocol == IPPROTO_TCP || stays(ctx);
    }
    // That a connection is over may be told.
    if protocol == IPPROTO_TCP && is_reset(ctx) {
        return true;
    }
    // What a listener accepts once its SYN-ACK is out is a clone of it, and is known by that.
    INBOUND.get(sk).is_some()
        || protocol == IPPROTO_TCP && state == TCP_LISTEN && INBOUND.get_or_make(sk, &mut 1).is_some()
}

/// Whether the packet is a RST. The kernel wrote it: no process makes packets on a TCP socket.
#[inline(always)]
fn is_reset(ctx: &SkBuffContext) -> bool {
    let header = match ctx.load::<u8>(0) {
        Ok(first) if first >> 4 == 4 => usize::from(first & 0xf) * 4,
        Ok(first) if first >> 4 == 6 => IPV6_HEADER,
        _ => return false,
    };
    ctx.load::<u8>(header + TCP_FLAGS).is_ok_and(|flags| flags & TCP_RST != 0)
}

/// Whether the packet is for 127.0.0.1 or ::1.
#[inline(always)]
fn stays(ctx: &SkBuffContext) -> bool {
    match ctx.load::<u8>(0).map(|first| first >> 4) {
        Ok(4) => ctx.load::<[u8; 4]>(16) == Ok([127, 0, 0, 1]),
        Ok(6) => ctx.load::<[u32; 4]>(24) == Ok([0, 0, 0, 1_u32.to_be()]),
        _ => false,
    }
}

#[inline(always)]
fn drop_one(workload: u32) -> i32 {
    count(workload, Kind::Packet, Fate::Dropped);
    DROP
}
