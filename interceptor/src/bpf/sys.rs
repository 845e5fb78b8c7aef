//! The bpf(2) commands that aya keeps to itself or doesn't know, each as one function. Layouts and numbers are those of
//! `include/uapi/linux/bpf.h`; the kernel takes a shorter attribute for one that ends in zeros.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;

const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

pub(super) const ATTACH_EGRESS: u32 = 1;
pub(super) const ATTACH_SOCK_CREATE: u32 = 2;
pub(super) const ATTACH_SOCK_OPS: u32 = 3;
pub(super) const ATTACH_DEVICE: u32 = 6;
pub(super) const ATTACH_BIND4: u32 = 8;
pub(super) const ATTACH_BIND6: u32 = 9;
pub(super) const ATTACH_CONNECT4: u32 = 10;
pub(super) const ATTACH_CONNECT6: u32 = 11;
pub(super) const ATTACH_SENDMSG4: u32 = 14;
pub(super) const ATTACH_SENDMSG6: u32 = 15;
pub(super) const ATTACH_RECVMSG4: u32 = 19;
pub(super) const ATTACH_RECVMSG6: u32 = 20;
pub(super) const ATTACH_SETSOCKOPT: u32 = 22;
pub(super) const ATTACH_GETPEERNAME4: u32 = 29;
pub(super) const ATTACH_GETPEERNAME6: u32 = 30;
pub(super) const ATTACH_SK_LOOKUP: u32 = 36;
pub(super) const ATTACH_UNIX_CONNECT: u32 = 49;
pub(super) const ATTACH_UNIX_SENDMSG: u32 = 50;

pub(super) const LINK_RAW_TRACEPOINT: u32 = 1;
pub(super) const LINK_CGROUP: u32 = 3;
pub(super) const LINK_NETNS: u32 = 5;

pub(super) const MAP_HASH: u32 = 1;
pub(super) const MAP_ARRAY: u32 = 2;
pub(super) const MAP_PERCPU_HASH: u32 = 5;
pub(super) const MAP_LRU_HASH: u32 = 9;
pub(super) const MAP_LPM_TRIE: u32 = 11;
pub(super) const MAP_SOCKMAP: u32 = 15;
pub(super) const MAP_SK_STORAGE: u32 = 24;

const PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;

/// One eBPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u8,
    /// The destination register in the low half, the source register in the high one.
    pub(super) registers: u8,
    pub(super) off: i16,
    pub(super) imm: i32,
}

/// What the kernel says of a link (`struct bpf_link_info`).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct LinkInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) program: u32,
    padding: u32,
    /// For a cgroup its 64-bit id; for a network namespace its inode and then the attach type.
    words: [u32; 4],
}

impl LinkInfo {
    /// The id of the cgroup or the inode of the network namespace; 0 if that is gone.
    pub(super) fn target(&self) -> u64 {
        match self.kind {
            LINK_CGROUP => u64::from_ne_bytes(join(self.words[0], self.words[1])),
            _ => u64::from(self.words[0]),
        }
    }

    /// The attach type.
    pub(super) fn attach_type(&self) -> u32 {
        if self.kind == LINK_CGROUP { self.words[2] } else { self.words[1] }
    }
}

fn join(low: u32, high: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Runs a command.
///
/// # Safety
///
/// Every pointer in `attribute` must be valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attribute: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads at most `size_of::<T>()` bytes of the attribute; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes ownership of the descriptor that a command returned.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the command made this descriptor (close-on-exec, as all of bpf's) for the caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

#[repr(C)]
struct PathAttribute {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Pins an object.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attribute = PathAttribute { path: path.as_ptr().addr() as u64, fd: raw(fd), flags: 0 };
    // SAFETY: the path lives until the end of this function.
    unsafe { bpf(OBJ_PIN, &mut attribute) }.map(drop)
}

/// Opens a pin.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attribute = PathAttribute { path: path.as_ptr().addr() as u64, fd: 0, flags: 0 };
    // SAFETY: the path lives until the end of this function.
    unsafe { bpf(OBJ_GET, &mut attribute) }.and_then(owned)
}

#[repr(C)]
struct InfoAttribute {
    fd: u32,
    bytes: u32,
    info: u64,
}

/// What the kernel says of a link. An object that isn't a link gives garbage or an error: ask the pin's type first.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let bytes = size_of::<LinkInfo>() as u32;
    let mut attribute = InfoAttribute { fd: raw(link), bytes, info: (&raw mut info).addr() as u64 };
    // SAFETY: `info` has `bytes` bytes and any bits are valid in it.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attribute) }?;
    Ok(info)
}

/// The id of a program: what a link says that it runs, and what is said to run somewhere.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // The beginning of `struct bpf_prog_info`: type and id.
    let mut info = [0_u32; 2];
    let bytes = size_of_val(&info) as u32;
    let mut attribute = InfoAttribute { fd: raw(program), bytes, info: info.as_mut_ptr().addr() as u64 };
    // SAFETY: `info` has `bytes` bytes and any bits are valid in it.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attribute) }?;
    Ok(info[1])
}

#[repr(C)]
struct LinkAttribute {
    /// The program (create) or the link (update).
    first: u32,
    /// What to attach to (create) or the new program (update).
    second: u32,
    third: u32,
    fourth: u32,
}

/// Attaches a program to a cgroup or a network namespace, until the link is closed and not pinned.
pub(super) fn link_create(program: BorrowedFd<'_>, target: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attribute = LinkAttribute { first: raw(program), second: raw(target), third: attach_type, fourth: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(LINK_CREATE, &mut attribute) }.and_then(owned)
}

/// Puts another program in the place of a link's, at once.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = LinkAttribute { first: raw(link), second: raw(program), third: 0, fourth: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(LINK_UPDATE, &mut attribute) }.map(drop)
}

/// Attaches a program to a tracepoint, until the link is closed and not pinned.
pub(super) fn open_raw_tracepoint(program: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attribute {
        name: u64,
        program: u32,
        padding: u32,
    }
    let mut attribute = Attribute { name: name.as_ptr().addr() as u64, program: raw(program), padding: 0 };
    // SAFETY: the name outlives this function.
    unsafe { bpf(RAW_TRACEPOINT_OPEN, &mut attribute) }.and_then(owned)
}

/// Which programs are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that are attached to the cgroup itself.
    Own,
    /// Those that run for what is in it (`BPF_F_QUERY_EFFECTIVE`).
    Effective,
}

/// The most programs that run for a cgroup: 64 (`BPF_CGROUP_MAX_PROGS`) for each level down to the deepest that matters here.
const MOST_PROGRAMS: usize = 64 * 16;

/// The ids of a cgroup's programs for this type.
pub(super) fn attached(cgroup: BorrowedFd<'_>, attach_type: u32, which: Which) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Attribute {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
    }
    let mut ids = vec![0_u32; MOST_PROGRAMS];
    let mut attribute = Attribute {
        target: raw(cgroup),
        attach_type,
        query_flags: u32::from(which == Which::Effective),
        attach_flags: 0,
        ids: ids.as_mut_ptr().addr() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    // SAFETY: the kernel writes at most `count` ids, for which there is room.
    unsafe { bpf(PROG_QUERY, &mut attribute) }?;
    ids.truncate(attribute.count as usize);
    Ok(ids)
}

/// Makes a hash map with entries that are allocated at once.
pub(super) fn create_hash(name: &[u8; 16], key: usize, value: usize, entries: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attribute {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        /// Flags, inner map, NUMA node.
        unused: [u32; 3],
        name: [u8; 16],
    }
    let (key, value) = (key as u32, value as u32);
    let mut attribute = Attribute { kind: MAP_HASH, key, value, entries, unused: [0; 3], name: *name };
    // SAFETY: no pointers.
    unsafe { bpf(MAP_CREATE, &mut attribute) }.and_then(owned)
}

/// Takes an entry out of a hash map. The caller knows the map's key and value sizes to be those of `K` and `V`.
pub(super) fn lookup_and_delete<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    #[repr(C)]
    struct Attribute {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut value = MaybeUninit::<V>::uninit();
    let mut attribute = Attribute {
        map: raw(map),
        padding: 0,
        key: std::ptr::from_ref(key).addr() as u64,
        value: value.as_mut_ptr().addr() as u64,
        flags: 0,
    };
    // SAFETY: key and value are as large as the map's, which was checked when the map was opened.
    unsafe { bpf(MAP_LOOKUP_AND_DELETE_ELEM, &mut attribute) }?;
    // SAFETY: the kernel wrote the whole value, and any bits are valid in it (`Pod`).
    Ok(unsafe { value.assume_init() })
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`. On refusal the error carries the verifier's last words.
pub(super) fn load_sock_addr(name: &[u8; 16], attach_type: u32, insns: &[Insn]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attribute {
        kind: u32,
        insn_count: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_bytes: u32,
        log: u64,
        kernel: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let mut attribute = Attribute {
        kind: PROG_TYPE_CGROUP_SOCK_ADDR,
        insn_count: insns.len() as u32,
        insns: insns.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel: 0,
        flags: 0,
        name: *name,
        interface: 0,
        attach_type,
    };
    // SAFETY: instructions and licence live until the end of this function and have the lengths that are given.
    let loaded = unsafe { bpf(PROG_LOAD, &mut attribute) }.and_then(owned);
    loaded.map_err(|error| {
        // Once more for the log: a sound program isn't loaded either where its log doesn't fit (ENOSPC).
        let mut log = vec![0_u8; 64 * 1024];
        attribute.log_level = 1;
        attribute.log_bytes = log.len() as u32;
        attribute.log = log.as_mut_ptr().addr() as u64;
        // SAFETY: as above, and the log has the length that is given.
        let _failed = unsafe { bpf(PROG_LOAD, &mut attribute) }.and_then(owned);
        let text = String::from_utf8_lossy(&log);
        let words: Vec<&str> = text.trim_end_matches('\0').lines().rev().take(4).collect();
        let words: Vec<&str> = words.into_iter().rev().collect();
        if words.is_empty() { error } else { io::Error::new(error.kind(), format!("{error}: {}", words.join("; "))) }
    })
}

/// How many connections wait at a listener to be accepted (`tcp_get_info` of net/ipv4/tcp.c).
pub fn waiting_at(listener: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut bytes = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `info`.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain numbers, for which zeros are valid where the kernel wrote none.
    Ok(unsafe { info.assume_init() }.tcpi_unacked)
}

/// The cookie of the network namespace that a socket was made in: unique until the host restarts.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut bytes = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut bytes,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
