//! What an adversary would try from inside a workload, one attempt a run: prints `ok`, or the errno's name. [`matrix`] tries
//! many in a run. It is process 1 of the workloads of the containment tests as well.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;

mod born;
mod keep;
mod late;
mod matrix;
mod reach;
mod storm;
mod unit;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|first| first == interceptor::launch::init::ARGUMENT) {
        return interceptor::launch::init::main();
    }
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let said = match attempt(&words) {
        Ok(said) => said,
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", Errno::from_raw(number)),
            None => error.to_string(),
        },
    };
    let written = writeln!(io::stdout(), "{said}");
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn attempt(words: &[&str]) -> io::Result<String> {
    match words {
        // Any system call with arguments that are numbers.
        ["syscall", number, arguments @ ..] => syscall(parse(number)?, arguments),
        ["read", path] => {
            let mut byte = [0];
            let _count = File::open(path)?.read(&mut byte)?;
            done()
        }
        ["write", path] => {
            File::options().append(true).open(path)?;
            done()
        }
        ["create", path] => {
            File::create_new(path)?;
            done()
        }
        ["list", path] => {
            let names = std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names = names.collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names.join(" "))
        }
        ["rename", from, to] => std::fs::rename(from, to).and_then(|()| done()),
        ["link", from, to] => std::fs::hard_link(from, to).and_then(|()| done()),
        ["connect-unix", path] => UnixStream::connect(path).and_then(|_| done()),
        ["connect-abstract", name] => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            UnixStream::connect_addr(&address).and_then(|_| done())
        }
        // Gives back what it gets, in capitals.
        ["serve", port] => {
            let port = u16::try_from(parse(port)?).map_err(io::Error::other)?;
            serve(std::net::TcpListener::bind(("127.0.0.1", port))?)
        }
        // The same at the listener that is the standard input, which somebody outside has made.
        ["accept"] => serve(std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?.into()),
        ["hold", address] => {
            let _stream = TcpStream::connect(address)?;
            std::thread::sleep(std::time::Duration::from_secs(60));
            done()
        }
        ["slip", address] => slip(destination(address)?),
        ["crowd", address, most] => crowd(destination(address)?, parse(most)?),
        ["detach", pin] => detach(pin),
        ["keep", how] => keep::keep(how),
        ["connect", address] => TcpStream::connect(address).and_then(|_| done()),
        ["in-network", path, program, arguments @ ..] => {
            nix::sched::setns(File::open(path)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Err(std::os::unix::process::CommandExt::exec(std::process::Command::new(program).args(arguments)))
        }
        // As a manager of services starts one.
        ["as-unit", cgroup, uid, how, command @ ..] => unit::run(cgroup, parse(uid)?, how, command),
        // What the daemon's end of a kernel test says of it.
        ["told", address] => told(TcpStream::connect(destination(address)?)?),
        ["born", cgroup, address, rounds] => born::again(cgroup, destination(address)?, parse(rounds)?),
        ["fail", address, rounds] => storm::fail(destination(address)?, parse(rounds)?),
        ["late", way, address] => late::late(way, destination(address)?),
        ["storm", "told", numbers @ ..] => storm::Storm::new(numbers)?.told(),
        ["storm", "reset", numbers @ ..] => storm::Storm::new(numbers)?.reset(),
        ["bind", way, address] => reach::bind_at(way, destination(address)?),
        ["udp", address] => reach::udp(destination(address)?),
        ["udp-to", address] => reach::udp_to(destination(address)?),
        ["udp-own"] => reach::udp_own(),
        ["later", address] => reach::later(destination(address)?),
        ["dns", way, server] => reach::dns(way, destination(server)?),
        ["on-input", way, address] => reach::on_input(way, destination(address)?),
        ["tcp", way, address] => reach::tcp(way, destination(address)?),
        ["matrix", "names"] => Ok(matrix::names()),
        ["matrix", mode, world @ ..] => matrix::run(mode, world),
        ["families"] => families(),
        ["write-memory", pid] => write_memory(parse(pid)?),
        ["take-descriptor", pid] => take_descriptor(parse(pid)?),
        ["bind-to-device", name] => bind_to_device(name),
        ["mark"] => mark(),
        ["input-ioctl", request] => input_ioctl(parse(request)?),
        ["descriptors"] => descriptors(),
        ["type-of-input"] => Ok(format!("{:?}", File::open("/proc/self/fd/0")?.metadata()?.file_type())),
        _ => Err(io::Error::other(format!("unknown attempt {words:?}"))),
    }
}

fn serve(listener: std::net::TcpListener) -> io::Result<String> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || -> io::Result<()> {
            let mut bytes = [0; 1024];
            loop {
                match stream.read(&mut bytes)? {
                    0 => return Ok(()),
                    count => stream.write_all(&bytes[..count].to_ascii_uppercase())?,
                }
            }
        });
    }
    done()
}

/// Connects until it is an own listener that answers, and not the proxy.
fn slip(to: SocketAddr) -> io::Result<String> {
    let pause = std::time::Duration::from_millis(5);
    let listener = std::net::TcpListener::bind(("0.0.0.0", to.port()))?;
    listener.set_nonblocking(true)?;
    loop {
        // Refused or not, what counts is who answers.
        let _ = TcpStream::connect(to);
        if listener.accept().is_ok() {
            return done();
        }
        std::thread::sleep(pause);
    }
}

/// Begins connects and waits for none of them, at most so many, until one is refused; whether one was.
fn crowd(to: SocketAddr, most: i64) -> io::Result<String> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut begun = Vec::new();
    for _ in 0..most {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => begun.push(socket),
            Err(Errno::ECONNREFUSED) => return Ok("refused".into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(format!("{} are under way", begun.len()))
}

/// Detaches the link that is pinned there, as an administrator may; the pin stays.
fn detach(pin: &str) -> io::Result<String> {
    /// The commands of bpf(2).
    const OBJ_GET: i64 = 7;
    const LINK_DETACH: i64 = 34;

    let path = CString::new(pin)?;
    let get = [path.as_ptr().addr() as u64, 0];
    // SAFETY: path and attribute live for the length of the call, which is given.
    let link = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, get.as_ptr(), size_of_val(&get)) };
    let link = u32::try_from(link).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the attribute lives for the length of the call, which is given.
    checked(unsafe { libc::syscall(libc::SYS_bpf, LINK_DETACH, &raw const link, size_of_val(&link)) })
}

/// The line that comes on a connection, and who the peer seems to be.
fn told(stream: TcpStream) -> io::Result<String> {
    use io::BufRead;

    let peer = stream.peer_addr()?;
    let mut line = String::new();
    io::BufReader::new(stream).read_line(&mut line)?;
    Ok(format!("{} as {peer}", line.trim_end()))
}

fn done() -> io::Result<String> {
    Ok("ok".into())
}

fn parse(text: &str) -> io::Result<i64> {
    text.parse().map_err(io::Error::other)
}

fn destination(text: &str) -> io::Result<SocketAddr> {
    text.parse().map_err(io::Error::other)
}

/// The families of which a socket of any type can be made, by their numbers.
fn families() -> io::Result<String> {
    let made = |family: i32| {
        (1..=5).any(|kind| {
            // SAFETY: no pointers.
            let socket = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
            // SAFETY: it was just made, and nobody else knows its number.
            socket >= 0 && unsafe { libc::close(socket) } == 0
        })
    };
    // Twice as many as the kernel knows.
    let numbers: Vec<String> = (0..96).filter(|&family| made(family)).map(|family| family.to_string()).collect();
    Ok(numbers.join(" "))
}

fn checked(returned: i64) -> io::Result<String> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { done() }
}

fn syscall(number: i64, arguments: &[&str]) -> io::Result<String> {
    let mut values = [0; 6];
    for (value, argument) in values.iter_mut().zip(arguments) {
        *value = parse(argument)?;
    }
    let [a, b, c, d, e, f] = values;
    // SAFETY: the tests name calls that the kernel refuses, or that touch no memory with these numbers.
    checked(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

fn write_memory(pid: i64) -> io::Result<String> {
    let mut byte = [0u8];
    let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: 0x1000 as *mut _, iov_len: 1 };
    // SAFETY: the local vector is valid; the remote one is another process's affair.
    checked(unsafe {
        libc::syscall(libc::SYS_process_vm_writev, pid, &raw const local, 1usize, &raw const remote, 1usize, 0usize)
    })
}

fn take_descriptor(pid: i64) -> io::Result<String> {
    // SAFETY: no pointers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if pidfd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    checked(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0) })
}

fn bind_to_device(name: &str) -> io::Result<String> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let name = CString::new(name)?;
    option(&socket, libc::SO_BINDTODEVICE, name.as_bytes_with_nul())
}

fn mark() -> io::Result<String> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    option(&socket, libc::SO_MARK, &1u32.to_ne_bytes())
}

fn option(socket: &impl AsRawFd, option: i32, value: &[u8]) -> io::Result<String> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the value lives for the length of the call, which is given.
    let returned =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value.as_ptr().cast(), length) };
    checked(returned.into())
}

fn input_ioctl(request: i64) -> io::Result<String> {
    let mut value = 0u64;
    let request = libc::Ioctl::try_from(request).map_err(io::Error::other)?;
    // SAFETY: the requests that the tests name read or write a few bytes at most.
    let returned = unsafe { libc::ioctl(0, request, &raw mut value) };
    checked(returned.into())
}

/// The numbers of the open descriptors, but for the one that lists them.
fn descriptors() -> io::Result<String> {
    let listing = std::fs::read_dir("/proc/self/fd")?;
    let mut numbers =
        listing.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()?;
    numbers.sort();
    numbers.pop();
    Ok(numbers.join(" "))
}
