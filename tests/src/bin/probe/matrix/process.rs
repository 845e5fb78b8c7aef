//! Who makes the call: children, threads, and processes that try to be elsewhere: another cgroup, another namespace.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, setsid};

use super::tcp::plain;
use super::{Row, World, call, ok, told};

pub(super) const ROWS: &[Row] = &[
    ("a child", |w| by(0, || plain(w, w.far4(443)))),
    ("a child of a child", |w| by(1, || plain(w, w.far4(443)))),
    ("a child in a session of its own", |w| {
        by(0, || {
            setsid()?;
            plain(w, w.far4(443))
        })
    }),
    ("a daemon: its parents are gone", |w| {
        by(0, || {
            setsid()?;
            by_orphan(|| plain(w, w.far4(443)))
        })
    }),
    ("a child without the parent's files (vfork, exec)", |w| {
        let own = fs::read_link("/proc/self/exe")?;
        let output = std::process::Command::new(own).args(["tcp", "plain", &w.far4(443).to_string()]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }),
    ("threads", |w| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| plain(w, w.far4(443)))).collect();
            let mut last = ok();
            for thread in threads {
                last = thread.join().unwrap_or_else(|_| ok());
            }
            last
        })
    }),
    ("being connected to", inbound),
    ("a cgroup of its own below", |w| {
        let own = own_cgroup(w)?.join("stray");
        fs::create_dir(&own)?;
        let moved = fs::write(own.join("cgroup.procs"), "0");
        moved?;
        ok()
    }),
    ("into the cgroup above", |w| {
        let own = own_cgroup(w)?;
        let above = own.parent().unwrap_or(&own).join("cgroup.procs");
        fs::write(above, "0")?;
        ok()
    }),
    ("into the root of the cgroups", |w| {
        fs::write(w.cgroups.join("cgroup.procs"), "0")?;
        plain(w, w.far4(443))
    }),
    ("a child born in another cgroup (clone3)", |w| {
        let folder = fs::File::open(&w.cgroups)?;
        // struct clone_args of 88 bytes: CLONE_INTO_CGROUP, SIGCHLD, the cgroup.
        let mut arguments = [0_u64; 11];
        arguments[0] = 0x2_0000_0000;
        arguments[4] = libc::SIGCHLD as u64;
        arguments[10] = u64::try_from(folder.as_raw_fd()).map_err(io::Error::other)?;
        clone3(&arguments)
    }),
    ("cgroup2, mounted anew", |w| {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
        mounted("cgroup2")?;
        fs::write("/tmp/cgroup.procs", "0")?;
        plain(w, w.far4(443))
    }),
    ("cgroup2 of the host's, mounted anew", |w| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mounted("cgroup2")?;
        fs::write("/tmp/cgroup.procs", "0")?;
        plain(w, w.far4(443))
    }),
    ("bpffs, mounted anew", |_| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mounted("bpf")?;
        ok()
    }),
    ("proc, mounted anew", |_| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mounted("proc")?;
        ok()
    }),
    ("sysfs, mounted anew", |_| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mounted("sysfs")?;
        ok()
    }),
    ("the cgroups uncovered (umount)", |w| {
        nix::mount::umount(&w.cgroups)?;
        ok()
    }),
    ("the root left (chroot)", |_| {
        nix::unistd::chroot("/proc/1/root")?;
        ok()
    }),
    ("the network namespace of process 1", |w| {
        setns(fs::File::open("/proc/1/ns/net")?, CloneFlags::CLONE_NEWNET)?;
        plain(w, w.far4(443))
    }),
    ("the network namespace of a process outside", |w| {
        setns(fs::File::open(format!("/proc/{}/ns/net", w.outside))?, CloneFlags::CLONE_NEWNET)?;
        plain(w, w.far4(443))
    }),
    ("the user namespace of a process outside", |w| {
        setns(fs::File::open(format!("/proc/{}/ns/user", w.outside))?, CloneFlags::CLONE_NEWUSER)?;
        ok()
    }),
    ("all namespaces of a process outside (pidfd)", |w| {
        let process = call(libc::SYS_pidfd_open, [w.outside.into(), 0, 0, 0, 0, 0])?;
        let process = RawFd::try_from(process).map_err(io::Error::other)?;
        call(libc::SYS_setns, [process.into(), (libc::CLONE_NEWNET | libc::CLONE_NEWNS).into(), 0, 0, 0, 0])?;
        plain(w, w.far4(443))
    }),
    ("a network namespace of its own", |w| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        plain(w, w.far4(443))
    }),
    ("a user and a network namespace of its own", |w| {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        plain(w, w.far4(443))
    }),
    ("a user namespace below (clone3)", |_| {
        let mut arguments = [0_u64; 11];
        arguments[0] = (libc::CLONE_NEWUSER | libc::CLONE_NEWNET) as u64;
        arguments[4] = libc::SIGCHLD as u64;
        clone3(&arguments)
    }),
];

/// In a child of as many parents more; what it says comes back by a pipe.
fn by(parents: usize, attempt: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
    let (mut reader, mut writer) = std::io::pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let said = if parents == 0 { attempt() } else { by(parents - 1, attempt) };
            let _ = writer.write_all(told(said).as_bytes());
            // SAFETY: ends the process without running what its parent's copy will run.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut said = String::new();
            reader.read_to_string(&mut said)?;
            waitpid(child, None)?;
            Ok(said)
        }
    }
}

/// In a process whose parent has ended before it begins.
fn by_orphan(attempt: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
    let (mut reader, mut writer) = std::io::pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // SAFETY: as above.
            if matches!(unsafe { fork() }, Ok(ForkResult::Child)) {
                std::thread::sleep(Duration::from_millis(20));
                let _ = writer.write_all(told(attempt()).as_bytes());
            }
            // SAFETY: ends the process without running what its parent's copy will run.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            waitpid(child, None)?;
            let mut said = String::new();
            reader.read_to_string(&mut said)?;
            Ok(said)
        }
    }
}

/// Somebody outside connects when there is a listener.
fn inbound(world: &World) -> io::Result<String> {
    let own = TcpListener::bind(("0.0.0.0", world.inbound))?;
    own.set_nonblocking(true)?;
    for _ in 0..50 {
        if let Ok((mut stream, _)) = own.accept() {
            stream.write_all(super::BYTES)?;
            return ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok("nobody".into())
}

/// The folder of the cgroup that it is in.
fn own_cgroup(world: &World) -> io::Result<std::path::PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Ok(world.cgroups.join(path))
}

/// A filesystem of this kind on /tmp, in a mount namespace of its own.
fn mounted(kind: &str) -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("none"), "/tmp", Some(kind), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

fn clone3(arguments: &[u64; 11]) -> io::Result<String> {
    let made = call(libc::SYS_clone3, [arguments.as_ptr() as i64, 88, 0, 0, 0, 0])?;
    if made == 0 {
        // SAFETY: the child: ends without running what its parent's copy will run.
        unsafe { libc::_exit(0) }
    }
    ok()
}
