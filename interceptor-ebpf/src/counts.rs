//! The kernel's side of the ledger for launched workloads, and what is looked at for it alone: sockets as they are made, and
//! what they send that isn't TCP. Nothing is refused here: nothing has a way out of the workload's network namespace, whose
//! every address is its own. If somebody lays one all the same, what leaves by it is counted apart. Part of the object that
//! has the hooks of launched workloads.

use core::{mem, ptr};

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_tuple};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_sk_fullsock, bpf_sk_lookup_udp, bpf_sk_release, bpf_sk_storage_get,
};
use aya_ebpf::macros::{btf_map, cgroup_skb, cgroup_sock, map};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::{SkBuffContext, SockContext};
use interceptor_common::{DNS_PORT, Fate, Kind, SpaceKey};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;

/// `lo` is the first interface of every namespace. What is for an address of the namespace's own goes by it, whichever
/// interface has the address.
const LO: u32 = 1;

const ALLOW: i32 = 1;

/// What came of attempts.
#[map]
static SPACES: PerCpuHashMap<SpaceKey, u64> = PerCpuHashMap::with_max_entries(32_768, 1);

/// The namespaces of sockets that aren't TCP, by their cookies: a packet tells its own only since Linux 6.15. Sockets of the
/// kernel's own, by which it speaks to neighbours and of groups, don't come by [`create`] and aren't here.
#[btf_map]
static NETWORKS: SkStorage<u64> = SkStorage::new();

/// Counts one.
#[inline(always)]
pub(crate) fn count(netns: u64, kind: Kind, fate: Fate) {
    let key = SpaceKey { netns, what: kind as u32 | ((fate as u32) << 16), padding: 0 };
    match SPACES.get_ptr_mut(key) {
        // SAFETY: a value of this map, this processor's own.
        Some(count) => unsafe { *count += 1 },
        None => {
            let _ = SPACES.insert(key, 1, 0);
        }
    }
}

/// Sockets of IP. Those that are neither TCP nor UDP a filter on system calls refuses before: one that is made all the same
/// has to show.
#[cgroup_sock(sock_create)]
fn create(ctx: SockContext) -> i32 {
    // SAFETY: the verifier knows `sock` as this program's context.
    let (kind, protocol) =
        unsafe { ((&raw const (*ctx.sock).type_).read_volatile(), (&raw const (*ctx.sock).protocol).read_volatile()) };
    if kind == SOCK_STREAM && (protocol == 0 || protocol == IPPROTO_TCP) {
        return ALLOW;
    }
    // SAFETY: the context is this program's.
    let mut netns = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
    let map = ptr::from_ref(&NETWORKS).cast_mut().cast();
    // SAFETY: the loader puts the map's address in place of `map`; the context is the socket, and the value is on the stack.
    // Without memory for it nothing is counted of this socket.
    unsafe { bpf_sk_storage_get(map, ctx.sock.cast(), (&raw mut netns).cast(), BPF_SK_STORAGE_GET_F_CREATE.into()) };
    if kind != SOCK_DGRAM || (protocol != 0 && protocol != IPPROTO_UDP) {
        count(netns, Kind::Raw, Fate::Allowed);
    }
    ALLOW
}

#[cgroup_skb(egress)]
fn egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the verifier knows `skb` as this program's context; it insists on the checks for null.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return ALLOW;
    }
    // SAFETY: not null.
    let sk: *mut bpf_sock = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return ALLOW;
    }
    // SAFETY: a whole socket, not null.
    let (kind, protocol) =
        unsafe { ((&raw const (*sk).type_).read_volatile(), (&raw const (*sk).protocol).read_volatile()) };
    // Its connections are counted, not its segments.
    if kind == SOCK_STREAM && protocol == IPPROTO_TCP {
        return ALLOW;
    }
    let map = ptr::from_ref(&NETWORKS).cast_mut().cast();
    // SAFETY: as in `create`; nothing is made here.
    let netns = unsafe { bpf_sk_storage_get(map, sk.cast(), ptr::null_mut(), 0) }.cast::<u64>();
    if netns.is_null() {
        return ALLOW;
    }
    // SAFETY: a value of this map that lives as long as the socket.
    let netns = unsafe { *netns };
    // SAFETY: `skb` is this program's context; volatile, as elsewhere, so that the read stays 32 bits wide.
    let leaves = unsafe { (&raw const (*skb).ifindex).read_volatile() } != LO;
    if protocol == IPPROTO_UDP {
        datagram(&ctx, netns, leaves);
    } else if leaves {
        count(netns, Kind::Packet, Fate::Left);
    } else {
        count(netns, Kind::Packet, Fate::Allowed);
    }
    ALLOW
}

/// Counts a datagram by what becomes of it: it leaves the namespace, or a socket there takes it, or none, and the kernel
/// refuses it. Questions are counted by the resolver that takes them.
#[inline(always)]
fn datagram(ctx: &SkBuffContext, netns: u64, leaves: bool) {
    let to = destination(ctx);
    let is_question = to >> 1 == u32::from(DNS_PORT);
    match (is_question, leaves, to & TAKEN != 0) {
        (true, true, _) => count(netns, Kind::Dns, Fate::Left),
        (false, true, _) => count(netns, Kind::Udp, Fate::Left),
        (true, false, true) => {}
        (true, false, false) => count(netns, Kind::Dns, Fate::Refused),
        (false, false, true) => count(netns, Kind::Udp, Fate::Allowed),
        (false, false, false) => count(netns, Kind::Udp, Fate::Refused),
    }
}

/// In what [`destination`] gives: somebody takes it.
const TAKEN: u32 = 1;

/// The port that a datagram goes to, one bit higher, and [`TAKEN`] if there is a socket for it. One that can't be read may be
/// taken. A number, because the verifier doesn't follow what becomes of nested options.
#[inline(always)]
fn destination(ctx: &SkBuffContext) -> u32 {
    // SAFETY: plain data, for which zeros are valid.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    let Ok(first) = ctx.load::<u8>(0) else { return TAKEN };
    let (size, port) = if first >> 4 == 4 {
        let Ok([from, to]) = ctx.load::<[u32; 2]>(12) else { return TAKEN };
        let Ok([own, port]) = ctx.load::<[u16; 2]>(usize::from(first & 0xf) * 4) else { return TAKEN };
        tuple.__bindgen_anon_1.ipv4.saddr = from;
        tuple.__bindgen_anon_1.ipv4.daddr = to;
        tuple.__bindgen_anon_1.ipv4.sport = own;
        tuple.__bindgen_anon_1.ipv4.dport = port;
        (12, port)
    } else {
        // With headers between it is for who may send such: nobody in a launched workload.
        if ctx.load::<u8>(6) != Ok(IPPROTO_UDP as u8) {
            return TAKEN;
        }
        let Ok(from) = ctx.load::<[u32; 4]>(8) else { return TAKEN };
        let Ok(to) = ctx.load::<[u32; 4]>(24) else { return TAKEN };
        let Ok([own, port]) = ctx.load::<[u16; 2]>(40) else { return TAKEN };
        tuple.__bindgen_anon_1.ipv6.saddr = from;
        tuple.__bindgen_anon_1.ipv6.daddr = to;
        tuple.__bindgen_anon_1.ipv6.sport = own;
        tuple.__bindgen_anon_1.ipv6.dport = port;
        (36, port)
    };
    let port = u32::from(u16::from_be(port)) << 1;
    // SAFETY: the context is this program's, and the tuple has room for what `size` says.
    let sk: *mut bpf_sock =
        unsafe { bpf_sk_lookup_udp(ctx.skb.skb.cast(), &raw mut tuple, size, BPF_F_CURRENT_NETNS, 0) };
    if sk.is_null() {
        return port;
    }
    // SAFETY: the lookup's reference, given back once.
    unsafe { bpf_sk_release(sk.cast()) };
    port | TAKEN
}
