//! The hooks on addresses: a governed connect goes to the daemon's listener, a question to any DNS server to the daemon's
//! resolver, everything else nowhere. Nobody else gets to those sockets.

use core::ffi::c_void;
use core::mem;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval, bpf_setsockopt, bpf_sk_lookup_tcp, bpf_sk_lookup_udp,
    bpf_sk_release,
};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use aya_ebpf::macros::{cgroup_sock_addr, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::SockAddrContext;
use interceptor_common::{DNS_PORT, DoorKey, Fate, Flow, Governed, Kind, Origin, Place, PlaceKey, STATE_STEERED};

use super::address::{Address, Family};
use super::govern;
use super::publish::is_full;
use super::storage::{INBOUND, OURS, STEERED};
use super::tally::count;

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const SOL_SOCKET: i32 = 1;
const SO_BINDTOIFINDEX: i32 = 62;
const ECONNREFUSED: i32 = 111;
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;

const DENY: i32 = 0;
const ALLOW: i32 = 1;

/// The daemon's sockets, by where and for whom they are.
#[map]
static PLACES: HashMap<PlaceKey, Place> = HashMap::with_max_entries(16_384, 1);

/// The ports of all of them.
#[map]
static DOORS: HashMap<DoorKey, u32> = HashMap::with_max_entries(65_536, 1);

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::V4)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::V6)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    send(&ctx, Family::V4)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    send(&ctx, Family::V6)
}

/// Answers of the daemon's resolver come from whom was asked.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    as_asked(&ctx, Family::V4)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    as_asked(&ctx, Family::V6)
}

/// A steered socket's peer is whom it asked for.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    as_asked(&ctx, Family::V4)
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    as_asked(&ctx, Family::V6)
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, family: Family) -> i32 {
    let asked = Address::asked(ctx.sock_addr, family);
    // SAFETY: the verifier knows `sock_addr` as this program's context.
    let (kind, protocol) = unsafe {
        ((&raw const (*ctx.sock_addr).type_).read_volatile(), (&raw const (*ctx.sock_addr).protocol).read_volatile())
    };
    let Some(governed) = govern::of_task() else {
        forget(ctx);
        return pass_by(ctx, asked, protocol);
    };
    match protocol {
        IPPROTO_TCP if kind == SOCK_STREAM => to_the_daemon(ctx, family, asked, &governed, IPPROTO_TCP, Kind::Tcp),
        IPPROTO_UDP => datagram(ctx, family, asked, &governed),
        _ => refuse(governed.workload, Kind::Raw),
    }
}

#[inline(always)]
fn send(ctx: &SockAddrContext, family: Family) -> i32 {
    let asked = Address::asked(ctx.sock_addr, family);
    let Some(governed) = govern::of_task() else { return pass_by(ctx, asked, IPPROTO_UDP) };
    datagram(ctx, family, asked, &governed)
}

#[inline(always)]
fn datagram(ctx: &SockAddrContext, family: Family, asked: Address, governed: &Governed) -> i32 {
    if asked.port == DNS_PORT {
        to_the_daemon(ctx, family, asked, governed, IPPROTO_UDP, Kind::Dns)
    } else {
        refuse(governed.workload, Kind::Udp)
    }
}

/// Sends a call to the daemon's socket instead, and keeps where it was to go with the socket.
#[inline(always)]
fn to_the_daemon(
    ctx: &SockAddrContext,
    family: Family,
    asked: Address,
    governed: &Governed,
    protocol: u32,
    kind: Kind,
) -> i32 {
    // SAFETY: the context is this program's.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    let workload = governed.workload;
    if governed.state != STATE_STEERED || (protocol == IPPROTO_TCP && is_full(workload)) {
        return refuse(workload, kind);
    }
    let Some(place) = PLACES.get_ptr(PlaceKey { netns, workload, padding: 0 }) else {
        return refuse(workload, kind);
    };
    // SAFETY: a value of this map.
    let place = unsafe { *place };
    let port = match (protocol, asked.is_v4()) {
        (IPPROTO_TCP, true) => place.tcp4,
        (IPPROTO_TCP, false) => place.tcp6,
        (_, true) => place.dns4,
        (_, false) => place.dns6,
    };
    let own = asked.own(port);
    if !is_ours(ctx.sock_addr.cast(), own, protocol, workload) {
        return refuse(workload, kind);
    }
    let ids = bpf_get_current_pid_tgid();
    let mut flow = Flow {
        origin: Origin {
            pid: (ids >> 32) as u32,
            tid: ids as u32,
            uid: bpf_get_current_uid_gid() as u32,
            padding: 0,
            comm: bpf_get_current_comm().unwrap_or_default(),
        },
        address: asked.words,
        port: u32::from(asked.port),
        workload,
        // SAFETY: the context is this program's.
        cookie: unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) },
    };
    // SAFETY: as above; the verifier insists that the socket isn't null.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if sk.is_null() {
        return refuse(workload, kind);
    }
    match STEERED.get_or_make(sk, &mut flow) {
        Some(kept) => *kept = flow,
        None => return refuse(workload, kind),
    }
    if !free_of_device(ctx.sock_addr, sk) {
        return refuse(workload, kind);
    }
    own.put(ctx.sock_addr, family);
    count(workload, kind, Fate::Steered);
    ALLOW
}

/// Lets a socket go that was bound to a device before its process was governed: the daemon is on `lo`, and would be out of
/// reach. Whether it could; the kernel lets only the privileged do it.
#[inline(always)]
fn free_of_device(ctx: *mut bpf_sock_addr, sk: *mut bpf_sock) -> bool {
    // SAFETY: the socket of the context, not null.
    if unsafe { (&raw const (*sk).bound_dev_if).read_volatile() } == 0 {
        return true;
    }
    let mut none = 0_u32;
    // SAFETY: the value is on the stack, and has the length that is given.
    let done = unsafe {
        bpf_setsockopt(ctx.cast(), SOL_SOCKET, SO_BINDTOIFINDEX, (&raw mut none).cast(), size_of::<u32>() as i32)
    };
    done == 0
}

/// Whether the socket that listens there is the daemon's for this workload: anybody may bind the port of a daemon that is
/// down.
#[inline(always)]
fn is_ours(ctx: *mut c_void, own: Address, protocol: u32, workload: u32) -> bool {
    taker(ctx, own, protocol) == u64::from(workload)
}

/// Nobody listens at a port.
pub(super) const NOBODY: u64 = u64::MAX;

/// Somebody else than the daemon does.
const STRANGER: u64 = u64::MAX - 1;

/// Who takes what comes to this port of the host's own: the workload for which it is a socket of the daemon's, or one of the
/// above. A number, because the verifier doesn't follow what becomes of nested options. `ctx` is the program's context.
#[inline(always)]
pub(super) fn taker(ctx: *mut c_void, own: Address, protocol: u32) -> u64 {
    // SAFETY: plain data, for which zeros are valid.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    let size = if own.is_v4() {
        tuple.__bindgen_anon_1.ipv4.daddr = own.v4();
        tuple.__bindgen_anon_1.ipv4.dport = own.port.to_be();
        12
    } else {
        tuple.__bindgen_anon_1.ipv6.daddr = own.words;
        tuple.__bindgen_anon_1.ipv6.dport = own.port.to_be();
        36
    };
    // SAFETY: the context is this program's, and the tuple has room for what `size` says.
    let sk: *mut bpf_sock = unsafe {
        if protocol == IPPROTO_TCP {
            bpf_sk_lookup_tcp(ctx, &raw mut tuple, size, BPF_F_CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(ctx, &raw mut tuple, size, BPF_F_CURRENT_NETNS, 0)
        }
    };
    if sk.is_null() {
        return NOBODY;
    }
    let owner = OURS.get(sk).map_or(STRANGER, |owner| u64::from(*owner));
    // SAFETY: the lookup's reference, given back once.
    unsafe { bpf_sk_release(sk.cast()) };
    owner
}

/// Somebody who isn't governed connects a socket anew that a governed process may have too: where it was steered to, or that it
/// answers, holds no longer.
#[inline(always)]
fn forget(ctx: &SockAddrContext) {
    // SAFETY: the verifier knows `sock_addr` as this program's context; it insists that the socket isn't null.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if !sk.is_null() {
        STEERED.remove(sk);
        INBOUND.remove(sk);
    }
}

/// A call of somebody who isn't governed: it may go anywhere but to the daemon's sockets, where it would be taken for a
/// workload.
#[inline(always)]
fn pass_by(ctx: &SockAddrContext, asked: Address, protocol: u32) -> i32 {
    if !asked.is_own() {
        return ALLOW;
    }
    if is_door(ctx, asked.port, protocol) { denied() } else { ALLOW }
}

/// Whether this port of the host's own is one of the daemon's, also of one that is down.
#[inline(always)]
pub(super) fn is_door(ctx: &SockAddrContext, port: u16, protocol: u32) -> bool {
    // SAFETY: the context is this program's.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    let protocol = if protocol == IPPROTO_UDP { IPPROTO_UDP } else { IPPROTO_TCP };
    DOORS.get_ptr(DoorKey { netns, port: u32::from(port), protocol }).is_some()
}

#[inline(always)]
fn refuse(workload: u32, kind: Kind) -> i32 {
    count(workload, kind, Fate::Refused);
    denied()
}

/// ECONNREFUSED, which a client takes for an answer, instead of EPERM.
#[inline(always)]
fn denied() -> i32 {
    // SAFETY: a helper without pointers.
    let _ = unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}

#[inline(always)]
fn as_asked(ctx: &SockAddrContext, family: Family) -> i32 {
    // SAFETY: the verifier knows `sock_addr` as this program's context.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if sk.is_null() {
        return ALLOW;
    }
    if let Some(flow) = STEERED.get(sk) {
        let from = Address::asked(ctx.sock_addr, family);
        if from.is_own() {
            Address { words: flow.address, port: flow.port as u16 }.put(ctx.sock_addr, family);
        }
    }
    ALLOW
}
