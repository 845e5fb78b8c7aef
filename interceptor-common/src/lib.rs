//! The ABI between the kernel and the user half: plain `#[repr(C)]` data, nothing else. A change of anything here, or of
//! a map's type, needs a new [`LAYOUT`], because maps outlive the daemon.
#![no_std]

/// The version of this layout, and the name of the folder that the pins are kept in.
pub const LAYOUT: &str = "v1";

/// The index of the IPv4 listener in a namespace's listeners.
pub const LISTENER_V4: u32 = 0;

/// The index of the IPv6 listener in a namespace's listeners.
pub const LISTENER_V6: u32 = 1;

/// The port that is steered on loopback in every namespace: DNS.
pub const DNS_PORT: u16 = 53;

/// The most bytes that the path of a unix socket can have (`sun_path` of unix(7)).
pub const UNIX_PATH_BYTES: usize = 108;

/// A connecting socket, as its peer can name it. Both ends are needed: the kernel gives one local port to several
/// connections, if they go to different places.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginKey {
    /// The cookie of its network namespace (`SO_NETNS_COOKIE`).
    pub netns: u64,
    /// Its address in network order; IPv4 as `::ffff:a.b.c.d`.
    pub local: [u32; 4],
    /// The address that it connects to, likewise.
    pub remote: [u32; 4],
    /// Its port, in host order.
    pub local_port: u32,
    /// The port that it connects to, in host order.
    pub remote_port: u32,
}

/// Who called connect on a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The process (thread group) id, in the initial PID namespace.
    pub pid: u32,
    /// The thread id, likewise.
    pub tid: u32,
    /// The real uid, in the initial user namespace.
    pub uid: u32,
    /// Zero.
    pub padding: u32,
    /// What the kernel calls the thread, up to the first NUL.
    pub comm: [u8; 16],
}

/// A pathname unix socket that a namespace may connect to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixKey {
    /// The cookie of the network namespace.
    pub netns: u64,
    /// The path as it is passed to connect, then zeros up to [`UNIX_PATH_BYTES`] and the alignment.
    pub path: [u8; 112],
}

// SAFETY: `#[repr(C)]`, valid for every bit pattern, and without padding that isn't a field.
#[cfg(feature = "user")]
unsafe impl aya::Pod for OriginKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Origin {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for UnixKey {}
