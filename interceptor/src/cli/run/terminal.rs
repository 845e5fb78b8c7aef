//! The caller's terminal, joined to the command's: bytes both ways, in raw mode, so that keys mean what the command's
//! terminal makes of them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::launch::channel;

const CHUNK: usize = 16 * 1024;

/// The relay; when it is dropped, the caller's terminal is as it was.
pub(super) struct Relay {
    input: io::Stdin,
    master: File,
    before: Termios,
    /// What was typed and the command's terminal hasn't taken yet.
    typed: Vec<u8>,
    input_open: bool,
    master_open: bool,
}

impl Relay {
    /// Joins the caller's terminal (standard input and output) to the command's.
    pub(super) fn begin(master: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let before = tcgetattr(io::stdin())?;
        let relay = Self {
            input: io::stdin(),
            master: master.into(),
            before,
            typed: Vec::new(),
            input_open: true,
            master_open: true,
        };
        let mut raw = relay.before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        // It may have changed since the launch was asked for.
        relay.resize()?;
        Ok(relay)
    }

    /// What to poll for: the caller's input, and the command's terminal, as far as they are open (a closed one would be
    /// ready all the time).
    pub(super) fn interests(&self) -> Vec<PollFd<'_>> {
        let mut interests = Vec::with_capacity(2);
        if self.wants_input() {
            interests.push(PollFd::new(self.input.as_fd(), PollFlags::POLLIN));
        }
        if self.master_open {
            let typed = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            interests.push(PollFd::new(self.master.as_fd(), PollFlags::POLLIN | typed));
        }
        interests
    }

    fn wants_input(&self) -> bool {
        self.input_open && self.typed.is_empty()
    }

    /// Moves what can be moved; `ready` is for what [`Self::interests`] returned.
    pub(super) fn step(&mut self, ready: &[PollFlags]) -> io::Result<()> {
        let mut ready = ready.iter().copied();
        let mut next =
            |asked: bool| if asked { ready.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() };
        let input = next(self.wants_input());
        let master = next(self.master_open);
        if input.contains(PollFlags::POLLIN) {
            let mut chunk = [0; CHUNK];
            match nix::unistd::read(io::stdin(), &mut chunk) {
                Ok(0) => self.input_open = false,
                Ok(count) => self.typed.extend_from_slice(&chunk[..count]),
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
                // The terminal was hung up; SIGHUP tells the rest.
                Err(nix::errno::Errno::EIO) => self.input_open = false,
                Err(e) => return Err(e.into()),
            }
        } else if input.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.input_open = false;
        }
        if !self.typed.is_empty() {
            match self.master.write(&self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Nobody reads there any more.
                Err(_) => self.typed.clear(),
            }
        }
        if master.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
            self.show()?;
        }
        Ok(())
    }

    /// Gives the command's terminal the size of the caller's.
    pub(super) fn resize(&self) -> io::Result<()> {
        let (rows, columns) = channel::terminal_size(io::stdin())?;
        channel::set_terminal_size(&self.master, rows, columns)
    }

    /// Shows what is left, and lets go.
    pub(super) fn finish(mut self) -> io::Result<()> {
        while self.master_open && self.show()? {}
        Ok(())
    }

    /// Shows one chunk of what the command wrote; tells if there was one.
    fn show(&mut self) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        match self.master.read(&mut chunk) {
            Ok(count) if count > 0 => {
                let mut output = io::stdout().lock();
                output.write_all(&chunk[..count])?;
                output.flush()?;
                Ok(true)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            // EIO: the command's side is closed for good.
            Ok(_) | Err(_) => {
                self.master_open = false;
                Ok(false)
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to put back.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}
