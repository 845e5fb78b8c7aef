//! Starts a command as a manager of services would: in a cgroup, as a user, with what a unit's settings take away from it.
//! `how` is `contained`, or the one thing that is left out, so that a hole is there: `privileges`, `families`, `io-uring`,
//! `architectures`, `capabilities`, `user`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const REFUSE: u32 = 0x0005_0000 | libc::EAFNOSUPPORT as u32;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

pub(crate) fn run(cgroup: &str, uid: i64, how: &str, command: &[&str]) -> io::Result<String> {
    File::options().write(true).open(format!("{cgroup}/cgroup.procs"))?.write_all(b"0")?;
    let Some((program, arguments)) = command.split_first() else { return Err(io::Error::other("no command")) };
    let uid = u32::try_from(uid).map_err(io::Error::other)?;
    if how != "capabilities" {
        for capability in 0..=40 {
            // SAFETY: no pointers. One that the kernel doesn't know is refused, which is as good.
            let _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
    }
    let keep: libc::c_int = if how == "capabilities" { 1 } else { 0 };
    // SAFETY: no pointers.
    checked(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, keep, 0, 0, 0) })?;
    if how != "user" {
        // SAFETY: an empty list.
        checked(unsafe { libc::setgroups(0, std::ptr::null()) })?;
        // SAFETY: no pointers.
        checked(unsafe { libc::setresgid(uid, uid, uid) })?;
        // SAFETY: no pointers.
        checked(unsafe { libc::setresuid(uid, uid, uid) })?;
    }
    if how == "capabilities" {
        raise_ambient()?;
    }
    if how != "privileges" {
        // SAFETY: no pointers.
        checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        filter(how)?;
    }
    Err(Command::new(program).args(arguments).exec())
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Keeps CAP_NET_RAW over the change of user and through exec.
fn raise_ambient() -> io::Result<()> {
    const NET_RAW: u32 = 13;
    let mut header = [0x2008_0522_u32, 0];
    let data = [1_u32 << NET_RAW, 1 << NET_RAW, 1 << NET_RAW, 0, 0, 0];
    // SAFETY: header and data are as capset(2) wants them, of version 3.
    let returned = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    checked(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, NET_RAW, 0, 0) })
}

/// What `RestrictAddressFamilies=`, `SystemCallArchitectures=native` and `SystemCallFilter=~io_uring_setup` come to.
fn filter(without: &str) -> io::Result<()> {
    let one = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = Vec::new();
    if without != "architectures" {
        program.extend([one(LOAD, 0, 0, 4), one(EQUAL, 1, 0, NATIVE), one(RETURN, 0, 0, REFUSE)]);
        // x32 counts as native.
        program.extend([one(LOAD, 0, 0, 0), one(0x45, 0, 1, 0x4000_0000), one(RETURN, 0, 0, REFUSE)]);
    }
    if without != "io-uring" {
        program.extend([
            one(LOAD, 0, 0, 0),
            one(EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
            one(RETURN, 0, 0, REFUSE),
        ]);
    }
    if without != "families" {
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
        program.extend([one(LOAD, 0, 0, 0), one(EQUAL, 0, 6, libc::SYS_socket as u32), one(LOAD, 0, 0, 16)]);
        for (at, family) in families.iter().enumerate() {
            program.push(one(EQUAL, (families.len() - at) as u8, 0, family.unsigned_abs()));
        }
        program.push(one(RETURN, 0, 0, REFUSE));
    }
    program.push(one(RETURN, 0, 0, ALLOW));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program lives until the call returns.
    checked(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) })
}
