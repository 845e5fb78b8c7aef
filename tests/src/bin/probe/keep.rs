//! Processes that keep what they have been given, where it isn't found at a first glance.

use std::io::{self, IoSliceMut};
use std::os::fd::RawFd;
use std::sync::Barrier;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, recvmsg};

use super::checked;

/// Keeps the standard input for a minute: `first-thread-ended`, which leaves /proc/PID/fd and more of it empty, or
/// `own-descriptors` of a thread, which /proc/PID/fd doesn't list. Or what is `received` by the standard input, up to two
/// descriptors.
pub(crate) fn keep(how: &str) -> io::Result<String> {
    match how {
        "first-thread-ended" => {
            std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
            // SAFETY: ends this thread and no other. Nothing of its stack is used by the other one.
            checked(unsafe { libc::syscall(libc::SYS_exit, 0) })
        }
        "own-descriptors" => {
            let has_own = Barrier::new(2);
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let unshared = unshare(CloneFlags::CLONE_FILES);
                    has_own.wait();
                    std::thread::sleep(Duration::from_secs(60));
                    unshared
                });
                has_own.wait();
                // SAFETY: nobody here reads from it.
                checked(unsafe { libc::close(0) }.into())?;
                thread.join().map_err(|_| io::Error::other("the thread panicked"))??;
                super::done()
            })
        }
        "received" => {
            let mut byte = [0];
            let mut vectors = [IoSliceMut::new(&mut byte)];
            let mut space = nix::cmsg_space!([RawFd; 2]);
            // They are this process's once the message is, by numbers that nobody here needs.
            recvmsg::<()>(0, &mut vectors, Some(&mut space), MsgFlags::empty())?;
            std::thread::sleep(Duration::from_secs(60));
            super::done()
        }
        _ => Err(io::Error::other(format!("unknown way `{how}`"))),
    }
}
