//! What process 1 and the command give up, in which order, and why that order: each step needs what a later one takes.

use std::io;
use std::os::fd::OwnedFd;

use crate::launch::plan::{Failure, Plan, failing};
use crate::launch::seccomp::Filters;
use crate::launch::sys;

const CAP_KILL: u64 = 5;
/// The kernel refuses the first number past the last capability it knows.
const CAPABILITIES: libc::c_ulong = 64;

/// No capabilities by being root, none ambient, no keeping them over a change of user, and no way back
/// (capabilities(7), "The securebits flags").
const SECUREBITS: libc::c_ulong = NOROOT | NOROOT_LOCKED | NO_SETUID_FIXUP_LOCKED | KEEP_CAPS_LOCKED | AMBIENT_LOCKED;
const NOROOT: libc::c_ulong = 1;
const NOROOT_LOCKED: libc::c_ulong = 1 << 1;
const NO_SETUID_FIXUP_LOCKED: libc::c_ulong = 1 << 3;
const KEEP_CAPS_LOCKED: libc::c_ulong = 1 << 5;
const AMBIENT_LOCKED: libc::c_ulong = 1 << 6 | 1 << 7;

/// Process 1 stays root, so that the workload can't touch it, but keeps one capability only: to signal processes of the
/// workload's uid.
pub(super) fn keep_only_kill() -> io::Result<()> {
    lock_bits()?;
    sys::set_capabilities(1 << CAP_KILL)?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// The command becomes its user, without anything that root had.
pub(super) fn become_workload(plan: &Plan) -> Result<(), Failure> {
    // While root: limits may be raised to the caller's, bounding set and securebits changed.
    for limit in &plan.limits {
        set_limit(limit.resource, limit.soft, limit.hard).map_err(failing("set the resource limits"))?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(plan.umask));
    lock_bits().map_err(failing("lock the securebits"))?;
    // Leaving uid 0 empties the permitted and effective sets, capset the inheritable one.
    sys::become_user(plan.uid, plan.gid, &plan.groups).map_err(failing("become the workload's user"))?;
    sys::set_capabilities(0).map_err(failing("drop the capabilities"))?;
    // As the user, so that the keyring is the user's.
    sys::new_session_keyring().map_err(failing("leave the inherited keyring"))?;
    nix::sys::prctl::set_no_new_privs().map_err(failing("set no_new_privs"))?;
    Ok(())
}

/// What closes the last ways out, once the working directory is entered. Whoever has the descriptor, if there is one, is asked about
/// sockets that are refused.
pub(super) fn confine(filters: &Filters) -> Result<Option<OwnedFd>, Failure> {
    sys::landlock_scope().map_err(failing("close off signals and abstract sockets (Landlock)"))?;
    filters.load_asking().map_err(failing("load the seccomp filters"))
}

/// Empties the bounding and the ambient set and locks the securebits.
fn lock_bits() -> io::Result<()> {
    for capability in 0..CAPABILITIES {
        match sys::prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    sys::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0)
}

/// Sets a limit. A hard limit above the daemon's own needs CAP_SYS_RESOURCE; without it, the daemon's is the bound.
fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    match sys::set_limit(resource, soft, hard) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            let (_, bound) = sys::limit(resource)?;
            sys::set_limit(resource, soft.min(bound), hard.min(bound))
        }
        other => other,
    }
}
