//! Ports that a governed process can't bind: the daemon's own, on the loopback of its network namespace, or on all of its
//! addresses. Also while no daemon listens there, so that nobody asks for its place. Who asks for any port (0, or a listen
//! without a bind) may be given it all the same then, which no hook sees: he gets nothing, because a connect goes to the daemon's
//! own sockets only (`is_ours` of steer.rs).

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use interceptor_common::{Fate, Kind};

use super::address::{Address, Family};
use super::govern;
use super::steer::is_door;
use super::tally::count;

const EADDRINUSE: i32 = 98;

const DENY: i32 = 0;
const ALLOW: i32 = 1;

#[cgroup_sock_addr(bind4)]
fn bind4(ctx: SockAddrContext) -> i32 {
    bind(&ctx, Family::V4)
}

#[cgroup_sock_addr(bind6)]
fn bind6(ctx: SockAddrContext) -> i32 {
    bind(&ctx, Family::V6)
}

#[inline(always)]
fn bind(ctx: &SockAddrContext, family: Family) -> i32 {
    let Some(governed) = govern::of_task() else { return ALLOW };
    // All addresses count as the host's own one, which the daemon is at.
    let asked = Address::asked(ctx.sock_addr, family);
    if !asked.is_own() {
        return ALLOW;
    }
    // SAFETY: the verifier knows `sock_addr` as this program's context.
    let protocol = unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() };
    if !is_door(ctx, asked.port, protocol) {
        return ALLOW;
    }
    count(governed.workload, Kind::Other, Fate::Refused);
    // What it is told while the daemon is there, whose port it is, so that it takes another one.
    // SAFETY: a helper without pointers.
    let _ = unsafe { bpf_set_retval(-EADDRINUSE) };
    DENY
}
