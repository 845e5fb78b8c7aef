//! Steering: one `sk_lookup` program for each workload's network namespace, in which every address is local. It hands
//! every TCP connect to the daemon's listener there; the original destination stays the accepted socket's own address.
//! Loopback is the workload's own, except DNS and the ports that a target names.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod bpf {
    use aya_ebpf::bindings::bpf_sk_lookup;
    use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
    use aya_ebpf::macros::{map, sk_lookup};
    use aya_ebpf::maps::{HashMap, SockMap};
    use aya_ebpf::programs::SkLookupContext;
    use interceptor_common::{DNS_PORT, LISTENER_V4, LISTENER_V6};

    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    const IPPROTO_TCP: u32 = 6;
    const BPF_F_NO_PREALLOC: u32 = 1;

    /// The daemon's listeners; the kernel empties a slot when its listener is closed.
    #[map]
    static LISTENERS: SockMap = SockMap::with_max_entries(2, 0);

    /// Loopback ports that are steered besides DNS.
    #[map]
    static PORTS: HashMap<u16, u8> = HashMap::with_max_entries(65_535, BPF_F_NO_PREALLOC);

    #[sk_lookup]
    fn steer(ctx: SkLookupContext) -> u32 {
        let lookup = ctx.lookup;
        // SAFETY: the verifier knows `lookup` as this program's context. Reads are volatile so that the compiler
        // keeps them 32 bits wide, which is all that the verifier takes.
        let (protocol, family) =
            unsafe { ((&raw const (*lookup).protocol).read_volatile(), (&raw const (*lookup).family).read_volatile()) };
        if protocol != IPPROTO_TCP {
            // No UDP socket but the resolver's is bound to a port below 1024, and nothing leaves the namespace.
            return SK_PASS;
        }
        let listener = match family {
            AF_INET => LISTENER_V4,
            AF_INET6 => LISTENER_V6,
            _ => return SK_DROP,
        };
        if is_loopback(lookup, family) && !is_steered(lookup) {
            return SK_PASS;
        }
        // Without a listener (the daemon is down) the connect is refused; a workload's own listener never gets it.
        match LISTENERS.redirect_sk_lookup(&ctx, listener, 0) {
            Ok(()) => SK_PASS,
            Err(_) => SK_DROP,
        }
    }

    #[inline(always)]
    fn is_loopback(lookup: *mut bpf_sk_lookup, family: u32) -> bool {
        if family == AF_INET {
            // SAFETY: as in `steer`.
            let address = unsafe { (&raw const (*lookup).local_ip4).read_volatile() };
            return u32::from_be(address) >> 24 == 127;
        }
        // SAFETY: as in `steer`.
        let word = |at: usize| unsafe { (&raw const (*lookup).local_ip6[at]).read_volatile() };
        word(0) == 0 && word(1) == 0 && word(2) == 0 && u32::from_be(word(3)) == 1
    }

    #[inline(always)]
    fn is_steered(lookup: *mut bpf_sk_lookup) -> bool {
        // SAFETY: as in `steer`.
        let port = unsafe { (&raw const (*lookup).local_port).read_volatile() } as u16;
        port == DNS_PORT || PORTS.get_ptr(port).is_some()
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
