//! Many connections, whose ends are told what the daemon's end of a kernel test knows of them.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockname, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// How long a connect and an answer may take each.
const PATIENCE: Duration = Duration::from_secs(20);

/// Neither TLS nor HTTP.
const BYTES: &[u8] = b"\0stray\0";

/// Connects that are given up before they are answered, one after the other; prints their source ports.
pub(crate) fn fail(to: SocketAddr, rounds: i64) -> io::Result<String> {
    let mut ports = Vec::new();
    for _ in 0..rounds {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(nix::errno::Errno::EINPROGRESS) => {
                let own: SockaddrStorage = getsockname(socket.as_raw_fd())?;
                let port = own.as_sockaddr_in().map(|own| own.port());
                let port = port.or_else(|| own.as_sockaddr_in6().map(|own| own.port()));
                ports.extend(port.map(|port| port.to_string()));
            }
            // The listener had room.
            Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ports.join(" "))
}

/// What a storm is to be.
pub(crate) struct Storm {
    /// At once.
    pub threads: i64,
    /// At least so many connections in all; then it goes on until its input ends.
    pub count: i64,
    /// The first octet of where they go; the others are another one's each.
    pub network: u8,
    /// The port that they all go to.
    pub port: u16,
    /// How long a thread rests between two.
    pub pause: Duration,
}

/// What became of a connection.
enum Outcome {
    /// As it should be.
    Right,
    /// Something else, in words.
    Wrong(String),
    /// Nobody was there, or nobody was there any more.
    Refused,
}

impl Storm {
    /// From numbers: threads, connections, the first octet, the port, milliseconds of rest.
    pub(crate) fn new(words: &[&str]) -> io::Result<Self> {
        let numbers = words.iter().map(|word| super::parse(word)).collect::<io::Result<Vec<i64>>>()?;
        let [threads, count, network, port, pause] = numbers[..] else {
            return Err(io::Error::other("a storm has five numbers"));
        };
        Ok(Self {
            threads,
            count,
            network: u8::try_from(network).map_err(io::Error::other)?,
            port: u16::try_from(port).map_err(io::Error::other)?,
            pause: Duration::from_millis(u64::try_from(pause).map_err(io::Error::other)?),
        })
    }

    /// Of which each is to be told where it was to go. Prints how many were right, wrong and refused, and one of the wrong.
    pub(crate) fn told(&self) -> io::Result<String> {
        self.run(|to| {
            let line = line_of(to)?;
            if line.split(' ').next() == Some(to.to_string().as_str()) {
                return Ok(Outcome::Right);
            }
            Ok(Outcome::Wrong(format!("{to} was told `{}`", line.trim_end())))
        })
    }

    /// Of which each is to be reset by a daemon that has no target there, and answered by nobody. Prints as [`told`](Self::told).
    pub(crate) fn reset(&self) -> io::Result<String> {
        self.run(|to| {
            let mut stream = dial(to)?;
            match stream.write_all(BYTES).and_then(|()| stream.read(&mut [0; 64])) {
                // The daemon ended when it had read what was sent.
                Ok(0) => Ok(Outcome::Refused),
                Ok(count) => Ok(Outcome::Wrong(format!("{to} was answered with {count} bytes"))),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    Ok(Outcome::Right)
                }
                Err(error) => Err(error),
            }
        })
    }

    fn run(&self, one: impl Fn(SocketAddr) -> io::Result<Outcome> + Sync) -> io::Result<String> {
        let (next, right, refused) = (AtomicI64::new(0), AtomicI64::new(0), AtomicI64::new(0));
        let (may_end, wrong) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.count && may_end.load(Ordering::Relaxed) {
                    return;
                }
                let to = self.to(number);
                let outcome = one(to).unwrap_or_else(|error| match error.kind() {
                    // Anything else (no route, no answer in time) is no refusal.
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
                    _ => Outcome::Wrong(format!("{to} saw {error}")),
                });
                match outcome {
                    Outcome::Right => _ = right.fetch_add(1, Ordering::Relaxed),
                    Outcome::Refused => _ = refused.fetch_add(1, Ordering::Relaxed),
                    Outcome::Wrong(how) => wrong.lock().unwrap_or_else(PoisonError::into_inner).push(how),
                }
                std::thread::sleep(self.pause);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(work);
            }
            // That it can't be read is its end as well.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            may_end.store(true, Ordering::Relaxed);
        });
        let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        let counts = format!("{} {} {}", right.into_inner(), wrong.len(), refused.into_inner());
        Ok(wrong.first().map_or(counts.clone(), |one| format!("{counts}: {one}")))
    }

    /// Where a connection goes: never the loopback address itself, which others are at.
    fn to(&self, number: i64) -> SocketAddr {
        let host = (number as u32).wrapping_add(256) & 0x00ff_ffff;
        SocketAddr::from((Ipv4Addr::from(u32::from(self.network) << 24 | host), self.port))
    }
}

fn line_of(to: SocketAddr) -> io::Result<String> {
    let stream = dial(to)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok(line)
}

fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    setsockopt(&socket, sockopt::SendTimeout, &patience)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    // So that no port is kept by a connection that is over.
    setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(socket))
}
