//! Reading a thread's seccomp filters without stopping it, by an iterator over tasks.

use std::fs;
use std::io::{self, Read};

use aya::maps::{Array, Map, MapData};
use aya::programs::Iter;
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};

use super::{BpfError, btf, io_error, map_error};

static FILTERS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/filters"));

/// Reads filters. Nothing of it is pinned: it ends with the daemon.
pub struct FilterReader {
    object: Ebpf,
    wanted: Array<MapData, u32>,
}

impl FilterReader {
    /// Loads the iterator.
    ///
    /// # Errors
    /// What the kernel said; one without CONFIG_SECCOMP_FILTER has no such types.
    pub fn load() -> Result<Self, BpfError> {
        if FILTERS.is_empty() {
            return Err(BpfError::NotBuilt);
        }
        let types = fs::read("/sys/kernel/btf/vmlinux")
            .map_err(|source| io_error("reading `/sys/kernel/btf/vmlinux`".into(), source))?;
        let at = |structure, member| {
            btf::member_offset(&types, structure, member).and_then(|at| u32::try_from(at).ok()).ok_or_else(|| {
                let what = format!("looking for `{structure}.{member}` in the kernel's types");
                io_error(what, io::ErrorKind::NotFound.into())
            })
        };
        let places = [
            ("PID_AT", at("task_struct", "pid")?),
            ("FILTER_AT", at("task_struct", "seccomp")? + at("seccomp", "filter")?),
            ("PREVIOUS_AT", at("seccomp_filter", "prev")?),
            ("PROGRAM_AT", at("seccomp_filter", "prog")?),
            ("ORIGINAL_AT", at("bpf_prog", "orig_prog")?),
            ("LENGTH_AT", at("sock_fprog_kern", "len")?),
            ("INSTRUCTIONS_AT", at("sock_fprog_kern", "filter")?),
        ];
        let mut loader = EbpfLoader::new();
        for (name, at) in &places {
            loader.override_global(name, at, true);
        }
        let failed = |source: EbpfError| BpfError::Load { what: "filters", source: Box::new(source) };
        let mut object = loader.load(FILTERS).map_err(failed)?;
        let wanted = object.take_map("WANTED").and_then(|map: Map| Array::try_from(map).ok());
        let wanted = wanted.ok_or_else(|| {
            map_error(
                "WANTED",
                aya::maps::MapError::InvalidMapType { map_type: aya::maps::MapType::Unspecified as u32 },
            )
        })?;
        let kernel = Btf::from_sys_fs().map_err(|error| failed(error.into()))?;
        let mut reader = Self { object, wanted };
        let program = reader.program()?;
        program.load("task", &kernel).map_err(|error| failed(error.into()))?;
        Ok(reader)
    }

    /// The filters of a thread, the last one first, as bytes of `struct sock_filter`.
    ///
    /// # Errors
    /// The kernel doesn't keep them as they were set (CONFIG_CHECKPOINT_RESTORE), or they are too many.
    pub fn read(&mut self, thread: u32, expected: u32) -> io::Result<Vec<Vec<[u8; 8]>>> {
        self.wanted.set(0, thread, 0).map_err(io::Error::other)?;
        let program = self.program().map_err(io::Error::other)?;
        let link = program.attach().map_err(io::Error::other)?;
        let link = program.take_link(link).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        link.into_file().map_err(io::Error::other)?.read_to_end(&mut bytes)?;
        let filters = split(&bytes).ok_or_else(|| io::Error::other("the kernel wrote half a filter"))?;
        if filters.len() < expected as usize {
            let what =
                format!("only {} of {expected} can be read; CONFIG_CHECKPOINT_RESTORE keeps them", filters.len());
            return Err(io::Error::other(what));
        }
        Ok(filters)
    }

    fn program(&mut self) -> Result<&mut Iter, BpfError> {
        let found = self.object.program_mut("filters").and_then(|program| program.try_into().ok());
        found.ok_or(BpfError::NotBuilt)
    }
}

impl std::fmt::Debug for FilterReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilterReader").finish_non_exhaustive()
    }
}

/// For each filter the number of instructions, then they.
fn split(mut bytes: &[u8]) -> Option<Vec<Vec<[u8; 8]>>> {
    let mut filters = Vec::new();
    while let Some((count, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*count)).ok()?.checked_mul(8)?;
        let (instructions, rest) = rest.split_at_checked(length)?;
        filters.push(instructions.as_chunks::<8>().0.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(filters)
}
