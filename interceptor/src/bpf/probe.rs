//! What `doctor` says of the kernel: each thing that is needed, tried, and how to mend what is missing. Found by
//! loading, never by the kernel's version.

use std::path::Path;

use aya::EbpfLoader;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{HOOKS, STEER, UnixSockets, load_program, mounts, unix};

/// One thing that is needed of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// `None` if it is as it should be; else what is missing and how to mend it.
    pub trouble: Option<String>,
    /// Whether nothing works without it; otherwise workloads run with a lower containment level.
    pub required: bool,
}

/// Tries what the kernel half needs. Leaves nothing behind. Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, as the daemon
/// does.
pub fn probe() -> Vec<Finding> {
    let required = |name, trouble| Finding { name, trouble, required: true };
    let mut findings = vec![
        required("cgroup2", mounts::cgroup2().err().map(|error| error.to_string())),
        required("bpffs", bpffs()),
        required("kernel BTF", btf()),
    ];
    for (name, object, program) in [
        ("steering (sk_lookup)", STEER, "steer"),
        ("attribution (cgroup connect4)", HOOKS, "connect4"),
        ("attribution (cgroup connect6)", HOOKS, "connect6"),
        ("attribution (sock_ops)", HOOKS, "publish"),
        ("ledger (cgroup sock_create)", HOOKS, "create"),
        ("ledger (cgroup egress)", HOOKS, "egress"),
    ] {
        findings.push(required(name, loads(object, program)));
    }
    let (reached, error) = unix::probe();
    let trouble = match reached {
        UnixSockets::Filtered => None,
        UnixSockets::Denied => Some(
            "the kernel doesn't show the path of a unix socket, so that all are denied, abstract ones and `unix = […]` too; use Linux 6.7 or newer with CONFIG_DEBUG_INFO_BTF".into(),
        ),
        UnixSockets::Open => Some(format!(
            "pathname unix sockets can't be denied ({}), only hidden, and workloads count as steered; use Linux 6.7 or newer",
            error.map_or_else(|| "no such hook".into(), |error| error.to_string())
        )),
    };
    findings.push(Finding { name: "unix sockets (cgroup unix_connect)", trouble, required: false });
    let adoption = |trouble: Option<super::BpfError>| {
        trouble.map(|error| format!("workloads can't be adopted: {}", chain(&error)))
    };
    let optional = |name, trouble| Finding { name, trouble, required: false };
    findings.push(optional("adoption (hooks on the root of cgroup2)", adoption(super::adopt::Adopter::probe().err())));
    let filters = super::FilterReader::load().err();
    let filters = filters.map(|error| format!("no adopted workload counts as contained: {}", chain(&error)));
    findings.push(optional("adoption (reading seccomp filters)", filters));
    findings
}

fn bpffs() -> Option<String> {
    let mounted = statfs(Path::new("/sys/fs/bpf")).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    let can_mount = Path::new("/sys/fs/bpf").is_dir();
    (!mounted && !can_mount)
        .then(|| "/sys/fs/bpf doesn't exist; use a kernel with CONFIG_BPF_SYSCALL and mount sysfs".into())
}

fn btf() -> Option<String> {
    (!Path::new("/sys/kernel/btf/vmlinux").exists())
        .then(|| "/sys/kernel/btf/vmlinux doesn't exist; use a kernel with CONFIG_DEBUG_INFO_BTF".into())
}

fn loads(object: &[u8], program: &'static str) -> Option<String> {
    if object.is_empty() {
        return Some("this binary was built without its eBPF half; build it without AYA_BUILD_SKIP".into());
    }
    let mend = "run as root, on Linux 6.1 or newer with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT, CONFIG_CGROUP_BPF and CONFIG_BPF_STREAM_PARSER";
    match EbpfLoader::new().load(object) {
        Err(error) => Some(format!("{}; {mend}", chain(&error))),
        Ok(mut object) => load_program(&mut object, program).err().map(|error| format!("{}; {mend}", chain(&error))),
    }
}

/// An error with its sources, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").chars().take(400).collect()
}
