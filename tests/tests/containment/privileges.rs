//! Other processes, sockets, system calls, descriptors.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use interceptor::launch::LaunchError;
use interceptor::launch::channel::ToClient;
use interceptor_tests::require_root;

use super::fixture::{Launcher, UID};

macro_rules! refused {
    ($($(#[$meta:meta])* $name:ident: $attempt:expr => $errno:literal;)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            require_root!();
            let launcher = Launcher::new();
            let attempt: fn(&Launcher) -> String = $attempt;
            assert_eq!(attempt(&launcher), $errno);
        }
    )*};
}

fn socket(launcher: &Launcher, family: i32, kind: i32, protocol: i32) -> String {
    launcher.syscall(libc::SYS_socket, &[family.into(), kind.into(), protocol.into()])
}

refused! {
    memory_of_an_outside_process: |l| l.attempt(&["read", &format!("/proc/{}/mem", l.outside())]) => "ENOENT";
    environment_of_an_outside_process: |l| l.attempt(&["read", &format!("/proc/{}/environ", l.outside())]) => "ENOENT";
    root_of_an_outside_process: |l| l.attempt(&["list", &format!("/proc/{}/root", l.outside())]) => "ENOENT";
    descriptors_of_an_outside_process: |l| l.attempt(&["list", &format!("/proc/{}/fd", l.outside())]) => "ENOENT";
    descriptors_of_process_1: |l| l.attempt(&["list", "/proc/1/fd"]) => "EACCES";
    environment_of_process_1: |l| l.attempt(&["read", "/proc/1/environ"]) => "EACCES";
    root_of_process_1: |l| l.attempt(&["list", "/proc/1/root/"]) => "EACCES";
    ptrace: |l| l.syscall(libc::SYS_ptrace, &[16, l.outside().parse().unwrap()]) => "EPERM";
    writing_the_memory_of_an_outside_process: |l| l.attempt(&["write-memory", &l.outside()]) => "ESRCH";
    taking_a_descriptor_of_an_outside_process: |l| l.attempt(&["take-descriptor", &l.outside()]) => "ESRCH";
    killing_an_outside_process: |l| l.syscall(libc::SYS_kill, &[l.outside().parse().unwrap(), 9]) => "ESRCH";
    killing_process_1: |l| l.syscall(libc::SYS_kill, &[1, 9]) => "EPERM";

    raw_socket_v4: |l| socket(l, libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP) => "EPERM";
    raw_socket_v6: |l| socket(l, libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW) => "EPERM";
    packet_socket: |l| socket(l, libc::AF_PACKET, libc::SOCK_DGRAM, 0) => "EAFNOSUPPORT";
    old_packet_socket: |l| socket(l, libc::AF_INET, 10, 0x300) => "EPROTONOSUPPORT";
    vsock: |l| socket(l, libc::AF_VSOCK, libc::SOCK_STREAM, 0) => "EAFNOSUPPORT";
    xdp: |l| socket(l, libc::AF_XDP, libc::SOCK_RAW, 0) => "EAFNOSUPPORT";
    alg: |l| socket(l, libc::AF_ALG, libc::SOCK_SEQPACKET, 0) => "EAFNOSUPPORT";
    ping_socket: |l| socket(l, libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP) => "EPROTONOSUPPORT";
    udp_lite: |l| socket(l, libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE) => "EPROTONOSUPPORT";
    sctp_stream: |l| socket(l, libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP) => "EPROTONOSUPPORT";
    sctp_by_type: |l| socket(l, libc::AF_INET, libc::SOCK_SEQPACKET, 0) => "ESOCKTNOSUPPORT";
    mptcp: |l| socket(l, libc::AF_INET, libc::SOCK_STREAM, 262) => "EPROTONOSUPPORT";
    smc_by_protocol: |l| socket(l, libc::AF_INET6, libc::SOCK_STREAM, 256) => "EPROTONOSUPPORT";
    dccp: |l| socket(l, libc::AF_INET, 6, libc::IPPROTO_DCCP) => "EPROTONOSUPPORT";
    type_flags_hide_nothing: |l| socket(l, libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) => "EPERM";
    netfilter_netlink: |l| socket(l, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER) => "EPROTONOSUPPORT";
    socket_diagnosis: |l| socket(l, libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_SOCK_DIAG) => "EPROTONOSUPPORT";
    tipc_pair: |l| l.syscall(libc::SYS_socketpair, &[libc::AF_TIPC.into(), libc::SOCK_SEQPACKET.into(), 0, 0]) => "EAFNOSUPPORT";
    tcp_is_there: |l| socket(l, libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP) => "ok";
    udp_is_there: |l| socket(l, libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) => "ok";
    route_netlink_is_there: |l| socket(l, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) => "ok";

    io_uring: |l| l.syscall(libc::SYS_io_uring_setup, &[8, 0]) => "ENOSYS";
    clone3: |l| l.syscall(libc::SYS_clone3, &[0, 0]) => "ENOSYS";
    userfaultfd: |l| l.syscall(libc::SYS_userfaultfd, &[1]) => "ENOSYS";
    unshare_user: |l| l.syscall(libc::SYS_unshare, &[libc::CLONE_NEWUSER.into()]) => "EPERM";
    unshare_user_and_net: |l| l.syscall(libc::SYS_unshare, &[(libc::CLONE_NEWUSER | libc::CLONE_NEWNET).into()]) => "EPERM";
    clone_user: |l| l.syscall(libc::SYS_clone, &[(libc::CLONE_NEWUSER | libc::SIGCHLD).into(), 0]) => "EPERM";
    unsharing_files_is_harmless: |l| l.syscall(libc::SYS_unshare, &[libc::CLONE_FILES.into()]) => "ok";
    entering_a_namespace: |l| l.syscall(libc::SYS_setns, &[0, 0]) => "EPERM";
    inherited_keyring: |l| l.syscall(libc::SYS_keyctl, &[0, -3, 0]) => "EPERM";
    planting_a_key: |l| l.syscall(libc::SYS_add_key, &[0, 0, 0, 0, -3]) => "EPERM";
    asking_for_a_key: |l| l.syscall(libc::SYS_request_key, &[0, 0, 0, -3]) => "EPERM";
    mounting: |l| l.syscall(libc::SYS_fsopen, &[0, 0]) => "EPERM";
    uncovering: |l| l.syscall(libc::SYS_umount2, &[0, 0]) => "EPERM";
    copying_a_mount: |l| l.syscall(libc::SYS_open_tree, &[-100, 0, 0]) => "EPERM";
    opening_by_handle: |l| l.syscall(libc::SYS_open_by_handle_at, &[-100, 0, 0]) => "EPERM";
    loading_bpf: |l| l.syscall(libc::SYS_bpf, &[0, 0, 0]) => "EPERM";
    the_kernels_log: |l| l.syscall(libc::SYS_syslog, &[10, 0, 0]) => "EPERM";
    marking_a_socket: |l| l.attempt(&["mark"]) => "EPERM";
    binding_to_a_device: |l| l.attempt(&["bind-to-device", "eth0"]) => "ENODEV";
    typing_into_the_terminal: |l| l.attempt(&["input-ioctl", "21522"]) => "EPERM";
    pasting_into_the_console: |l| l.attempt(&["input-ioctl", "21532"]) => "EPERM";
    setting_a_line_discipline: |l| l.attempt(&["input-ioctl", "21539"]) => "EPERM";
    typing_with_high_bits_in_the_request: |l| l.syscall(libc::SYS_ioctl, &[0, 0x1_0000_5412, 0]) => "EPERM";
    leaving_the_cgroup: |l| l.attempt(&["list", "/sys/fs/cgroup"]) => "";
    becoming_root: |l| l.syscall(libc::SYS_setuid, &[0]) => "EPERM";
    abstract_socket_of_the_host: |l| {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(b"interceptor-test").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address);
        l.run(&["python3", "-c", "import socket\ntry: socket.socket(socket.AF_UNIX).connect('\\0interceptor-test')\nexcept OSError as e: print(e.errno)"]).output.trim().replace("111", "ECONNREFUSED")
    } => "ECONNREFUSED";
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_other_table_of_system_calls() {
    require_root!();
    let launcher = Launcher::new();
    assert_eq!(launcher.syscall(0x4000_0000 + libc::SYS_getpid, &[]), "ENOSYS");
}

#[test]
fn nothing_of_root_is_left() {
    require_root!();
    let launcher = Launcher::new();
    let status = launcher.run(&["cat", "/proc/self/status"]).output;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{status}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("Uid"), [UID; 4].map(|uid| uid.to_string()).join("\t"));
    assert_eq!(field("Gid"), [UID; 4].map(|gid| gid.to_string()).join("\t"));
    assert_eq!(field("Groups"), "");
    assert_eq!(field("SigBlk"), "0000000000000000");
    let callers = std::fs::read_to_string(format!("/proc/{}/status", launcher.outside())).unwrap();
    assert!(callers.contains(&format!("SigIgn:\t{}", field("SigIgn"))), "what the caller ignores");
}

#[test]
fn process_1_keeps_one_capability() {
    require_root!();
    let launcher = Launcher::new();
    let launched = launcher.start(&["sleep", "30"], |_| {}).unwrap();
    let init = launched.running.workload().init;
    let file = format!("/proc/{init}/status");
    let status = (0..2_000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        std::fs::read_to_string(&file).ok().filter(|status| status.contains("Seccomp:\t2"))
    });
    let status = status.expect("process 1 gives up what it had");
    for line in
        ["CapEff:\t0000000000000020", "CapPrm:\t0000000000000020", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"]
    {
        assert!(status.contains(line), "{line}: {status}");
    }
    launched.running.kill().unwrap();
    let outcome = launched.finish();
    assert_eq!(outcome.end, None, "killed from outside, nobody reports");
}

#[test]
fn only_three_descriptors_cross() {
    require_root!();
    assert_eq!(Launcher::new().attempt(&["descriptors"]), "0 1 2");
}

#[test]
fn a_directory_as_input_is_refused() {
    require_root!();
    let launcher = Launcher::new();
    let refused = launcher.start(&["true"], |order| order.stdio[0] = File::open("/").unwrap().into());
    let Err(LaunchError::Descriptor { name, what }) = refused.map(drop) else { panic!("it was taken") };
    assert_eq!((name, what.as_str()), ("standard input", "a directory"));
}

#[test]
fn a_network_socket_as_input_is_refused() {
    require_root!();
    let launcher = Launcher::new();
    let socket = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let refused = launcher.start(&["true"], |order| order.stdio[0] = socket);
    assert!(matches!(refused.map(drop), Err(LaunchError::Descriptor { name: "standard input", .. })));
}

#[test]
fn a_message_queue_of_the_host_isnt_there() {
    require_root!();
    let launcher = Launcher::new();
    assert_eq!(launcher.attempt(&["list", "/dev/mqueue"]), "");
    assert_eq!(launcher.run(&["cat", "/proc/sysvipc/shm"]).output.lines().count(), 1, "only the heading");
}

#[test]
fn the_exit_of_the_probe_is_seen() {
    require_root!();
    assert_eq!(Launcher::new().run(&["false"]).end, Some(ToClient::Exited(1)));
}
