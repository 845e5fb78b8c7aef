//! Ways past the proxy, many in one run: reads the name of one from each line of its input, tries it in a child of its own,
//! and answers each with a line: `ok`, or the errno's name. What arrived where is for who asks to see: [`World`] says where
//! something would arrive.

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setpgid};

mod calls;
mod families;
mod groups;
mod local;
mod process;
mod steered;
mod tcp;
mod udp;

/// How long an attempt may take besides what it waits for.
const LIMIT: Duration = Duration::from_millis(1_000);

/// What is sent: of no protocol.
pub(crate) const BYTES: &[u8] = b"\0stray\0";

/// A way: its name, and the attempt.
pub(crate) type Row = (&'static str, fn(&World) -> io::Result<String>);

/// What an attempt needs to know of the outside.
pub(crate) struct World {
    /// An address outside that every packet which leaves would get to.
    pub v4: Ipv4Addr,
    /// The same of IPv6.
    pub v6: Ipv6Addr,
    /// The port of the listeners on this host.
    pub port: u16,
    /// The name of the interface that leads outside.
    pub device: String,
    /// A folder with unix sockets: `stream`, `dgram`, `seqpacket`.
    pub folder: PathBuf,
    /// What abstract unix sockets are called, before a dash and the kind.
    pub name: String,
    /// The port id of a netlink socket outside.
    pub netlink: u32,
    /// A process outside.
    pub outside: i32,
    /// The daemon.
    pub daemon: i32,
    /// The daemon's run folder.
    pub run: PathBuf,
    /// A port of the daemon's.
    pub door: u16,
    /// The daemon's pins.
    pub pins: PathBuf,
    /// Where cgroup2 is.
    pub cgroups: PathBuf,
    /// The port at which somebody outside waits for the workload to listen.
    pub inbound: u16,
    /// How long an answer, or the end of a connect, is waited for.
    pub patience: Duration,
}

impl World {
    /// From words `key=value`.
    fn new(words: &[&str]) -> io::Result<Self> {
        let get = |key: &str| {
            let found = words.iter().find_map(|word| word.split_once('=').filter(|(name, _)| *name == key));
            found.map(|(_, value)| value.to_owned()).ok_or_else(|| io::Error::other(format!("no `{key}`")))
        };
        let number = |key: &str| get(key)?.parse::<u32>().map_err(io::Error::other);
        let port = |key: &str| get(key)?.parse::<u16>().map_err(io::Error::other);
        Ok(Self {
            v4: get("v4")?.parse().map_err(io::Error::other)?,
            v6: get("v6")?.parse().map_err(io::Error::other)?,
            port: port("port")?,
            device: get("device")?,
            folder: get("folder")?.into(),
            name: get("name")?,
            netlink: number("netlink")?,
            outside: number("outside")?.cast_signed(),
            daemon: number("daemon")?.cast_signed(),
            run: get("run")?.into(),
            door: port("door")?,
            pins: get("pins")?.into(),
            cgroups: get("cgroups")?.into(),
            inbound: port("inbound")?,
            patience: Duration::from_millis(number("patience")?.into()),
        })
    }

    /// Outside, by IPv4.
    pub(crate) fn far4(&self, port: u16) -> SocketAddr {
        (self.v4, port).into()
    }

    /// Outside, by IPv6.
    pub(crate) fn far6(&self, port: u16) -> SocketAddr {
        (self.v6, port).into()
    }

    /// The number of the interface that leads outside; 1 where it isn't there.
    pub(crate) fn index(&self) -> u32 {
        nix::net::if_::if_nametoindex(self.device.as_str()).unwrap_or(1)
    }
}

fn rows() -> impl Iterator<Item = &'static Row> {
    // Groups come last: what the kernel tells of them it tells a moment later.
    let topics =
        [tcp::ROWS, steered::ROWS, udp::ROWS, families::ROWS, local::ROWS, process::ROWS, calls::ROWS, groups::ROWS];
    topics.into_iter().flatten()
}

/// The names, a line each.
pub(crate) fn names() -> String {
    rows().map(|(name, _)| *name).collect::<Vec<_>>().join("\n")
}

/// Answers each line of the input. `mode` is `user`, or `root` (of a user namespace of its own), or `root+net` (and of a
/// network namespace).
pub(crate) fn run(mode: &str, words: &[&str]) -> io::Result<String> {
    let world = World::new(words)?;
    let entered = enter(mode);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let row = rows().find(|(name, _)| *name == line).ok_or_else(|| io::Error::other(format!("no row `{line}`")))?;
        let said = match &entered {
            Ok(()) => forked(row, &world)?,
            Err(error) => format!("unshare {}", told(Err(clone(error)))),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{said}")?;
        out.flush()?;
    }
    Ok(String::new())
}

fn clone(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

fn enter(mode: &str) -> io::Result<()> {
    let flags = match mode {
        "user" => return Ok(()),
        "root" => CloneFlags::CLONE_NEWUSER,
        _ => CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET,
    };
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(flags)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    if flags.contains(CloneFlags::CLONE_NEWNET) {
        raise_loopback()?;
    }
    Ok(())
}

fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request lives until the call returns.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })?;
    Ok(())
}

/// One attempt in a child, which is ended with what it started when its time is over.
fn forked(row: &Row, world: &World) -> io::Result<String> {
    let (reader, writer) = std::io::pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            let mut writer = writer;
            let _ = writer.write_all(told((row.1)(world)).as_bytes());
            // SAFETY: ends the process without running what its parent's copy will run.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut reader = reader;
            let limit = PollTimeout::try_from(LIMIT + world.patience).map_err(io::Error::other)?;
            let waited = poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], limit)?;
            let mut said = vec![0; 256];
            let length = if waited == 0 { 0 } else { reader.read(&mut said)? };
            if waited == 0 {
                let _ = kill(child, Signal::SIGKILL);
            }
            let ended = waitpid(child, None)?;
            let _ = kill(Pid::from_raw(-child.as_raw()), Signal::SIGKILL);
            said.truncate(length);
            Ok(match ended {
                _ if length > 0 => String::from_utf8_lossy(&said).into_owned(),
                WaitStatus::Signaled(_, signal, _) if waited > 0 => signal.to_string(),
                _ => "no end".into(),
            })
        }
    }
}

/// `ok` and the like, or the errno.
fn told(result: io::Result<String>) -> String {
    match result {
        Ok(said) => said,
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", Errno::from_raw(number)),
            None => error.to_string(),
        },
    }
}

pub(crate) fn ok() -> io::Result<String> {
    Ok("ok".into())
}

/// What a system call returned.
pub(crate) fn checked(returned: impl Into<i64>) -> io::Result<i64> {
    let returned = returned.into();
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// A system call with numbers or pointers.
pub(crate) fn call(number: i64, arguments: [i64; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the rows pass numbers, or pointers to what lives until the call returns.
    checked(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// A socket of any kind.
pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let socket = checked(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    let socket = i32::try_from(socket).map_err(io::Error::other)?;
    // SAFETY: it was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// setsockopt(2).
pub(crate) fn set(socket: &OwnedFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the value lives until the call returns, and has the length that is given.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), length) })?;
    Ok(())
}

/// The same with a number.
pub(crate) fn set_number(socket: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    set(socket, level, option, &value.to_ne_bytes())
}

/// A connect takes no longer than this where there is a listener on this host.
const CONNECT: Duration = Duration::from_millis(300);

/// Calls that wait for longer than this fail.
pub(crate) fn be_patient(socket: &OwnedFd, patience: Duration) -> io::Result<()> {
    let time = |of: Duration| -> io::Result<TimeVal> {
        let seconds = of.as_secs().try_into().map_err(io::Error::other)?;
        Ok(TimeVal::new(seconds, of.subsec_micros().into()))
    };
    setsockopt(socket, sockopt::ReceiveTimeout, &time(patience)?)?;
    setsockopt(socket, sockopt::SendTimeout, &time(patience.min(CONNECT))?)?;
    Ok(())
}
