//! The system calls that a workload is refused, as data: `seccomp.json`, in the form that seccompiler reads. Each group
//! has one errno, each line its reason (its `comment`). The last group, sockets, is refused by process 1, which counts them
//! (`refused.rs`); its errno is for where the kernel has to do that.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use seccompiler::{BpfProgram, TargetArch};

use super::sys;

const RULES: &str = include_str!("seccomp.json");

/// A filter, ready to be loaded.
type Program = Vec<libc::sock_filter>;

/// The filters of a workload.
pub(super) struct Filters {
    silent: Vec<Program>,
    /// What is refused of sockets.
    sockets: Program,
}

impl Filters {
    /// Compiles them for this machine. They are loaded in their order, and where two of them refuse a call, the later one's errno
    /// counts, but for a kernel's before process 1's.
    pub(super) fn compile() -> Result<Self, seccompiler::Error> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(seccompiler::Error::Backend)?;
        let compiled: HashMap<String, BpfProgram> = seccompiler::compile_from_json(RULES.as_bytes(), arch)?;
        let mut named: Vec<_> = compiled.into_iter().collect();
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut silent = vec![foreign_numbers()];
        silent.extend(named.into_iter().map(|(_, program)| program.into_iter().map(instruction).collect()));
        let sockets = silent.pop().unwrap_or_default();
        Ok(Self { silent, sockets })
    }

    /// Loads the filters on this thread. Needs no_new_privs; there is no way back.
    pub(super) fn load(&self) -> io::Result<()> {
        self.silent.iter().try_for_each(|program| sys::load_filter(program))?;
        sys::load_filter(&self.sockets)
    }

    /// The same, but for sockets whoever has the descriptor is asked, from which nobody may let one through. None: this machine's
    /// owner, a container's manager for one, has such a descriptor already, and a process can't have two; the kernel refuses
    /// sockets then.
    pub(super) fn load_asking(&self) -> io::Result<Option<OwnedFd>> {
        self.silent.iter().try_for_each(|program| sys::load_filter(program))?;
        match sys::load_asking_filter(&asking(&self.sockets)) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => sys::load_filter(&self.sockets).map(|()| None),
            loaded => loaded.map(Some),
        }
    }
}

/// The program that asks where this one refuses.
fn asking(program: &[libc::sock_filter]) -> Program {
    let is_refusal = |step: &libc::sock_filter| {
        u32::from(step.code) == libc::BPF_RET | libc::BPF_K
            && step.k & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_ERRNO
    };
    let ask = |step: &libc::sock_filter| libc::sock_filter { k: libc::SECCOMP_RET_USER_NOTIF, ..*step };
    program.iter().map(|step| if is_refusal(step) { ask(step) } else { *step }).collect()
}

fn instruction(from: seccompiler::sock_filter) -> libc::sock_filter {
    libc::sock_filter { code: from.code, jt: from.jt, jf: from.jf, k: from.k }
}

/// Refuses (ENOSYS) the numbers of x86_64's other table, x32: they have this bit, and the rules don't name them. The
/// 32-bit table has an architecture of its own, which every compiled filter kills.
fn foreign_numbers() -> Program {
    const X32: u32 = 0x4000_0000;
    const NUMBER: u32 = 0;
    let step = |code: u32, jt, jf, k| {
        let code = u16::try_from(code).unwrap_or_default();
        libc::sock_filter { code, jt, jf, k }
    };
    vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests;
