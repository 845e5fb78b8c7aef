//! Processes that keep what they have been given, where it isn't found at a first glance.

use std::io;
use std::sync::Barrier;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::checked;

/// Keeps the standard input for a minute: `first-thread-ended`, which leaves /proc/PID/fd and more of it empty, or
/// `own-descriptors` of a thread, which /proc/PID/fd doesn't list.
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
        _ => Err(io::Error::other(format!("unknown way `{how}`"))),
    }
}
