use super::*;

const IP: [i32; 2] = [libc::AF_INET, libc::AF_INET6];
const MPTCP: i32 = 262;

fn socket(family: i32, kind: i32, protocol: i32) -> libc::seccomp_data {
    call(libc::SYS_socket, family, kind, protocol)
}

fn call(number: libc::c_long, family: i32, kind: i32, protocol: i32) -> libc::seccomp_data {
    // What is above the lower half isn't the kernel's concern.
    let register = |value: i32| u64::from(value.cast_unsigned()) | 0xdead << 32;
    let args = [register(family), register(kind), register(protocol), 0, 0, 0];
    libc::seccomp_data { nr: i32::try_from(number).unwrap(), arch: 0, instruction_pointer: 0, args }
}

#[test]
fn what_is_refused_counts_as_what_it_is_and_gets_the_errno_of_a_kernel_without_it() {
    for ip in IP {
        assert_eq!(judge(&socket(ip, libc::SOCK_RAW, libc::IPPROTO_ICMP)), (Kind::Raw, libc::EPERM));
        assert_eq!(judge(&socket(ip, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)), (Kind::Raw, libc::EPERM));
        assert_eq!(judge(&socket(ip, libc::SOCK_STREAM, MPTCP)), (Kind::Raw, libc::EPROTONOSUPPORT));
        assert_eq!(judge(&socket(ip, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)), (Kind::Raw, libc::EPROTONOSUPPORT));
        assert_eq!(judge(&socket(ip, libc::SOCK_SEQPACKET, 0)), (Kind::Raw, libc::ESOCKTNOSUPPORT));
        assert_eq!(judge(&socket(ip, 10, 0)), (Kind::Packet, libc::ESOCKTNOSUPPORT));
        assert_eq!(judge(&socket(ip, 10, 0x300)), (Kind::Packet, libc::EPROTONOSUPPORT));
    }
    assert_eq!(judge(&socket(libc::AF_PACKET, libc::SOCK_RAW, 0)), (Kind::Packet, libc::EAFNOSUPPORT));
    assert_eq!(judge(&socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)), (Kind::Other, libc::EAFNOSUPPORT));
    assert_eq!(judge(&socket(libc::AF_NETLINK, libc::SOCK_RAW, 12)), (Kind::Other, libc::EPROTONOSUPPORT));
    assert_eq!(judge(&call(libc::SYS_socketpair, libc::AF_INET, libc::SOCK_RAW, 0)), (Kind::Other, libc::EAFNOSUPPORT));
}

#[test]
fn counts_are_read_as_they_were_written_and_none_are_there_of_an_earlier_version() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Refused::read(folder.path()).unwrap(), Refused::default());
    let file = Refused::create(folder.path()).unwrap();
    assert_eq!(Refused::read(folder.path()).unwrap(), Refused::default());
    let mut refused = Refused::default();
    let times = [(Kind::Raw, 3), (Kind::Packet, 1), (Kind::Other, u8::MAX), (Kind::Other, u8::MAX)];
    times.into_iter().for_each(|(kind, times)| (0..times).for_each(|_| refused.add(kind)));
    refused.write(&file).unwrap();
    assert_eq!(Refused::read(folder.path()).unwrap(), Refused { raw: 3, packet: 1, other: 510 });
    assert!(Refused::create(folder.path()).is_err(), "counts were overwritten");
    file.set_len(23).unwrap();
    assert!(Refused::read(folder.path()).is_err(), "a part was taken for the whole");
}
