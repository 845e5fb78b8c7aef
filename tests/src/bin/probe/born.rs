//! Processes that are born into a cgroup that was made a moment before, and whose first system call is a connect.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, socket};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Removes and makes the cgroup so many times, with a process each time; prints how many of their connects the daemon's end
/// knew rightly, how many it didn't, and how many were refused. The socket is made outside, so that nothing comes before the
/// connect.
pub(crate) fn again(cgroup: &str, to: SocketAddr, rounds: i64) -> io::Result<String> {
    let (mut right, mut wrong, mut refused) = (0, 0, 0);
    for _ in 0..rounds {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let address = SockaddrStorage::from(to);
        removed(cgroup)?;
        fs::create_dir(cgroup)?;
        let folder = File::open(cgroup)?;
        // struct clone_args of 88 bytes: CLONE_INTO_CGROUP, SIGCHLD, the cgroup.
        let mut arguments = [0_u64; 11];
        arguments[0] = 0x2_0000_0000;
        arguments[4] = libc::SIGCHLD as u64;
        arguments[10] = u64::try_from(folder.as_raw_fd()).map_err(io::Error::other)?;
        // SAFETY: the arguments live until the call returns; this process has one thread.
        let child = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), 88) };
        if child == 0 {
            // SAFETY: the address lives until the call returns, and has the length that is given.
            let connected = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr(), address.len()) };
            let code = if connected < 0 { Errno::last_raw() } else { 0 };
            // SAFETY: ends the process without running what its parent's copy will run.
            unsafe { libc::_exit(code) }
        }
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        let child = Pid::from_raw(i32::try_from(child).map_err(io::Error::other)?);
        match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) if is_told(TcpStream::from(socket), to, child)? => right += 1,
            WaitStatus::Exited(_, libc::ECONNREFUSED) => refused += 1,
            _ => wrong += 1,
        }
    }
    Ok(format!("{right} {wrong} {refused}"))
}

/// Whether the daemon's end knows where the connection was to go, and whose it is.
fn is_told(stream: TcpStream, to: SocketAddr, child: Pid) -> io::Result<bool> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    if BufReader::new(&stream).read_line(&mut line).is_err() {
        return Ok(false);
    }
    let words: Vec<&str> = line.split(' ').collect();
    Ok(words.first() == Some(&to.to_string().as_str()) && words.get(2) == Some(&child.to_string().as_str()))
}

/// A process that has ended keeps its cgroup for a moment.
fn removed(cgroup: &str) -> io::Result<()> {
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}
