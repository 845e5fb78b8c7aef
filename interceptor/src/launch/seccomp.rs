//! The system calls that a workload is refused, as data: `seccomp.json`, in the form that seccompiler reads. Each group
//! has one errno, each line its reason (its `comment`).

use std::collections::HashMap;
use std::io;

use seccompiler::{BpfProgram, TargetArch};

use super::sys;

const RULES: &str = include_str!("seccomp.json");

/// A filter, ready to be loaded.
pub(super) type Program = Vec<libc::sock_filter>;

/// Compiles the filters for this machine. They are loaded in this order, and where two of them refuse a call, the later
/// one's errno counts.
pub(super) fn compile() -> Result<Vec<Program>, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(seccompiler::Error::Backend)?;
    let compiled: HashMap<String, BpfProgram> = seccompiler::compile_from_json(RULES.as_bytes(), arch)?;
    let mut named: Vec<_> = compiled.into_iter().collect();
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut programs = vec![foreign_numbers()];
    programs.extend(named.into_iter().map(|(_, program)| program.into_iter().map(instruction).collect()));
    Ok(programs)
}

/// Loads the filters on this thread. Needs no_new_privs; there is no way back.
pub(super) fn load(programs: &[Program]) -> io::Result<()> {
    programs.iter().try_for_each(|program| sys::load_filter(program))
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
