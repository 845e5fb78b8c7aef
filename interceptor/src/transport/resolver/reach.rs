//! Which addresses are globally reachable, by IANA's special-purpose registries: what a server's own guard goes by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is globally reachable, as Python's `ipaddress.is_global` and most guards have it; multicast isn't,
/// and an address that carries an IPv4 address inside (NAT64, 6to4) is what that one is.
pub(super) fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 10 | 127, ..] | [169, 254, ..] | [192, 168, ..] => true,
        [100, second, ..] => second & 0xc0 == 64,
        [172, second, ..] => second & 0xf0 == 16,
        [192, 0, 0, last] => !matches!(last, 9 | 10),
        [192, 0, 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        [first, ..] => first >= 224,
    };
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| is_global_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Of the block for protocols only anycast, AMT, AS112, ORCHIDv2 and drone ids are global.
        [0x2001, 1, 0, 0, 0, 0, 0, last] => matches!(last, 1..=3),
        [0x2001, second, third, ..] if second < 0x200 => {
            second == 3 || (second == 4 && third == 0x112) || (0x20..0x40).contains(&second)
        }
        [0x2001, 0xdb8, ..] => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
