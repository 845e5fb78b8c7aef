//! What is kept with sockets. aya's own socket storage can be read by connect hooks only, and has no flags.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::macros::btf_map;
use interceptor_common::Flow;

/// A map whose values live as long as their sockets (`BPF_MAP_TYPE_SK_STORAGE`), as its BTF describes it to the loader.
#[repr(C)]
pub(super) struct Storage<T, const FLAGS: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: a description for the loader; nothing is ever read through its pointers.
unsafe impl<T, const FLAGS: usize> Sync for Storage<T, FLAGS> {}

impl<T, const FLAGS: usize> Storage<T, FLAGS> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    #[inline(always)]
    fn at(&self, sk: *mut bpf_sock, value: *mut T, flags: u64) -> *mut T {
        let map: *mut c_void = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the loader puts the map's address in place of `map`; the verifier insists that `sk` isn't null.
        unsafe { bpf_sk_storage_get(map, sk.cast(), value.cast(), flags) }.cast()
    }

    /// What is kept with `sk`, which isn't null.
    #[inline(always)]
    pub(super) fn get(&self, sk: *mut bpf_sock) -> Option<&'static mut T> {
        // SAFETY: null, or a value of this map that lives as long as the socket.
        unsafe { self.at(sk, ptr::null_mut(), 0).as_mut() }
    }

    /// What is kept with `sk`, which isn't null, made now if it wasn't there. None: there is no memory for it.
    #[inline(always)]
    pub(super) fn get_or_make(&self, sk: *mut bpf_sock, value: &mut T) -> Option<&'static mut T> {
        // SAFETY: as above.
        unsafe { self.at(sk, value, BPF_SK_STORAGE_GET_F_CREATE.into()).as_mut() }
    }

    /// Keeps nothing any more with `sk`, which isn't null.
    #[inline(always)]
    pub(super) fn remove(&self, sk: *mut bpf_sock) {
        let map: *mut c_void = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: as in `at`. That nothing was there is as good.
        let _ = unsafe { bpf_sk_storage_delete(map, sk.cast()) };
    }
}

const NO_PREALLOC: usize = 1;
/// A listener's children get what the listener has.
const CLONE: usize = 1 << 9;

/// Where a steered socket was to go.
#[btf_map]
pub(super) static STEERED: Storage<Flow, NO_PREALLOC> = Storage::new();

/// The same, with the daemon's end of the connection.
#[btf_map]
pub(super) static ACCEPTED: Storage<Flow, NO_PREALLOC> = Storage::new();

/// The daemon's own sockets that others are steered to.
#[btf_map]
pub(super) static OURS: Storage<u32, NO_PREALLOC> = Storage::new();

/// Governed listeners that answer, and what they accept.
#[btf_map]
pub(super) static INBOUND: Storage<u32, { NO_PREALLOC | CLONE }> = Storage::new();
