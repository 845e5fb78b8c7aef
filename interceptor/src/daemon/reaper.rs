//! Waits for the ends of processes: one thread for all of them, by their pidfds, which become readable then
//! (pidfd_open(2)).

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Processes that may wait to be taken note of.
const QUEUE: usize = 64;

/// What is done when a process has ended; on the reaper's thread, so it doesn't take long.
type Then = Box<dyn FnOnce() + Send>;

/// The thread. Dropping it ends the thread; nobody is told of ends any more.
pub(super) struct Reaper {
    queue: SyncSender<(OwnedFd, Then)>,
    wake: UnixStream,
}

impl Reaper {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        std::thread::Builder::new().name("reaper".into()).spawn(move || reap(&waiting, &woken))?;
        Ok(Self { queue, wake })
    }

    /// Does `then` once the process of this pidfd has ended.
    ///
    /// # Errors
    /// When the thread is gone.
    pub(super) fn once_ended(&self, pidfd: OwnedFd, then: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the reaper is gone");
        self.queue.send((pidfd, Box::new(then))).map_err(|_| gone())?;
        match (&self.wake).write(&[0]) {
            // Enough wake-ups are under way.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn reap(waiting: &Receiver<(OwnedFd, Then)>, mut woken: &UnixStream) {
    let mut held: Vec<(OwnedFd, Then)> = Vec::new();
    loop {
        let ended: Vec<bool> = {
            let watch = held.iter().map(|(pidfd, _)| pidfd.as_fd()).chain([woken.as_fd()]);
            let mut polled: Vec<PollFd<'_>> = watch.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) => polled.iter().map(|fd| fd.any().unwrap_or(false)).collect(),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return tracing::error!(%error, "the ends of workloads can't be awaited any more"),
            }
        };
        if ended.last() == Some(&true) && !matches!(woken.read(&mut [0; QUEUE]), Ok(1..)) {
            return;
        }
        // From the back, so that what is left keeps its index.
        for index in (0..held.len()).rev().filter(|&index| ended[index]) {
            held.swap_remove(index).1();
        }
        held.extend(waiting.try_iter());
    }
}

#[cfg(test)]
mod tests;
