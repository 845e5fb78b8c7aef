//! Attribution: the connect hooks note on the socket which process and thread connects it; the sock_ops program
//! publishes that under the socket's own address before the SYN leaves, where the daemon finds it by the address of the
//! accepted peer. Evidence only: nothing here decides where a connection goes. What came of each connect is counted for
//! the ledger.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod bpf {
    use core::ptr;

    use aya_ebpf::bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT, bpf_sock_ops,
    };
    use aya_ebpf::btf_maps::SkStorage;
    use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get};
    use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
    use aya_ebpf::macros::{btf_map, cgroup_sock_addr, map, sock_ops};
    use aya_ebpf::maps::{LruHashMap, PerCpuHashMap};
    use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
    use interceptor_common::{Fate, Kind, Origin, OriginKey, SpaceKey};

    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    const SOCK_STREAM: u32 = 1;
    const ALLOW: i32 = 1;

    /// Who connected a socket, kept with the socket.
    #[btf_map]
    static PROCESSES: SkStorage<Origin> = SkStorage::new();

    /// Who connected the sockets whose peer hasn't been asked about yet; the oldest make way.
    #[map]
    static ORIGINS: LruHashMap<OriginKey, Origin> = LruHashMap::with_max_entries(32_768, 0);

    /// What came of connects.
    #[map]
    static SPACES: PerCpuHashMap<SpaceKey, u64> = PerCpuHashMap::with_max_entries(32_768, 1);

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
        let key = SpaceKey { netns: key.netns, what: Kind::Tcp as u32 | ((fate as u32) << 16), padding: 0 };
        match SPACES.get_ptr_mut(key) {
            // SAFETY: a value of this map, this processor's own.
            Some(count) => unsafe { *count += 1 },
            None => {
                let _ = SPACES.insert(key, 1, 0);
            }
        }
    }

    #[inline(always)]
    fn noted(ops: *mut bpf_sock_ops) -> Option<&'static Origin> {
        // SAFETY: the verifier knows `ops` as this program's context; it insists on the check for null.
        let sk = unsafe { (*ops).__bindgen_anon_2.sk };
        if sk.is_null() {
            return None;
        }
        let map = ptr::from_ref(&PROCESSES).cast_mut().cast();
        // SAFETY: the loader puts the map's address in place of `map`; `sk` isn't null.
        let slot = unsafe { bpf_sk_storage_get(map, sk.cast(), ptr::null_mut(), 0) }.cast::<Origin>();
        // SAFETY: null, or a value of this map that lives as long as the socket.
        unsafe { slot.as_ref() }
    }

    /// The key that the peer will ask for. A connect of an IPv6 socket to a mapped address is IPv4 to the peer.
    #[inline(always)]
    fn key(ctx: &SockOpsContext) -> Option<OriginKey> {
        let ops = ctx.ops;
        let mapped = 0xffff_u32.to_be();
        // SAFETY: the verifier knows `ops` as this program's context. Reads are volatile so that the compiler keeps
        // them 32 bits wide, which is all that the verifier takes.
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
        Some(OriginKey {
            // SAFETY: `ops` is this program's context.
            netns: unsafe { bpf_get_netns_cookie(ops.cast()) },
            local,
            remote,
            local_port: ctx.local_port(),
            remote_port: u32::from_be(remote_port),
        })
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
