//! The ABI between the kernel and the user half: plain `#[repr(C)]` data, nothing else. A change of anything here, or of
//! a map's type, needs a new [`LAYOUT`], because maps outlive the daemon. A map or a hook besides doesn't: it is made where it
//! isn't pinned yet.
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

/// The deepest level of cgroup that can be governed, the root being level 0.
pub const DEEPEST_LEVEL: u32 = 15;

/// The most cgroups that can be governed at once.
pub const GOVERNED_MOST: u32 = 16_384;

/// The numbers that tell of cgroups that were to be governed when they were made, and for which there was no room. As long as
/// there were more than are known, what was made since is refused where such a one was: which here is how many there were.
pub const MISSED_COUNT: u32 = 0;

/// Of how many the daemon knows; it alone writes this number.
pub const MISSED_KNOWN: u32 = 1;

/// The id of the first of those that it doesn't know of. Ids of cgroups only grow.
pub const MISSED_SINCE: u32 = 2;

/// The id of the cgroup that this one is in.
pub const MISSED_PARENT: u32 = 3;

/// At which level of the tree it is; 0 where they aren't all in one cgroup.
pub const MISSED_LEVEL: u32 = 4;

/// Its workload.
pub const MISSED_WORKLOAD: u32 = 5;

/// How many numbers these are.
pub const MISSED_NUMBERS: u32 = 6;

/// The longest cgroup path that can be watched, in bytes, its end included: what fits into a key of the trie
/// (`LPM_DATA_SIZE_MAX` of kernel/bpf/lpm_trie.c, without the length).
pub const PATH_BYTES: usize = 252;

/// What becomes of the sockets of a governed cgroup: nothing passes, because it isn't known yet what it is, or because it
/// isn't contained as it has to be.
pub const STATE_REFUSED: u32 = 0;

/// Connections go to the daemon.
pub const STATE_STEERED: u32 = 1;

/// A cgroup whose processes are an adopted workload's, and all cgroups below it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Governed {
    /// The workload: a number of the daemon's.
    pub workload: u32,
    /// [`STATE_REFUSED`] or [`STATE_STEERED`].
    pub state: u32,
}

/// What becomes of a cgroup in the moment that it is made, by its path. As large as [`Governed`] and read like one, because it was
/// one: what was pinned then has no levels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The workload.
    pub workload: u32,
    /// [`STATE_REFUSED`] or [`STATE_STEERED`].
    pub state: u16,
    /// The levels of the tree at which a cgroup is governed by this, a bit for each. 0: at any.
    pub levels: u16,
}

const _: () = assert!(size_of::<Watched>() == size_of::<Governed>() && DEEPEST_LEVEL < u16::BITS);

/// A workload in a network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceKey {
    /// The cookie of the network namespace.
    pub netns: u64,
    /// The workload.
    pub workload: u32,
    /// Zero.
    pub padding: u32,
}

/// The ports of the daemon's own sockets for a workload in a network namespace, on its 127.0.0.1 and ::1, in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Takes TCP over IPv4.
    pub tcp4: u16,
    /// Takes TCP over IPv6.
    pub tcp6: u16,
    /// Takes DNS over IPv4.
    pub dns4: u16,
    /// Takes DNS over IPv6.
    pub dns6: u16,
}

/// One of those ports, which nobody may use but who is steered there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorKey {
    /// The cookie of the network namespace.
    pub netns: u64,
    /// The port, in host order.
    pub port: u32,
    /// IPPROTO_TCP or IPPROTO_UDP.
    pub protocol: u32,
}

/// Where a steered socket was to go, and whose it is; kept with the socket, and told to the daemon's end of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Who connected.
    pub origin: Origin,
    /// The address that was asked for, in network order; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u32; 4],
    /// The port that was asked for, in host order.
    pub port: u32,
    /// The workload.
    pub workload: u32,
    /// The socket's cookie (`SO_COOKIE`).
    pub cookie: u64,
}

/// What a governed process tried.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP connect.
    Tcp = 0,
    /// A datagram or a connect of UDP, other than DNS.
    Udp = 1,
    /// A question to a DNS server over UDP.
    Dns = 2,
    /// A socket of a protocol that isn't TCP or UDP.
    Raw = 3,
    /// A packet of a socket that was never steered.
    Packet = 4,
    /// A connect or a send to a unix socket.
    Unix = 5,
    /// Anything else.
    Other = 6,
}

/// What the kernel half did with it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent to the daemon.
    Steered = 0,
    /// Refused, as the process was told.
    Refused = 1,
    /// Dropped on its way out.
    Dropped = 2,
    /// Let through, because a rule says so.
    Allowed = 3,
    /// A steered connect that reached the daemon's listener.
    Arrived = 4,
    /// A connect that came to nothing.
    Failed = 5,
    /// A connect that somebody answered, whoever that was: counted apart from the hooks that steer.
    Established = 6,
    /// A connection that its process left before the daemon's listener had room for it.
    Lost = 7,
    /// Out of a launched workload's network namespace, by an interface that isn't its loopback.
    Left = 8,
}

/// A count of what a launched workload tried, by its network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceKey {
    /// The cookie of the network namespace.
    pub netns: u64,
    /// [`Kind`] in the low half, [`Fate`] in the high one.
    pub what: u32,
    /// Zero.
    pub padding: u32,
}

/// A count of the ledger.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TallyKey {
    /// The workload.
    pub workload: u32,
    /// [`Kind`] in the low half, [`Fate`] in the high one.
    pub what: u32,
}

// SAFETY: `#[repr(C)]`, valid for every bit pattern, and without padding that isn't a field.
#[cfg(feature = "user")]
unsafe impl aya::Pod for OriginKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Governed {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Watched {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for PlaceKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Place {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for DoorKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Flow {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for TallyKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for SpaceKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Origin {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for UnixKey {}
