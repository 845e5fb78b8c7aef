//! Ways whose going well is the escape itself: nothing of them has to arrive anywhere.

use super::workload::Kind;

/// Whose going well it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Everybody's who is governed.
    All,
    /// Who isn't root of a network namespace of its own, where it would be nobody else's matter.
    NotOwnNetwork,
    /// Who is adopted, and in the network of the host.
    AdoptedInHosts,
}

/// What going well looks like, where it isn't `ok`: the call was let through, and only then found nothing to do.
const NO_MODULE: &str = "EBADF";
const NO_SUCH_ID: &str = "ENOENT";
const BAD_ADDRESS: &str = "EFAULT";
/// The other architecture's table of calls made the socket; only its use was refused.
const NOT_SENT: &str = "ECONNREFUSED";

/// The ways, whose, and what else than `ok` it says when it went well.
const NEVER: &[(&str, Of, &[&str])] = &[
    ("into the cgroup above", Of::All, &[]),
    ("a child born in another cgroup (clone3)", Of::All, &[]),
    ("the cgroups uncovered (umount)", Of::All, &[]),
    ("the root left (chroot)", Of::All, &[]),
    ("the user namespace of a process outside", Of::All, &[]),
    ("io_uring", Of::All, &[]),
    ("bpf: the first link, to detach it", Of::All, &[NO_SUCH_ID]),
    ("bpf: the first program", Of::All, &[NO_SUCH_ID]),
    ("bpf: the first map", Of::All, &[NO_SUCH_ID]),
    ("bpf: detaching what the root of the cgroups has", Of::All, &[]),
    ("bpf: what the daemon has pinned", Of::All, &[]),
    ("removing what the daemon has pinned", Of::All, &[]),
    ("/dev/net/tun", Of::All, &[]),
    ("/dev/vhost-net", Of::All, &[]),
    ("/dev/vhost-vsock", Of::All, &[]),
    ("/dev/ppp", Of::All, &[]),
    ("/dev/mem", Of::All, &[]),
    ("/proc/kcore", Of::All, &[]),
    ("/proc/sys/net/ipv4/ip_forward", Of::NotOwnNetwork, &[]),
    ("/proc/sys/kernel/core_pattern", Of::All, &[]),
    ("/proc/sysrq-trigger", Of::All, &[]),
    ("a device node of its own", Of::All, &[]),
    ("ptrace of a process outside", Of::All, &[]),
    ("ptrace of the daemon", Of::All, &[]),
    ("writing the memory of a process outside", Of::All, &[BAD_ADDRESS]),
    ("/proc/PID/mem of a process outside", Of::All, &[]),
    ("killing the daemon", Of::All, &[]),
    ("a descriptor of a process outside", Of::All, &[]),
    ("an interface's address (ioctl)", Of::All, &[]),
    ("an interface down (ioctl)", Of::All, &[]),
    ("a firewall of its own (ip_tables)", Of::NotOwnNetwork, &[]),
    ("a new route by netlink", Of::NotOwnNetwork, &[]),
    ("a kernel module", Of::All, &[NO_MODULE]),
    ("another kernel (kexec)", Of::All, &[]),
    ("root, by setuid", Of::All, &[]),
    ("x32: a socket", Of::All, &[NOT_SENT]),
    ("i386: a socket", Of::All, &[NOT_SENT]),
    ("i386: socketcall", Of::All, &[BAD_ADDRESS]),
    ("i386: a vsock", Of::All, &[NOT_SENT]),
    ("the daemon's control socket", Of::All, &[]),
    ("the daemon's metrics socket", Of::All, &[]),
    ("binding a port of the daemon's", Of::AdoptedInHosts, &[]),
    ("xdp", Of::All, &[]),
    ("alg", Of::All, &[]),
    ("key (IPsec)", Of::All, &[]),
    ("smc", Of::All, &[]),
    ("tipc stream", Of::All, &[]),
    ("tipc dgram", Of::All, &[]),
    ("rds", Of::All, &[]),
    ("can raw", Of::All, &[]),
    ("can bcm", Of::All, &[]),
    ("bluetooth l2cap", Of::All, &[]),
    ("bluetooth hci", Of::All, &[]),
    ("kcm", Of::All, &[]),
    ("qipcrtr", Of::All, &[]),
];

/// Whether what a process of this kind saw of a way is that it escaped.
pub(super) fn is_escape(name: &str, kind: Kind, mode: &str, said: &str) -> bool {
    let own_network = mode == "root+net";
    NEVER.iter().any(|(never, of, besides)| {
        let concerns = match of {
            Of::All => true,
            Of::NotOwnNetwork => !own_network,
            Of::AdoptedInHosts => kind == Kind::Adopted && !own_network,
        };
        *never == name && concerns && (said == "ok" || besides.contains(&said))
    })
}

/// Those ways that nobody tries: their names are wrong.
pub(crate) fn unknown(names: &[String]) -> Vec<&'static str> {
    NEVER.iter().map(|(never, ..)| *never).filter(|never| !names.iter().any(|name| name == never)).collect()
}
