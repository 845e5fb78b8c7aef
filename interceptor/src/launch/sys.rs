//! The system calls that neither the standard library nor nix wraps safely, each behind a function that can't be
//! misused from safe code: descriptors are borrowed, strings end in NUL, structs live as long as the call. Not here:
//! [`super::spawn`], whose child must not return into ordinary code.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long, c_uint, c_ulong};

/// Turns what a raw system call returned into a result.
fn check(returned: c_long) -> io::Result<c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

fn owned(returned: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(check(returned)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes a descriptor that the launcher put at a fixed number (see [`super::spawn`]). Only the first call for a number
/// may succeed, and it marks the descriptor close-on-exec.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on a number is harmless; it tells whether the descriptor is open.
    check(c_long::from(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }))?;
    // SAFETY: the launcher placed it there for this process, which takes each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Owns a descriptor that recvmsg has just made.
pub(super) fn received(number: RawFd) -> OwnedFd {
    // SAFETY: the kernel made it for the message that is being read, which yields it once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A copy of a descriptor with a number of at least `least`, close-on-exec.
pub(super) fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fd` is open for the length of the call.
    owned(c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }))
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2)).
pub(super) fn close_on_exec_from(first: c_uint) -> io::Result<()> {
    // SAFETY: only flags change; no descriptor is closed under its owner.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// A pidfd for a process (pidfd_open(2)).
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Signal 0 tells whether the process still lives (pidfd_send_signal(2)).
pub(super) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    // SAFETY: the siginfo pointer may be null.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<libc::siginfo_t>(), 0)
    })?;
    Ok(())
}

/// The address family of a socket (SO_DOMAIN).
pub(super) fn socket_domain(socket: BorrowedFd<'_>) -> io::Result<c_int> {
    let (mut domain, mut length) = (0 as c_int, size_of::<c_int>() as libc::socklen_t);
    // SAFETY: `domain` is writable, `length` says its size, both live for the length of the call.
    check(c_long::from(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut domain).cast(),
            &raw mut length,
        )
    }))?;
    Ok(domain)
}

/// Sets the size of a terminal, by its master or slave.
///
/// # Errors
/// Those of the ioctl TIOCSWINSZ.
pub fn set_terminal_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` lives for the length of the call.
    check(c_long::from(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }))?;
    Ok(())
}

/// The size of a terminal: rows and columns.
///
/// # Errors
/// Those of the ioctl TIOCGWINSZ.
pub fn terminal_size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is writable for the length of the call.
    check(c_long::from(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }))?;
    Ok((size.ws_row, size.ws_col))
}

/// Unlocks the slave of a terminal and opens it, without making it anybody's controlling terminal.
pub(super) fn open_slave(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: c_int = 0;
    // SAFETY: `unlocked` lives for the length of the call.
    check(c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number.
    owned(c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }))
}

/// Makes a terminal the controlling terminal of this session.
pub(super) fn take_terminal(slave: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(c_long::from(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }))?;
    Ok(())
}

/// Gives a signal its default action, or has it ignored. The raw call, because glibc's refuses the two signals that it
/// keeps for itself, which may have been inherited ignored as well.
pub(super) fn set_disposition(signal: c_int, ignored: bool) -> io::Result<()> {
    #[repr(C)]
    struct KernelSigaction {
        handler: usize,
        flags: c_ulong,
        restorer: usize,
        mask: u64,
    }
    let handler = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    let action = KernelSigaction { handler, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: the struct is the kernel's on x86_64; on aarch64 (no restorer in use, the same layout) as well. It lives
    // for the length of the call, and neither handler runs code.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, ptr::null::<u8>(), size_of::<u64>())
    })?;
    Ok(())
}

/// Sets a soft and a hard limit of this process.
pub(super) fn set_limit(resource: c_uint, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives for the length of the call; the old value isn't asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, ptr::null::<u8>()) })?;
    Ok(())
}

/// The soft and the hard limit of this process.
pub(super) fn limit(resource: c_uint) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable for the length of the call.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, ptr::null::<u8>(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Becomes a user for good: supplementary groups, then the three gids, then the three uids.
pub(super) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: `groups` lives for the length of the calls; the raw calls act on this (only) thread.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// prctl(2) with numbers only.
pub(super) fn prctl(option: c_int, first: c_ulong, second: c_ulong) -> io::Result<()> {
    // SAFETY: only options whose arguments are numbers are used in this module's siblings.
    check(c_long::from(unsafe { libc::prctl(option, first, second, 0 as c_ulong, 0 as c_ulong) }))?;
    Ok(())
}

/// Sets the permitted and effective capabilities of this thread to `mask` and empties the inheritable ones (capset(2)).
pub(super) fn set_capabilities(mask: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [mask as u32, (mask >> 32) as u32].map(|half| Data { effective: half, permitted: half, inheritable: 0 });
    // SAFETY: header and data have version 3's layout (two data structs) and live for the length of the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Joins a new session keyring, which hides the one that was inherited. A kernel without keyrings is fine.
pub(super) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<u8>()) }) {
        Err(e) if e.raw_os_error() != Some(libc::ENOSYS) => Err(e),
        _ => Ok(()),
    }
}

/// Closes this process and its children off from abstract unix sockets and signals of others (Landlock scopes,
/// landlock(7), ABI 6). Tells whether the kernel has it.
pub(super) fn landlock_scope() -> io::Result<bool> {
    const VERSION: c_uint = 1;
    const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    const SCOPE_SIGNAL: u64 = 2;
    #[repr(C)]
    struct Ruleset {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }
    // SAFETY: asking for the version takes no struct.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0usize, VERSION) };
    if abi < 6 {
        return Ok(false);
    }
    let rules =
        Ruleset { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL };
    // SAFETY: `rules` has the ABI's layout and lives for the length of the call.
    let rules = owned(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const rules, size_of::<Ruleset>(), 0u32)
    })?;
    // SAFETY: no pointers; `rules` is open.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0u32) })?;
    Ok(true)
}

/// Copies the mount at a place, detached: alone, or with all that is mounted below it (open_tree(2)). `path` is looked
/// up in `dir`; empty means `dir` itself. A symlink as its last component isn't followed.
pub(super) fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: c_int = 1;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `path` ends in NUL and lives for the length of the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Attaches a detached mount at the place that `target` (opened with O_PATH) is (move_mount(2)).
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const F_EMPTY_PATH: c_uint = 0x04;
    const T_EMPTY_PATH: c_uint = 0x40;
    // SAFETY: both paths are empty strings that end in NUL.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// Makes a filesystem instance as a detached mount (fsopen(2), fsconfig(2), fsmount(2)). `attributes` are MOUNT_ATTR_….
pub(super) fn new_filesystem(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    const FSMOUNT_CLOEXEC: c_uint = 1;
    const FSCONFIG_SET_STRING: c_uint = 1;
    const FSCONFIG_CMD_CREATE: c_uint = 6;
    // SAFETY: `kind` ends in NUL.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    for (key, value) in options {
        // SAFETY: key and value end in NUL and live for the length of the call.
        check(unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
        })?;
    }
    // SAFETY: this command takes neither key nor value.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            ptr::null::<u8>(),
            ptr::null::<u8>(),
            0,
        )
    })?;
    // SAFETY: no pointers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

/// Makes one mount read-only (not those below it; mount_setattr(2)).
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    // SAFETY: the struct is the kernel's first version, its size goes along, and it lives for the length of the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Which lookups [`open_place`] refuses.
pub(super) mod resolve {
    /// Leaving the directory, also by an absolute symlink; magic links.
    pub(in super::super) const BENEATH: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    /// Any symlink on the way.
    pub(in super::super) const NO_SYMLINKS: u64 = libc::RESOLVE_NO_SYMLINKS;
}

/// Opens a place with O_PATH, refusing what `how` (see [`resolve`]) refuses (openat2(2)). With 0 a symlink as
/// the last component is opened itself.
pub(super) fn open_place(dir: BorrowedFd<'_>, path: &CStr, how: u64) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let mut flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    if how == 0 {
        let nofollow = libc::O_NOFOLLOW as u64;
        flags |= nofollow;
    }
    let how = OpenHow { flags, mode: 0, resolve: how };
    // SAFETY: path ends in NUL; the struct is the kernel's and its size goes along.
    owned(unsafe {
        libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<OpenHow>())
    })
}

/// Loads one seccomp filter on this thread, and with it on what it starts. Needs no_new_privs.
pub(super) fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    seccomp(program, 0).map(|_| ())
}

/// Loads one that asks, and yields what its questions come at (seccomp_unotify(2)). EBUSY: there is one already. Once a question is
/// taken, only a deadly signal ends its caller's waiting, so that none is asked twice.
pub(super) fn load_asking_filter(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    owned(seccomp(program, flags)?)
}

fn seccomp(program: &[libc::sock_filter], flags: c_ulong) -> io::Result<c_long> {
    const SECCOMP_SET_MODE_FILTER: c_uint = 1;
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program lives for the length of the call, and the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) })
}

/// The next question of such a filter; waits for it. ENOENT: its caller was killed before.
pub(super) fn next_notification(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: all zeroes is a valid value of this struct of integers, and what the kernel wants it to be.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is the kernel's, and lives for the length of the call.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification) };
    check(c_long::from(done))?;
    Ok(notification)
}

/// Answers a question with an errno: the call isn't made. ENOENT: its caller was killed meanwhile.
pub(super) fn refuse_notification(listener: BorrowedFd<'_>, id: u64, errno: c_int) -> io::Result<()> {
    let answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 };
    // SAFETY: as above; the kernel only reads it.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    check(c_long::from(done))?;
    Ok(())
}

/// Replaces the program of this process. Returns only when it couldn't.
pub(super) fn execute(path: &CStr, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> io::Error {
    debug_assert!(argv.last().is_some_and(|end| end.is_null()) && env.last().is_some_and(|end| end.is_null()));
    // SAFETY: both lists end in null (see [`super::init`], which builds them from strings that it keeps).
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Forks this process, which must have one thread only. The child runs `child` and never returns.
pub(super) fn fork(child: impl FnOnce() -> c_int) -> io::Result<nix::unistd::Pid> {
    // SAFETY: process 1 has a single thread, so that the child may do all that the parent may.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child),
        nix::unistd::ForkResult::Child => {
            let status = child();
            // SAFETY: ends the process at once, without running what the parent registered for its own end.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Puts a signal's default action back and sends it to this process: how a program dies of what its child died of.
pub fn die_of(signal: c_int) {
    // A core file of this program would tell nothing about the one that died.
    let _ = set_limit(libc::RLIMIT_CORE, 0, 0);
    let _ = set_disposition(signal, false);
    if let Ok(signal) = nix::sys::signal::Signal::try_from(signal) {
        let mut only = nix::sys::signal::SigSet::empty();
        only.add(signal);
        let _ = nix::sys::signal::raise(signal);
        let _ = only.thread_unblock();
    }
}

/// Whether two threads, by their ids as the caller sees them, have one table of descriptors (kcmp(2)). Not known where the
/// kernel is built without it, or one is gone.
pub fn share_files(one: u32, other: u32) -> bool {
    const KCMP_FILES: c_long = 2;
    let none: c_ulong = 0;
    // SAFETY: two ids and three numbers; nothing is pointed to.
    unsafe { libc::syscall(libc::SYS_kcmp, c_long::from(one), c_long::from(other), KCMP_FILES, none, none) == 0 }
}
