//! Addresses as the hooks see them. Reads and writes of the context are volatile, so that the compiler keeps them 32
//! bits wide, which is all that the verifier takes.

use aya_ebpf::bindings::bpf_sock_addr;

/// Which of the two kinds of hook it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// An address in network order, IPv4 as `::ffff:a.b.c.d`, and a port in host order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) words: [u32; 4],
    pub(super) port: u16,
}

const LOOPBACK: u32 = u32::from_be_bytes([127, 0, 0, 1]).to_be();
const MAPPED: u32 = 0xffff_u32.to_be();
const ONE: u32 = 1_u32.to_be();

impl Address {
    /// Where the call goes to. The unspecified address is the host itself, as it is to connect(2).
    #[inline(always)]
    pub(super) fn asked(ctx: *mut bpf_sock_addr, family: Family) -> Self {
        // SAFETY: the verifier knows `ctx` as the program's context.
        let port = unsafe { (&raw const (*ctx).user_port).read_volatile() };
        let words = match family {
            // SAFETY: as above.
            Family::V4 => [0, 0, MAPPED, unsafe { (&raw const (*ctx).user_ip4).read_volatile() }],
            Family::V6 => {
                // SAFETY: as above.
                let word = |at: usize| unsafe { (&raw const (*ctx).user_ip6[at]).read_volatile() };
                [word(0), word(1), word(2), word(3)]
            }
        };
        let words = match words {
            [0, 0, MAPPED, 0] => [0, 0, MAPPED, LOOPBACK],
            [0, 0, 0, 0] => [0, 0, 0, ONE],
            other => other,
        };
        Self { words, port: u16::from_be(port as u16) }
    }

    /// A port of the host itself, as a socket that asked for `self` can reach it.
    #[inline(always)]
    pub(super) fn own(self, port: u16) -> Self {
        Self::loopback(self.is_v4(), port)
    }

    /// A port of 127.0.0.1 or ::1.
    #[inline(always)]
    pub(super) fn loopback(is_v4: bool, port: u16) -> Self {
        let words = if is_v4 { [0, 0, MAPPED, LOOPBACK] } else { [0, 0, 0, ONE] };
        Self { words, port }
    }

    /// Whether it is IPv4, mapped or not.
    #[inline(always)]
    pub(super) fn is_v4(self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Whether it is 127.0.0.1 or ::1.
    #[inline(always)]
    pub(super) fn is_own(self) -> bool {
        self.words == self.own(0).words
    }

    /// The last word: all of an IPv4 address.
    #[inline(always)]
    pub(super) fn v4(self) -> u32 {
        self.words[3]
    }

    /// Puts it in the place of the call's.
    #[inline(always)]
    pub(super) fn put(self, ctx: *mut bpf_sock_addr, family: Family) {
        // SAFETY: the verifier knows `ctx` as the program's context.
        unsafe {
            match family {
                Family::V4 => (&raw mut (*ctx).user_ip4).write_volatile(self.words[3]),
                Family::V6 => {
                    (&raw mut (*ctx).user_ip6[0]).write_volatile(self.words[0]);
                    (&raw mut (*ctx).user_ip6[1]).write_volatile(self.words[1]);
                    (&raw mut (*ctx).user_ip6[2]).write_volatile(self.words[2]);
                    (&raw mut (*ctx).user_ip6[3]).write_volatile(self.words[3]);
                }
            }
            (&raw mut (*ctx).user_port).write_volatile(u32::from(self.port.to_be()));
        }
    }
}
