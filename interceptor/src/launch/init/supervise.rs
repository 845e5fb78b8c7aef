//! Process 1 while the command runs: it reaps whatever ends, passes the client's signals on, refuses the sockets that a workload
//! may not make, and reports the command's end. The client's death ends the workload.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
use crate::launch::refused::Refusals;

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
    /// What is refused is counted in `refused`.
    pub(super) fn run(self, channel: &OwnedFd, child: Child, refused: File) -> ExitCode {
        let asking = Asking::Awaited(refused);
        let mut watch = Watch { channel, child, asking, started: false, client: true, deadline: None };
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
    asking: Asking,
    started: bool,
    client: bool,
    deadline: Option<Instant>,
}

/// What process 1 is asked about the workload's sockets.
enum Asking {
    /// The command isn't confined yet. With the file to count in.
    Awaited(File),
    /// It is asked.
    Open(Refusals),
    /// It isn't any more, or never was.
    Over,
}

impl Asking {
    fn descriptor<'a>(&'a self, child: &'a Child) -> Option<BorrowedFd<'a>> {
        match self {
            Self::Awaited(_) => Some(child.confined.as_fd()),
            Self::Open(refusals) => Some(refusals.as_fd()),
            Self::Over => None,
        }
    }

    /// Goes on, when something has come there. What fails here leaves the kernel to refuse by itself.
    fn step(&mut self, child: &Child, events: PollFlags) {
        *self = match std::mem::replace(self, Self::Over) {
            Self::Awaited(file) => match channel::receive::<()>(&child.confined) {
                Ok(Received::Message((), Some(listener))) => Self::Open(Refusals::new(listener, file)),
                _ => Self::Over,
            },
            // Without a question nobody is left who could ask one.
            Self::Open(mut refusals) if events.contains(PollFlags::POLLIN) => match refusals.answer() {
                Ok(()) => Self::Open(refusals),
                Err(_) => Self::Over,
            },
            Self::Open(_) | Self::Over => Self::Over,
        };
    }
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
        // A hang-up is told also of descriptors that aren't asked about; those that are done with are left out.
        let all = [
            Some(signals.as_fd()),
            self.client.then(|| self.channel.as_fd()),
            (!self.started).then(|| self.child.report.as_fd()),
            self.asking.descriptor(&self.child),
        ];
        let mut watched: Vec<PollFd<'_>> = all.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let timeout = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout =
            timeout.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
        match poll(&mut watched, timeout) {
            Err(Errno::EINTR) => return Ok(None),
            other => other?,
        };
        let mut events = watched.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let of_each = all.map(|fd| fd.and_then(|_| events.next()).unwrap_or(PollFlags::empty()));
        let [signalled, spoke, reported, asked] = of_each;
        if !reported.is_empty() {
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
        if !spoke.is_empty() {
            self.hear();
        }
        if !asked.is_empty() {
            self.asking.step(&self.child, asked);
        }
        if !signalled.is_empty()
            && let Some(end) = self.take_signals(signals)?
        {
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
