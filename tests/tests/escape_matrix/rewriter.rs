//! A program of somebody else's on the connects of the whole host, as Cilium has one. This one changes nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

/// `BPF_PROG_LOAD`, `BPF_LINK_CREATE` (include/uapi/linux/bpf.h).
const LOAD: i64 = 5;
const LINK: i64 = 28;

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`, `BPF_CGROUP_INET4_CONNECT`.
const SOCK_ADDR: u32 = 18;
const CONNECT4: u32 = 10;

/// `mov r0, 1` and `exit`: it may pass.
const INSTRUCTIONS: [u64; 2] = [0xb7 | 1 << 32, 0x95];

/// Attached at the root of cgroup2 until it is dropped.
pub(crate) struct Rewriter {
    _link: OwnedFd,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    attach_type: u32,
}

/// The same for `BPF_LINK_CREATE`.
#[repr(C)]
struct Link {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

impl Rewriter {
    /// Attaches one of this name.
    pub(crate) fn attach(name: [u8; 16]) -> Result<Self> {
        let mut load = Load {
            kind: SOCK_ADDR,
            count: 2,
            instructions: INSTRUCTIONS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 2],
            version: 0,
            flags: 0,
            name,
            device: 0,
            attach_type: CONNECT4,
        };
        let program = bpf(LOAD, &mut load).context("loading a program")?;
        let root = File::open(interceptor::bpf::cgroup2()?)?;
        let word = |descriptor: i32| descriptor.cast_unsigned();
        let (program, target) = (word(program.as_raw_fd()), word(root.as_raw_fd()));
        let mut link = Link { program, target, attach_type: CONNECT4, flags: 0 };
        Ok(Self { _link: bpf(LINK, &mut link).context("attaching it")? })
    }
}

fn bpf<T>(command: i64, attribute: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the attribute, and what it points to, live until the call returns, and it has the length that is given.
    let made = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    let made = i32::try_from(made).map_err(io::Error::other)?;
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}
