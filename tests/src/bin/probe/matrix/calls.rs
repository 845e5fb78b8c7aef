//! System calls that change the kernel, other processes or devices, or that make sockets past the filters.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::socket::SockaddrStorage;

use super::{BYTES, Row, World, call, checked, ok, socket};

pub(super) const ROWS: &[Row] = &[
    ("io_uring", |_| {
        ring().map(drop)?;
        ok()
    }),
    ("io_uring, a connect", uring_connect),
    ("bpf: a program", |_| {
        // A socket filter of two instructions, r0 = 0 and exit (linux/bpf.h).
        let program: [u64; 2] = [0xb7, 0x95];
        let mut attributes = [0_u64; 16];
        attributes[0] = 1 | 2 << 32;
        attributes[1] = program.as_ptr() as u64;
        attributes[2] = c"GPL".as_ptr() as u64;
        bpf(5, &attributes)
    }),
    ("bpf: a map", |_| bpf(0, &[1 | 4 << 32, 4 | 1 << 32, 0, 0])),
    ("bpf: the first link, to detach it", |_| bpf(30, &[1, 0])),
    ("bpf: the first program", |_| bpf(13, &[1, 0])),
    ("bpf: the first map", |_| bpf(14, &[1, 0])),
    ("bpf: detaching what the root of the cgroups has", |w| {
        let folder = File::open(&w.cgroups)?;
        let target = u64::try_from(folder.as_raw_fd()).map_err(io::Error::other)?;
        // BPF_PROG_DETACH of BPF_CGROUP_INET4_CONNECT.
        bpf(9, &[target, 10, 0, 0])
    }),
    ("bpf: what the daemon has pinned", |w| {
        let name = fs::read_dir(&w.pins)?.flatten().next().map(|entry| entry.path());
        let path = name.unwrap_or_else(|| w.pins.clone());
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        bpf(7, &[path.as_ptr() as u64, 0])
    }),
    ("removing what the daemon has pinned", |w| {
        fs::rename(&w.pins, w.pins.with_extension("stray"))?;
        ok()
    }),
    ("/dev/net/tun", tun),
    ("/dev/vhost-net", |_| open("/dev/vhost-net")),
    ("/dev/vhost-vsock", |_| open("/dev/vhost-vsock")),
    ("/dev/vsock", |_| open("/dev/vsock")),
    ("/dev/ppp", |_| open("/dev/ppp")),
    ("/dev/mem", |_| open("/dev/mem")),
    ("/dev/kmsg", |_| open("/dev/kmsg")),
    ("/proc/kcore", |_| open("/proc/kcore")),
    ("/proc/sys/net/ipv4/ip_forward", |_| open("/proc/sys/net/ipv4/ip_forward")),
    ("/proc/sys/kernel/core_pattern", |_| open("/proc/sys/kernel/core_pattern")),
    ("/proc/sysrq-trigger", |_| open("/proc/sysrq-trigger")),
    ("a device node of its own", |_| {
        let own = std::env::temp_dir().join(format!("stray-{}", std::process::id()));
        nix::sys::stat::mknod(
            &own,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::S_IRWXU,
            nix::sys::stat::makedev(1, 1),
        )?;
        let _ = fs::remove_file(own);
        ok()
    }),
    ("ptrace of a process outside", |w| {
        // PTRACE_SEIZE.
        call(libc::SYS_ptrace, [0x4206, w.outside.into(), 0, 0, 0, 0])?;
        ok()
    }),
    ("ptrace of the daemon", |w| {
        call(libc::SYS_ptrace, [0x4206, w.daemon.into(), 0, 0, 0, 0])?;
        ok()
    }),
    ("writing the memory of a process outside", |w| {
        let mut byte = [0_u8];
        let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let remote = libc::iovec { iov_base: 0x1000 as *mut _, iov_len: 1 };
        let (local, remote) = ((&raw const local) as i64, (&raw const remote) as i64);
        call(libc::SYS_process_vm_writev, [w.outside.into(), local, 1, remote, 1, 0])?;
        ok()
    }),
    ("/proc/PID/mem of a process outside", |w| open(format!("/proc/{}/mem", w.outside))),
    ("killing the daemon", |w| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(w.daemon), nix::sys::signal::Signal::SIGKILL)?;
        ok()
    }),
    ("a signal to a process outside", |w| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(w.outside), nix::sys::signal::Signal::SIGCONT)?;
        ok()
    }),
    ("an interface's address (ioctl)", |w| ioctl(w, libc::SIOCSIFADDR)),
    ("an interface down (ioctl)", |w| ioctl(w, libc::SIOCSIFFLAGS)),
    ("a firewall of its own (ip_tables)", |_| {
        // IPT_SO_SET_REPLACE (linux/netfilter_ipv4/ip_tables.h).
        super::set(&socket(libc::AF_INET, libc::SOCK_STREAM, 0)?, libc::SOL_IP, 64, &[0; 96])?;
        ok()
    }),
    ("a file by its handle", |_| {
        call(libc::SYS_open_by_handle_at, [-100, 0, 0, 0, 0, 0])?;
        ok()
    }),
    ("perf events", |_| {
        let attributes = [0_u64; 16];
        call(libc::SYS_perf_event_open, [attributes.as_ptr() as i64, -1, 0, -1, 0, 0])?;
        ok()
    }),
    ("a kernel module", |_| {
        call(libc::SYS_finit_module, [-1, c"".as_ptr() as i64, 0, 0, 0, 0])?;
        ok()
    }),
    ("another kernel (kexec)", |_| {
        call(libc::SYS_kexec_load, [0, 0, 0, 0, 0, 0])?;
        ok()
    }),
    ("root, by setuid", |_| {
        call(libc::SYS_setresuid, [0, 0, 0, 0, 0, 0])?;
        if fs::read("/etc/shadow").is_ok() { ok() } else { Ok("only in its namespace".into()) }
    }),
    ("x32: a socket", |w| {
        let made = call(0x4000_0000 + libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_DGRAM.into(), 0, 0, 0, 0])?;
        send_on(w, made)
    }),
    ("i386: a socket", |w| send_on(w, i386(359, [2, 2, 0])?)),
    ("i386: socketcall", |w| {
        // Only the family is looked at where the filter lets the call through: the pointer is of 32 bits.
        i386(102, [1, 0, 0])?;
        send_on(w, -1)
    }),
    ("i386: a vsock", |w| send_on(w, i386(359, [40, 1, 0])?)),
];

fn open(path: impl AsRef<Path>) -> io::Result<String> {
    File::options().write(true).open(path)?;
    ok()
}

fn bpf(command: i64, attributes: &[u64]) -> io::Result<String> {
    let size = i64::try_from(size_of_val(attributes)).map_err(io::Error::other)?;
    call(libc::SYS_bpf, [command, attributes.as_ptr() as i64, size, 0, 0, 0])?;
    ok()
}

/// A device of its own; in the host's network its packets are routed as others'.
fn tun(_: &World) -> io::Result<String> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // IFF_TUN | IFF_NO_PI.
    request.ifr_ifru.ifru_flags = 0x1001;
    // SAFETY: the request lives until the call returns.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    ok()
}

fn ioctl(world: &World, what: libc::Ioctl) -> io::Result<String> {
    let one = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(world.device.as_bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request lives until the call returns.
    checked(unsafe { libc::ioctl(one.as_raw_fd(), what, &raw mut request) })?;
    ok()
}

/// A datagram on a descriptor that another table of system calls made.
fn send_on(world: &World, socket: i64) -> io::Result<String> {
    let socket = i32::try_from(socket).map_err(io::Error::other)?;
    let to = SockaddrStorage::from(world.far4(9));
    nix::sys::socket::sendto(socket, BYTES, &to, nix::sys::socket::MsgFlags::empty())?;
    ok()
}

#[cfg(target_arch = "x86_64")]
fn i386(number: u32, arguments: [u32; 3]) -> io::Result<i64> {
    let mut returned = u64::from(number);
    let [a, b, c] = arguments.map(u64::from);
    // SAFETY: a system call of three numbers. The compiler keeps rbx for itself, so it is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {a}",
            "int 0x80",
            "xchg rbx, {a}",
            a = inout(reg) a => _,
            inout("rax") returned,
            in("rcx") b,
            in("rdx") c,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    let returned = i64::from(returned as u32 as i32);
    if returned < 0 { Err(io::Error::from_raw_os_error(-(returned as i32))) } else { Ok(returned) }
}

#[cfg(not(target_arch = "x86_64"))]
fn i386(_: u32, _: [u32; 3]) -> io::Result<i64> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// A ring of eight entries: its descriptor, and `struct io_uring_params` as words.
fn ring() -> io::Result<(i64, [u32; 30])> {
    let mut parameters = [0_u32; 30];
    let ring = call(libc::SYS_io_uring_setup, [8, parameters.as_mut_ptr() as i64, 0, 0, 0, 0])?;
    Ok((ring, parameters))
}

/// IORING_OP_CONNECT on a TCP socket: no system call of connect(2) is made.
fn uring_connect(world: &World) -> io::Result<String> {
    let (ring, parameters) = ring()?;
    let one = super::tcp::new(world, true)?;
    let mapped = |length: usize, offset: i64| -> io::Result<*mut u8> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let ring = i32::try_from(ring).map_err(io::Error::other)?;
        // SAFETY: a new mapping of the ring.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, ring, offset) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
    };
    let (queue, entries) = (mapped(4_096, 0)?, mapped(4_096, 0x1000_0000)?);
    let address = SockaddrStorage::from(world.far4(443));
    // Of `struct io_sqring_offsets`, at word 10: tail is the second, array the seventh.
    let (tail, array) = (parameters[11] as usize, parameters[16] as usize);
    // SAFETY: both mappings have the room (8 entries of 64 bytes, and the queue of them), and are this process's alone.
    unsafe {
        let entry = entries;
        // IORING_OP_CONNECT; the descriptor; the length of the address, and the address.
        entry.write(16);
        entry.add(4).cast::<i32>().write(one.as_raw_fd());
        entry.add(8).cast::<u64>().write(16);
        entry.add(16).cast::<u64>().write((&raw const address) as u64);
        queue.add(array).cast::<u32>().write(0);
        queue.add(tail).cast::<u32>().write_volatile(1);
    }
    call(libc::SYS_io_uring_enter, [ring, 1, 0, 0, 0, 0])?;
    std::thread::sleep(std::time::Duration::from_millis(30));
    super::tcp::see(&one)
}
