//! Many connections, whose ends are told what the daemon's end of a kernel test knows of them.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockname, setsockopt, socket, sockopt,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

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
                ports.extend(own.as_sockaddr_in().map(|own| own.port().to_string()));
            }
            // The listener had room.
            Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ports.join(" "))
}

/// `count` connections from as many threads, each to another address; prints how many were right, wrong and refused.
pub(crate) fn storm(threads: i64, count: i64) -> io::Result<String> {
    let (next, right, wrong, refused) = (AtomicI64::new(0), AtomicI64::new(0), AtomicI64::new(0), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let outcome = match one(number) {
                        Ok(true) => &right,
                        Ok(false) => &wrong,
                        Err(_) => &refused,
                    };
                    outcome.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let told = [right, wrong, refused].map(|count| count.into_inner().to_string());
    Ok(told.join(" "))
}

/// Whether the daemon's end knows where this connection was to go.
fn one(number: i64) -> io::Result<bool> {
    let bits = number as u32;
    let address = Ipv4Addr::from(0xc612_0000 | (bits & 0xffff));
    let to = SocketAddr::from((address, 1_024 + (bits >> 4 & 0x7fff) as u16));
    let stream = TcpStream::connect(to)?;
    // So that no port is kept by a connection that is over.
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.split(' ').next() == Some(&to.to_string()))
}
