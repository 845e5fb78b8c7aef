//! Adopted workloads: processes in cgroups that others made, in network namespaces that others made. The hooks sit on the
//! root of cgroup2 and decide by the calling task's cgroup, so that it doesn't matter where a socket was made. A governed
//! connect is rewritten to the daemon's listener of its network namespace; where it was to go is kept with the socket,
//! published under the socket's address before the SYN leaves, and handed to the daemon's end when that is established.
//! What can't be steered is refused, and what was never steered doesn't leave.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics), expect(internal_features))]

#[cfg(target_arch = "bpf")]
#[path = "../ops.rs"]
mod ops;

#[cfg(target_arch = "bpf")]
mod bpf {
    mod address;
    mod bind;
    mod device;
    mod egress;
    mod established;
    mod govern;
    mod missed;
    mod option;
    mod publish;
    mod socket;
    mod steer;
    mod storage;
    mod tally;

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
