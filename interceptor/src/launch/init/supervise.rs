//! Process 1 while the command runs: it reaps whatever ends, passes the client's signals on, and reports the command's
//! end. The client's death ends the workload.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::command::Child;
use crate::launch::channel::{self, Received, ToClient, ToInit};
use crate::launch::plan::{Failure, failing};

/// How long the workload may take to end after SIGTERM, when its client died or the host asks for it.
const GRACE: Duration = Duration::from_secs(5);
const EVERYBODY: Pid = Pid::from_raw(-1);

pub(super) struct Supervisor {
    signals: SignalFd,
}

impl Supervisor {
    /// Blocks all signals and opens the descriptor that yields them, before there is a child whose end could be missed.
    pub(super) fn prepare() -> Result<Self, Failure> {
        let all = SigSet::all();
        let signals = all
            .thread_set_mask()
            .and_then(|()| SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK));
        Ok(Self { signals: signals.map_err(failing("take the signals"))? })
    }

    /// Supervises until the command has ended. The status returned is process 1's own, for whoever is its parent.
    pub(super) fn run(self, channel: &OwnedFd, child: Child) -> ExitCode {
        let mut watch = Watch { channel, child, started: false, client: true, deadline: None };
        loop {
            match watch.step(&self.signals) {
                Ok(None) => {}
                Ok(Some(end)) => return watch.tell(end),
                // Nothing is left to watch with: the end of process 1 is the end of all.
                Err(_) => return ExitCode::FAILURE,
            }
        }
    }
}

/// Tells the client that the command wasn't started.
pub(super) fn report_failure(channel: &OwnedFd, failure: Failure) -> ExitCode {
    let Failure { status, message, next } = failure;
    let _ = channel::send(channel, &ToClient::Failed { status, message, next }, None);
    ExitCode::from(status)
}

struct Watch<'a> {
    channel: &'a OwnedFd,
    child: Child,
    started: bool,
    client: bool,
    deadline: Option<Instant>,
}

/// How the command ended.
enum End {
    Exited(i32),
    Signaled(Signal),
    Failed(Failure),
    TimedOut,
}

impl Watch<'_> {
    fn step(&mut self, signals: &SignalFd) -> io::Result<Option<End>> {
        let Self { channel, child, .. } = &*self;
        let mut watched = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(channel.as_fd(), if self.client { PollFlags::POLLIN } else { PollFlags::empty() }),
            PollFd::new(child.report.as_fd(), if self.started { PollFlags::empty() } else { PollFlags::POLLIN }),
        ];
        // A hang-up is told also of descriptors that aren't asked about; those that are done with are left out.
        let count = if !self.started {
            3
        } else if self.client {
            2
        } else {
            1
        };
        let timeout = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout =
            timeout.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
        match poll(&mut watched[..count], timeout) {
            Err(Errno::EINTR) => return Ok(None),
            other => other?,
        };
        let [signalled, spoke, reported] = watched.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if !self.started && reported {
            match self.child.read_report() {
                Ok(Some(failure)) => return Ok(Some(End::Failed(failure))),
                Ok(None) => {
                    self.started = true;
                    self.send(&ToClient::Started);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        if self.client && spoke {
            self.hear();
        }
        if signalled && let Some(end) = self.take_signals(signals)? {
            return Ok(Some(end));
        }
        Ok(self.deadline.is_some_and(|at| at <= Instant::now()).then_some(End::TimedOut))
    }

    /// Takes one message of the client.
    fn hear(&mut self) {
        match channel::receive::<ToInit>(self.channel) {
            Ok(Received::Message(ToInit::Signal(signal), _)) => self.pass_on(signal),
            Ok(Received::Nonsense) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(Received::End) | Err(_) => {
                self.client = false;
                self.end_all();
            }
        }
    }

    fn pass_on(&self, signal: i32) {
        let (command, group) = (self.child.pid, Pid::from_raw(-self.child.pid.as_raw()));
        let Ok(signal) = Signal::try_from(signal) else { return };
        let _ = match signal {
            Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP | Signal::SIGWINCH | Signal::SIGCONT => {
                kill(group, signal)
            }
            // The group is orphaned (its session leader's parent is process 1), where the kernel drops SIGTSTP.
            Signal::SIGTSTP => kill(group, Signal::SIGSTOP),
            Signal::SIGTERM | Signal::SIGUSR1 | Signal::SIGUSR2 => kill(command, signal),
            _ => Ok(()),
        };
    }

    fn take_signals(&mut self, signals: &SignalFd) -> io::Result<Option<End>> {
        while let Some(info) = signals.read_signal()? {
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGCHLD) => {
                    if let Some(end) = self.reap()? {
                        return Ok(Some(end));
                    }
                }
                // Only the host's root can send these: the workload's uid may not signal process 1.
                Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT) => self.end_all(),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Reaps all that ended, and tells if the command is among them.
    fn reap(&mut self) -> io::Result<Option<End>> {
        let mut end = None;
        loop {
            match waitpid(EVERYBODY, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == self.child.pid => end = Some(End::Exited(status)),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.child.pid => end = Some(End::Signaled(signal)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                // A signal that nix has no name for (a real-time one): the command is reaped, its number lost.
                Err(Errno::EINVAL) => end = Some(End::TimedOut),
                Err(e) => return Err(e.into()),
            }
        }
        // It may have ended before it became the command.
        if end.is_some() && !self.started {
            self.started = true;
            if let Ok(Some(failure)) = self.child.read_report() {
                return Ok(Some(End::Failed(failure)));
            }
            self.send(&ToClient::Started);
        }
        Ok(end)
    }

    /// Asks everything to end; what hasn't after the grace dies with process 1.
    fn end_all(&mut self) {
        if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + GRACE);
            let _ = kill(EVERYBODY, Signal::SIGTERM);
            let _ = kill(EVERYBODY, Signal::SIGCONT);
        }
    }

    fn tell(self, end: End) -> ExitCode {
        match end {
            End::Exited(status) => {
                // The kernel keeps eight bits of a status.
                let status = u8::try_from(status & 0xFF).unwrap_or(u8::MAX);
                self.send(&ToClient::Exited(status));
                ExitCode::from(status)
            }
            End::Signaled(signal) => {
                self.send(&ToClient::Signaled(signal as i32));
                ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or(0))
            }
            End::Failed(failure) => report_failure(self.channel, failure),
            End::TimedOut => {
                self.send(&ToClient::Signaled(Signal::SIGKILL as i32));
                ExitCode::from(128 + 9)
            }
        }
    }

    fn send(&self, message: &ToClient) {
        // A client that died or doesn't read changes nothing here.
        let _ = channel::send(self.channel, message, None);
    }
}
