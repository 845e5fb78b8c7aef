//! Attribution: the connect hooks note on the socket which process and thread connects it; the sock_ops program
//! publishes that under the socket's own address before the SYN leaves, where the daemon finds it by the address of the
//! accepted peer. Evidence only: nothing here decides where a connection goes. What came of each connect is counted for
//! the ledger; see `counts.rs`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod counts;
#[cfg(target_arch = "bpf")]
mod ops;

#[cfg(target_arch = "bpf")]
mod bpf {
    use core::ptr;

    use aya_ebpf::bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT, bpf_sock_ops,
    };
    use aya_ebpf::btf_maps::SkStorage;
    use aya_ebpf::helpers::generated::bpf_sk_storage_get;
    use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
    use aya_ebpf::macros::{btf_map, cgroup_sock_addr, map, sock_ops};
    use aya_ebpf::maps::LruHashMap;
    use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
    use interceptor_common::{Fate, Kind, Origin, OriginKey};

    use crate::counts;
    use crate::ops::{key, socket};

    const SOCK_STREAM: u32 = 1;
    const ALLOW: i32 = 1;

    /// Who connected a socket, kept with the socket.
    #[btf_map]
    static PROCESSES: SkStorage<Origin> = SkStorage::new();

    /// Who connected the sockets whose peer hasn't been asked about yet; the oldest make way.
    #[map]
    static ORIGINS: LruHashMap<OriginKey, Origin> = LruHashMap::with_max_entries(32_768, 0);

    #[cgroup_sock_addr(connect4)]
    fn connect4(ctx: SockAddrContext) -> i32 {
        note(&ctx)
    }

    #[cgroup_sock_addr(connect6)]
    fn connect6(ctx: SockAddrContext) -> i32 {
        note(&ctx)
    }

    #[inline(always)]
    fn note(ctx: &SockAddrContext) -> i32 {
        // SAFETY: the verifier knows `sock_addr` as this program's context.
        if unsafe { (*ctx.sock_addr).type_ } != SOCK_STREAM {
            return ALLOW;
        }
        let ids = bpf_get_current_pid_tgid();
        let origin = Origin {
            pid: (ids >> 32) as u32,
            tid: ids as u32,
            uid: bpf_get_current_uid_gid() as u32,
            padding: 0,
            comm: bpf_get_current_comm().unwrap_or_default(),
        };
        // SAFETY: the socket of a connect hook is held for its time.
        let slot = unsafe { PROCESSES.get_or_insert_ptr_mut(ctx, None) };
        if !slot.is_null() {
            // SAFETY: not null, so it points to a value of this map.
            unsafe { *slot = origin };
        }
        ALLOW
    }

    #[sock_ops]
    fn publish(ctx: SockOpsContext) -> u32 {
        match ctx.op() {
            BPF_SOCK_OPS_TCP_CONNECT_CB => {
                if let Some(key) = key(&ctx) {
                    match noted(ctx.ops) {
                        Some(origin) => {
                            let _ = ORIGINS.insert(key, origin, 0);
                            let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
                        }
                        // Nobody, rather than whoever had this port before.
                        None => {
                            let _ = ORIGINS.remove(key);
                        }
                    }
                }
            }
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => {
                if let Some(key) = key(&ctx) {
                    count(&key, Fate::Established);
                }
            }
            // A connect that was refused: nobody will ask.
            BPF_SOCK_OPS_STATE_CB if ctx.arg(0) == BPF_TCP_SYN_SENT && ctx.arg(1) == BPF_TCP_CLOSE => {
                if let Some(key) = key(&ctx) {
                    let _ = ORIGINS.remove(key);
                    count(&key, Fate::Failed);
                }
            }
            _ => {}
        }
        1
    }

    /// Counts a connect. One to loopback, which is the workload's own but for a few ports, is allowed by that rule.
    #[inline(always)]
    fn count(key: &OriginKey, fate: Fate) {
        let [a, b, c, d] = key.remote;
        let is_loopback = match c {
            _ if a != 0 || b != 0 => false,
            0 => d == 1_u32.to_be(),
            mapped => mapped == 0xffff_u32.to_be() && u32::from_be(d) >> 24 == 127,
        };
        let fate = if is_loopback { Fate::Allowed } else { fate };
        counts::count(key.netns, Kind::Tcp, fate);
    }

    #[inline(always)]
    fn noted(ops: *mut bpf_sock_ops) -> Option<&'static Origin> {
        let sk = socket(ops)?;
        let map = ptr::from_ref(&PROCESSES).cast_mut().cast();
        // SAFETY: the loader puts the map's address in place of `map`; `sk` isn't null.
        let slot = unsafe { bpf_sk_storage_get(map, sk.cast(), ptr::null_mut(), 0) }.cast::<Origin>();
        // SAFETY: null, or a value of this map that lives as long as the socket.
        unsafe { slot.as_ref() }
    }

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
