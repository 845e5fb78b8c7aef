//! What a process's seccomp filters let it do, found out by running them as the kernel would (seccomp(2)): a filter that is
//! there says nothing of what it filters.

use std::io;

use crate::bpf::FilterReader;

/// A system call, as filters see it (`struct seccomp_data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// Its number.
    pub(super) number: u32,
    /// `AUDIT_ARCH_…`.
    pub(super) architecture: u32,
    /// Its arguments.
    pub(super) arguments: [u64; 6],
}

/// The filters of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Filters(Vec<Vec<Instruction>>);

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

impl Filters {
    /// Those of a thread that has as many.
    ///
    /// # Errors
    /// They can't be read, or not all of them.
    pub(super) fn of(reader: &mut FilterReader, thread: u32, count: u32) -> io::Result<Self> {
        if count == 0 {
            return Ok(Self::default());
        }
        let filters = reader.read(thread, count)?;
        Ok(Self(filters.into_iter().map(|filter| filter.into_iter().map(Instruction::from).collect()).collect()))
    }

    /// Whether a call is let through to the kernel. What can't be told is.
    pub(super) fn allow(&self, call: &Call) -> bool {
        // ALLOW and LOG come last in the order of actions, and TRACE (somebody else decides) before them counts as let through.
        const LET_THROUGH: [u32; 3] = [0x7fff_0000, 0x7ffc_0000, 0x7ff0_0000];
        self.0.iter().all(|filter| run(filter, call).is_none_or(|action| LET_THROUGH.contains(&(action & 0xffff_0000))))
    }
}

impl From<[u8; 8]> for Instruction {
    fn from([a, b, if_true, if_false, k @ ..]: [u8; 8]) -> Self {
        Self { code: u16::from_ne_bytes([a, b]), if_true, if_false, k: u32::from_ne_bytes(k) }
    }
}

/// The action of a filter; none if it isn't one that the kernel would have taken.
fn run(program: &[Instruction], call: &Call) -> Option<u32> {
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; 16], 0_usize);
    loop {
        let Instruction { code, if_true, if_false, k } = *program.get(at)?;
        at += 1;
        let source = if code & 0x08 == 0 { k } else { x };
        match code {
            0x20 => a = call.word(k)?,
            0x00 => a = k,
            0x01 => x = k,
            0x80 => a = 64,
            0x81 => x = 64,
            0x60 => a = *memory.get(k as usize)?,
            0x61 => x = *memory.get(k as usize)?,
            0x02 => *memory.get_mut(k as usize)? = a,
            0x03 => *memory.get_mut(k as usize)? = x,
            0x04 | 0x0c => a = a.wrapping_add(source),
            0x14 | 0x1c => a = a.wrapping_sub(source),
            0x24 | 0x2c => a = a.wrapping_mul(source),
            0x34 | 0x3c => a = a.checked_div(source)?,
            0x44 | 0x4c => a |= source,
            0x54 | 0x5c => a &= source,
            0xa4 | 0xac => a ^= source,
            0x64 | 0x6c => a = a.checked_shl(source).unwrap_or_default(),
            0x74 | 0x7c => a = a.checked_shr(source).unwrap_or_default(),
            0x84 => a = a.wrapping_neg(),
            0x05 => at = at.checked_add(k as usize)?,
            0x15 | 0x1d => at += usize::from(if a == source { if_true } else { if_false }),
            0x25 | 0x2d => at += usize::from(if a > source { if_true } else { if_false }),
            0x35 | 0x3d => at += usize::from(if a >= source { if_true } else { if_false }),
            0x45 | 0x4d => at += usize::from(if a & source != 0 { if_true } else { if_false }),
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return Some(k),
            0x16 => return Some(a),
            _ => return None,
        }
    }
}

impl Call {
    /// Four bytes of the data: the number, the architecture, the instruction pointer (0 here), the arguments.
    fn word(&self, offset: u32) -> Option<u32> {
        let argument = |at: u32| self.arguments.get(at as usize).copied();
        match offset {
            0 => Some(self.number),
            4 => Some(self.architecture),
            8 | 12 => Some(0),
            16.. if offset.is_multiple_of(4) => {
                let value = argument((offset - 16) / 8)?;
                let high = (offset % 8 == 4) == cfg!(target_endian = "little");
                Some(if high { (value >> 32) as u32 } else { value as u32 })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
