//! What is outside: a network namespace that is the host's for this test, whose every packet that leaves ends in our hands,
//! and sockets of other processes of that host. What arrives is told once.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, NetlinkAddr, SockFlag, SockType, UnixAddr, accept, bind, getsockname, listen,
    recv, socket,
};

/// The interface through which packets leave.
pub(crate) const DEVICE: &str = "gate";
/// Where listeners of this host are.
pub(crate) const PORT: u16 = 4_040;
/// Where somebody waits for a listener of the workload's.
pub(crate) const INBOUND: u16 = 4_041;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Hop-by-hop options, with which the kernel's own MLD reports begin (RFC 2710).
const HOP_BY_HOP: u8 = 0;
const ICMPV6: u8 = 58;
/// Parts of the groups that the attempts join; others are joined by the kernel.
const GROUPS: [&[u8]; 2] = [&[239, 198, 51, 7], b"\x53\x74\x72\x61"];

/// Everything outside. Dropping it ends what it runs.
pub(crate) struct Outside {
    gate: File,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    asking: Arc<UdpSocket>,
    netlink: Option<OwnedFd>,
    unix: Vec<Unix>,
    is_over: Arc<AtomicBool>,
    caller: Option<JoinHandle<()>>,
    /// What abstract sockets are called.
    pub(crate) name: String,
}

/// A unix socket, and whether it listens.
struct Unix(&'static str, OwnedFd, bool);

impl Outside {
    /// Moves this thread, and what it starts, into a network namespace of its own.
    pub(crate) fn new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
        let gate = gate()?;
        for command in [
            "link set lo up",
            "link set gate arp off addrgenmode none",
            "link set gate up",
            "addr add 198.51.100.1/24 dev gate",
            "addr add 2001:db8::1/64 dev gate nodad",
            "addr add fe80::1/64 dev gate nodad",
            "route add default dev gate",
            "-6 route add default dev gate",
        ] {
            let output = Command::new("ip").args(command.split(' ')).output().context("ip")?;
            ensure!(output.status.success(), "ip {command}: {output:?}");
        }
        // Else ping sockets are nobody's, and show nothing.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
        // Reports of a group are repeated at once, so that they are seen beside what they come from.
        fs::write("/proc/sys/net/ipv4/conf/gate/igmpv3_unsolicited_report_interval", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/gate/mldv2_unsolicited_report_interval", "1")?;
        let addresses = ["0.0.0.0:4040", "[::]:4040"].map(|address| address.parse::<SocketAddr>());
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for address in addresses {
            let address = address?;
            tcp.push(listener(address)?);
            udp.push(datagram(address)?);
        }
        let name = format!("interceptor-matrix-{}", std::process::id());
        let asking = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
        asking.set_nonblocking(true)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let caller = calling(asking.clone(), is_over.clone());
        let mut outside =
            Self { gate, tcp, udp, asking, netlink: None, unix: Vec::new(), is_over, caller: Some(caller), name };
        outside.open_abstract()?;
        Ok(outside)
    }

    /// Has a process listen at NETLINK_USERSOCK, or not: an adopted workload that could reach one is refused altogether, and
    /// nothing else of it would be seen.
    pub(crate) fn hear_netlink(&mut self, listens: bool) -> Result<()> {
        self.netlink = if listens { Some(netlink()?) } else { None };
        Ok(())
    }

    /// The port id of the netlink socket, or one that nobody has.
    pub(crate) fn netlink(&self) -> Result<u32> {
        const NOBODY: u32 = 0x7fff_fff0;
        let Some(socket) = &self.netlink else { return Ok(NOBODY) };
        Ok(getsockname::<NetlinkAddr>(socket.as_raw_fd())?.pid())
    }

    /// Makes the folder `sinks` in this one, with unix sockets that every user may use.
    pub(crate) fn open_paths(&mut self, folder: &Path) -> Result<()> {
        let folder = folder.join("sinks");
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        for (name, kind) in KINDS {
            let path = folder.join(name);
            self.unix.push(unix(name, kind, &UnixAddr::new(&path)?)?);
            fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        }
        Ok(())
    }

    fn open_abstract(&mut self) -> Result<()> {
        for (name, kind) in KINDS {
            let address = UnixAddr::new_abstract(format!("{}-{name}", self.name).as_bytes())?;
            self.unix.push(unix(name, kind, &address)?);
        }
        Ok(())
    }

    /// What has arrived since it was last asked for, in words.
    pub(crate) fn arrived(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        let mut bytes = [0; 2_048];
        for listener in &self.tcp {
            while let Ok((_, from)) = listener.accept() {
                found.push(format!("tcp from {from}"));
            }
        }
        for socket in self.udp.iter().chain([&*self.asking]) {
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                found.push(format!("udp of {length} bytes from {from}"));
            }
        }
        while let Some(socket) = &self.netlink
            && recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).is_ok()
        {
            found.push("netlink".into());
        }
        for Unix(name, socket, listens) in &self.unix {
            if *listens {
                while let Ok(accepted) = accept(socket.as_raw_fd()) {
                    let _ = nix::unistd::close(accepted);
                    found.push(format!("unix {name}"));
                }
            } else {
                while recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).is_ok() {
                    found.push(format!("unix {name}"));
                }
            }
        }
        while let Ok(length) = self.gate.read(&mut bytes) {
            found.extend(told(&bytes[..length]));
        }
        found
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(caller) = self.caller.take() {
            let _ = caller.join();
        }
    }
}

const KINDS: [(&str, SockType); 3] =
    [("stream", SockType::Stream), ("dgram", SockType::Datagram), ("seqpacket", SockType::SeqPacket)];

/// A frame that left, in words; none where the kernel sends it by itself: the neighbours and groups of its addresses.
fn told(frame: &[u8]) -> Option<String> {
    let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let packet = &frame[ETHERNET..];
    let of_ours = GROUPS.iter().any(|group| packet.windows(group.len()).any(|window| window == *group));
    match kind {
        0x0800 => {
            let [a, b, c, d] = packet.get(16..20)? else { return None };
            Some(format!("IPv4 of protocol {} to {a}.{b}.{c}.{d}, {} bytes", packet[9], packet.len()))
        }
        0x86dd => {
            let next = packet[6];
            let own = next == HOP_BY_HOP || next == ICMPV6 && (130..=143).contains(packet.get(40)?);
            let to = <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(std::net::Ipv6Addr::from)?;
            (of_ours || !own).then(|| format!("IPv6 of protocol {next} to {to}, {} bytes", packet.len()))
        }
        _ => Some(format!("a frame of type {kind:04x}")),
    }
}

/// A TAP device, from which all frames that leave are read.
fn gate() -> Result<File> {
    let file =
        File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").context("tun")?;
    // SAFETY: plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = from.cast_signed();
    }
    // IFF_TAP | IFF_NO_PI (linux/if_tun.h).
    request.ifr_ifru.ifru_flags = 0x1002;
    // SAFETY: the request lives until the call returns.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    ensure!(made == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    Ok(file)
}

/// One socket for each family: `[::]` doesn't take what is for `0.0.0.0`.
fn plain(address: SocketAddr, kind: SockType) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(address))?;
    Ok(socket)
}

fn listener(address: SocketAddr) -> Result<TcpListener> {
    let socket = plain(address, SockType::Stream)?;
    listen(&socket, Backlog::new(64)?)?;
    Ok(socket.into())
}

fn datagram(address: SocketAddr) -> Result<UdpSocket> {
    Ok(plain(address, SockType::Datagram)?.into())
}

/// NETLINK_USERSOCK, in the first group.
fn netlink() -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let made = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 2) };
    ensure!(made >= 0, "netlink: {}", std::io::Error::last_os_error());
    // SAFETY: it was just made, and nobody else has it.
    let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(made) };
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
    Ok(socket)
}

fn unix(name: &'static str, kind: SockType, address: &UnixAddr) -> Result<Unix> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, kind, flags, None)?;
    bind(socket.as_raw_fd(), address)?;
    let listens = kind != SockType::Datagram;
    if listens {
        listen(&socket, Backlog::new(64)?)?;
    }
    Ok(Unix(name, socket, listens))
}

/// Somebody of this host who connects, and sends datagrams, to what the workload may listen at.
fn calling(asking: Arc<UdpSocket>, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            let _ = std::net::TcpStream::connect(("127.0.0.1", INBOUND));
            let _ = asking.send_to(b"?", ("127.0.0.1", INBOUND));
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}
