//! Cloning process 1. The daemon has many threads, so that the child of its clone may do nothing that takes a lock or
//! allocates: it places descriptors, and becomes a fresh program. What it needs is prepared before.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_uint};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::{init, sys};

/// Where process 1 finds its descriptors; 0 to 2 are the caller's.
pub(super) const PLAN: RawFd = 3;
/// The socket on which it tells the daemon that it is ready, and hears that it may go.
pub(super) const HANDSHAKE: RawFd = 4;
/// The channel to the client.
pub(super) const CHANNEL: RawFd = 5;
/// Where it counts what it refuses.
pub(super) const REFUSED: RawFd = 6;
const FIXED: usize = 7;

/// Descriptors are copied to numbers from here on first, so that placing one never overwrites another.
const ABOVE_FIXED: RawFd = 64;

/// What the child sends on the handshake socket when it couldn't become process 1: this byte, then the errno.
pub(super) const NOT_EXECUTED: u8 = b'!';

/// Namespaces of its own: processes, network, mounts, System V IPC and message queues.
const NAMESPACES: c_int = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What process 1 starts with.
pub(super) struct Start<'a> {
    /// The program, open with O_PATH.
    pub(super) program: &'a OwnedFd,
    /// The directory of its cgroup.
    pub(super) cgroup: &'a OwnedFd,
    /// What it finds at 0 to 6.
    pub(super) descriptors: [&'a OwnedFd; FIXED],
}

/// Starts process 1 and returns its pid and pidfd.
pub(super) fn spawn(start: &Start<'_>) -> io::Result<(u32, OwnedFd)> {
    let copies = start.descriptors.map(|fd| sys::duplicate_above(fd.as_fd(), ABOVE_FIXED));
    let mut sources = [-1; FIXED];
    let mut held = Vec::with_capacity(FIXED);
    for (source, copy) in sources.iter_mut().zip(copies) {
        let copy = copy?;
        *source = copy.as_raw_fd();
        held.push(copy);
    }
    let program = sys::duplicate_above(start.program.as_fd(), ABOVE_FIXED)?;
    let argv = [c"interceptor".as_ptr(), init::ARGUMENT_TEXT.as_ptr(), ptr::null()];
    let env = [ptr::null()];

    let mut pidfd: c_int = -1;
    // SAFETY: all zeroes is a valid value of this struct of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_PIDFD | NAMESPACES) as u64 | CLONE_INTO_CGROUP;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = start.cgroup.as_raw_fd() as u64;

    // A handler of the daemon's that ran in the child would write into what both share.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: without CLONE_VM the child has memory of its own, as after fork. `args` has the kernel's layout and its size
    // goes along. The child runs `become_init` only, which makes system calls on what was prepared above.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        // SAFETY: this is the child.
        unsafe { become_init(&sources, program.as_raw_fd(), argv.as_ptr(), env.as_ptr()) }
    }
    let failed = (pid < 0).then(io::Error::last_os_error);
    before.thread_set_mask()?;
    match failed {
        Some(error) => Err(error),
        None => {
            let pid = u32::try_from(pid).map_err(io::Error::other)?;
            // SAFETY: the kernel has just made it for us.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// Places the descriptors and executes the program. Never returns.
///
/// # Safety
/// To be called in the child of a clone; the lists end in null, and the descriptors are open.
unsafe fn become_init(
    sources: &[RawFd; FIXED],
    program: RawFd,
    argv: *const *const libc::c_char,
    env: *const *const libc::c_char,
) -> ! {
    // SAFETY: raw system calls only (libc::syscall takes no lock and allocates nothing), on numbers and on memory that
    // the parent prepared.
    unsafe {
        let mut target: c_int = 0;
        for &source in sources {
            if libc::syscall(libc::SYS_dup3, source, target, 0) < 0 {
                give_up();
            }
            target += 1;
        }
        if libc::syscall(libc::SYS_close_range, target, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0 {
            give_up();
        }
        libc::syscall(libc::SYS_execveat, program, c"".as_ptr(), argv, env, libc::AT_EMPTY_PATH);
        give_up()
    }
}

/// Tells the daemon the last errno, and ends.
///
/// # Safety
/// To be called in the child of a clone.
unsafe fn give_up() -> ! {
    // SAFETY: as in `become_init`; the buffer lives for the length of the call.
    unsafe {
        let errno = (*libc::__errno_location()).to_ne_bytes();
        let report = [NOT_EXECUTED, errno[0], errno[1], errno[2], errno[3]];
        libc::syscall(libc::SYS_write, HANDSHAKE, report.as_ptr(), report.len());
        loop {
            libc::syscall(libc::SYS_exit_group, 127);
        }
    }
}
