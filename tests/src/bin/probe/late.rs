//! Sockets that are connected, and whose first packets go out later.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};

/// `TCP_FASTOPEN_NO_COOKIE` (include/uapi/linux/tcp.h).
const NO_COOKIE: libc::c_int = 34;

/// Connects by `tcp`, whose SYN waits for what is sent, or by `udp`; says that it is ready, and sends when it is told to.
pub(crate) fn late(way: &str, to: SocketAddr) -> io::Result<String> {
    if way == "udp" {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        wait()?;
        socket.send(b"late")?;
        return super::done();
    }
    let one = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&one, sockopt::TcpFastOpenConnect, &true)?;
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the value lives for the length of the call, which is given.
    let returned =
        unsafe { libc::setsockopt(one.as_raw_fd(), libc::IPPROTO_TCP, NO_COOKIE, (&raw const on).cast(), length) };
    super::checked(returned.into())?;
    connect(one.as_raw_fd(), &SockaddrStorage::from(to))?;
    wait()?;
    TcpStream::from(one).write_all(b"late")?;
    super::done()
}

fn wait() -> io::Result<()> {
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new()).map(drop)
}
