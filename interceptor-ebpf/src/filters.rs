//! The seccomp filters of one task, read where the kernel keeps them: ptrace(2) would stop the process, and interrupt the
//! call that it waits in. Written for each filter, the last one first: the number of its instructions, then the
//! instructions (`struct sock_filter`).
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod bpf {
    use core::ptr;

    use aya_ebpf::bindings::seq_file;
    use aya_ebpf::helpers::bpf_probe_read_kernel;
    use aya_ebpf::helpers::generated::{bpf_probe_read_kernel as read_many, bpf_seq_write};
    use aya_ebpf::macros::map;
    use aya_ebpf::maps::{Array, PerCpuArray};

    /// Filters that are read; there are seldom more than a handful.
    const MOST: usize = 32;

    /// Bytes that are copied at once.
    const PIECE: usize = 4096;

    /// Bytes of the longest filter, 4,096 instructions.
    const LONGEST: usize = 8 * PIECE;

    /// The thread that is asked about, by its id in the initial PID namespace.
    #[map]
    static WANTED: Array<u32> = Array::with_max_entries(1, 0);

    /// Room for a piece, too large for the stack.
    #[map]
    static ROOM: PerCpuArray<[u8; PIECE]> = PerCpuArray::with_max_entries(1, 0);

    /// Where the kernel has what, from its BTF.
    #[unsafe(no_mangle)]
    static PID_AT: u32 = 0;
    #[unsafe(no_mangle)]
    static FILTER_AT: u32 = 0;
    #[unsafe(no_mangle)]
    static PREVIOUS_AT: u32 = 0;
    #[unsafe(no_mangle)]
    static PROGRAM_AT: u32 = 0;
    #[unsafe(no_mangle)]
    static ORIGINAL_AT: u32 = 0;
    #[unsafe(no_mangle)]
    static LENGTH_AT: u32 = 0;
    #[unsafe(no_mangle)]
    static INSTRUCTIONS_AT: u32 = 0;

    /// `struct bpf_iter__task` of kernel/bpf/task_iter.c.
    #[repr(C)]
    struct Context {
        meta: *const Meta,
        task: *const u8,
    }

    /// The beginning of `struct bpf_iter_meta`.
    #[repr(C)]
    struct Meta {
        seq: *mut seq_file,
    }

    #[unsafe(no_mangle)]
    #[unsafe(link_section = "iter/task")]
    fn filters(ctx: *const Context) -> i32 {
        // SAFETY: the verifier knows `ctx` as this program's context.
        let task = unsafe { (*ctx).task };
        if task.is_null() {
            return 0;
        }
        // SAFETY: the verifier knows what the context points to.
        let seq = unsafe { (*(*ctx).meta).seq };
        let wanted = WANTED.get(0).copied().unwrap_or_default();
        if read::<u32>(task, &raw const PID_AT) != Some(wanted) {
            return 0;
        }
        let mut filter = read::<*const u8>(task, &raw const FILTER_AT).unwrap_or(ptr::null());
        for _ in 0..MOST {
            if filter.is_null() {
                return 0;
            }
            if tell(seq, filter).is_none() {
                return 0;
            }
            filter = read::<*const u8>(filter, &raw const PREVIOUS_AT).unwrap_or(ptr::null());
        }
        0
    }

    #[inline(always)]
    fn tell(seq: *mut seq_file, filter: *const u8) -> Option<()> {
        let program = read::<*const u8>(filter, &raw const PROGRAM_AT)?;
        let original = read::<*const u8>(program, &raw const ORIGINAL_AT)?;
        if original.is_null() {
            // The kernel hasn't kept it; no length says so.
            return None;
        }
        let length = u32::from(read::<u16>(original, &raw const LENGTH_AT)?);
        let instructions = read::<*const u8>(original, &raw const INSTRUCTIONS_AT)?;
        let room = ROOM.get_ptr_mut(0)?;
        // SAFETY: four bytes on the stack.
        unsafe { bpf_seq_write(seq, (&raw const length).cast(), 4) };
        let bytes = length as usize * 8;
        let mut at = 0;
        while at < LONGEST {
            if at >= bytes {
                break;
            }
            let piece = if bytes - at > PIECE { PIECE } else { bytes - at };
            // SAFETY: the room is as large as a piece can be; the helper checks the kernel's address.
            unsafe {
                read_many(room.cast(), piece as u32, instructions.wrapping_add(at).cast());
                bpf_seq_write(seq, room.cast(), piece as u32);
            }
            at += PIECE;
        }
        Some(())
    }

    #[inline(always)]
    fn read<T>(base: *const u8, offset: *const u32) -> Option<T> {
        // SAFETY: a global that the loader has set; volatile, or the compiler would take it for 0.
        let at = base.wrapping_add(unsafe { ptr::read_volatile(offset) } as usize);
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(at.cast::<T>()) }.ok()
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
