//! The last gate: no packet of a governed cgroup's socket leaves unless the socket was steered, or answers who came to
//! it. What was there before the adoption, and what slips past the other hooks, ends here.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use interceptor_common::{Fate, Kind};

use super::address::Address;
use super::govern;
use super::steer::{NOBODY, taker};
use super::storage::{INBOUND, STEERED};
use super::tally::count;

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
/// A listener, for its SYN-ACKs (include/net/tcp_states.h).
const TCP_LISTEN: u32 = 10;

/// `lo` is the first interface of every namespace.
const LO: u32 = 1;

/// Where the port that it goes to is in the headers of TCP and UDP (RFC 9293, RFC 768).
const TO_PORT: usize = 2;

/// Where the flags are in a TCP header, and two of them (RFC 9293).
const TCP_FLAGS: usize = 13;
const TCP_SYN: u8 = 2;
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
    let Some(packet) = Packet::read(ctx) else { return false };
    // SAFETY: a whole socket, not null.
    let (protocol, state) =
        unsafe { ((&raw const (*sk).protocol).read_volatile(), (&raw const (*sk).state).read_volatile()) };
    if let Some(flow) = STEERED.get(sk) {
        let workload = flow.workload;
        // A device, a message's own route, or its destination may lead elsewhere, whatever the socket was sent to before.
        return packet.to_own && device(ctx) == LO && packet.comes_to_us(ctx, protocol, workload);
    }
    if protocol != IPPROTO_TCP {
        return false;
    }
    // That a connection is over may be told. What a listener accepts once its SYN-ACK is out is a clone of it, and is known by
    // that.
    packet.is_reset(ctx)
        || INBOUND.get(sk).is_some()
        || state == TCP_LISTEN && INBOUND.get_or_make(sk, &mut 1).is_some()
}

/// What decides of a packet's headers.
struct Packet {
    is_v4: bool,
    /// Whether it is for 127.0.0.1 or ::1.
    to_own: bool,
    /// Where the transport's header is.
    transport: usize,
}

impl Packet {
    /// Reads the headers. None: it has options or headers between, in which a process can write, and which can lead it
    /// elsewhere.
    #[inline(always)]
    fn read(ctx: &SkBuffContext) -> Option<Self> {
        match ctx.load::<u8>(0).ok()? {
            // Version 4, without options.
            0x45 => {
                let to_own = ctx.load::<[u8; 4]>(16) == Ok([127, 0, 0, 1]);
                Some(Self { is_v4: true, to_own, transport: 20 })
            }
            first if first >> 4 == 6 => {
                let next = u32::from(ctx.load::<u8>(6).ok()?);
                if next != IPPROTO_TCP && next != IPPROTO_UDP {
                    return None;
                }
                let to = ctx.load::<[u32; 4]>(24).ok()?;
                // IPv4 by a socket of IPv6 is IPv4 by now.
                Some(Self { is_v4: false, to_own: to == [0, 0, 0, 1_u32.to_be()], transport: 40 })
            }
            _ => None,
        }
    }

    /// Whether nobody but the daemon takes it, if it is one that begins something: a SYN may leave long after connect(2) has
    /// looked who listens, and a connected socket's datagram isn't looked at again. Where nobody listens the kernel says so.
    #[inline(always)]
    fn comes_to_us(&self, ctx: &SkBuffContext, protocol: u32, workload: u32) -> bool {
        if protocol == IPPROTO_TCP && !self.has(ctx, TCP_SYN) {
            return true;
        }
        let Ok(port) = ctx.load::<u16>(self.transport + TO_PORT) else { return false };
        let to = Address::loopback(self.is_v4, u16::from_be(port));
        let who = taker(ctx.skb.skb.cast(), to, protocol);
        who == NOBODY || who == u64::from(workload)
    }

    /// Whether it is a RST. The kernel wrote it: no process makes packets on a TCP socket.
    #[inline(always)]
    fn is_reset(&self, ctx: &SkBuffContext) -> bool {
        self.has(ctx, TCP_RST)
    }

    #[inline(always)]
    fn has(&self, ctx: &SkBuffContext, flag: u8) -> bool {
        ctx.load::<u8>(self.transport + TCP_FLAGS).is_ok_and(|flags| flags & flag != 0)
    }
}

/// The interface that it leaves by.
#[inline(always)]
fn device(ctx: &SkBuffContext) -> u32 {
    // SAFETY: the verifier knows `skb` as this program's context.
    unsafe { (&raw const (*ctx.skb.skb).ifindex).read_volatile() }
}

#[inline(always)]
fn drop_one(workload: u32) -> i32 {
    count(workload, Kind::Packet, Fate::Dropped);
    DROP
}
