//! Devices by which packets leave without a socket: tunnels that somebody has given to the process's user, the host's ends
//! of virtual machines, and RDMA.

use aya_ebpf::macros::cgroup_device;
use aya_ebpf::programs::DeviceContext;
use interceptor_common::{Fate, Kind};

use super::govern;
use super::tally::count;

/// `BPF_DEVCG_DEV_CHAR` of include/uapi/linux/bpf.h.
const CHARACTER: u32 = 2;

/// Miscellaneous character devices, and among them /dev/net/tun, /dev/vhost-net and /dev/vhost-vsock
/// (include/linux/miscdevice.h).
const MISCELLANEOUS: u32 = 10;
const TUNNELS: [u32; 3] = [200, 238, 241];

/// Verbs and management datagrams of RDMA (`IB_UVERBS_MAJOR`, `IB_UMAD_MAJOR` of drivers/infiniband/core).
const RDMA: u32 = 231;

#[cgroup_device]
fn device(ctx: DeviceContext) -> i32 {
    // SAFETY: the verifier knows `device` as this program's context.
    let (access, major, minor) = unsafe {
        (
            (&raw const (*ctx.device).access_type).read_volatile(),
            (&raw const (*ctx.device).major).read_volatile(),
            (&raw const (*ctx.device).minor).read_volatile(),
        )
    };
    let leads_out = major == RDMA || major == MISCELLANEOUS && TUNNELS.contains(&minor);
    if access & 0xffff != CHARACTER || !leads_out {
        return 1;
    }
    let Some(governed) = govern::of_task() else { return 1 };
    count(governed.workload, Kind::Other, Fate::Refused);
    0
}
