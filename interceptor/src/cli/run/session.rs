//! While the command runs: signals to it, news from it, and the terminal's bytes in between, in one loop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use nix::sys::signalfd::SignalFd;

use super::terminal::Relay;
use crate::launch::channel::{self, Received, ToClient, ToInit};

/// How the command ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a status.
    Exited(u8),
    /// By a signal.
    Signaled(i32),
    /// Before it began.
    Failed { status: u8, message: String, next: String },
    /// Nobody said: process 1 was killed.
    Lost,
}

/// Attends to the command until it has ended.
pub(super) fn attend(channel: &OwnedFd, signals: &SignalFd, tty: bool) -> io::Result<End> {
    let mut relay: Option<Relay> = None;
    loop {
        let mut watched =
            vec![PollFd::new(channel.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        watched.extend(relay.as_ref().into_iter().flat_map(Relay::interests));
        match poll(&mut watched, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let ready: Vec<PollFlags> = watched.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        if let Some(relay) = &mut relay {
            relay.step(&ready[2..])?;
        }
        if !ready[1].is_empty() {
            pass_signals_on(channel, signals, relay.as_ref())?;
        }
        if ready[0].is_empty() {
            continue;
        }
        let end = match channel::receive::<ToClient>(channel)? {
            Received::Message(ToClient::Pty, Some(master)) if tty && relay.is_none() => {
                relay = Some(Relay::begin(master)?);
                continue;
            }
            Received::Message(ToClient::Pty | ToClient::Started, _) | Received::Nonsense => continue,
            Received::Message(ToClient::Exited(status), _) => End::Exited(status),
            Received::Message(ToClient::Signaled(signal), _) => End::Signaled(signal),
            Received::Message(ToClient::Failed { status, message, next }, _) => End::Failed { status, message, next },
            Received::End => End::Lost,
        };
        if let Some(relay) = relay {
            // The command's last words are still in the terminal.
            relay.finish()?;
        }
        return Ok(end);
    }
}

fn pass_signals_on(channel: &OwnedFd, signals: &SignalFd, relay: Option<&Relay>) -> io::Result<()> {
    while let Some(info) = signals.read_signal()? {
        let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok()) else { continue };
        match (signal, relay) {
            (Signal::SIGWINCH, Some(relay)) => relay.resize()?,
            _ => {
                // Process 1 may be gone already; its end is on the channel then.
                let _ = channel::send(channel, &ToInit::Signal(signal as i32), None);
            }
        }
        if signal == Signal::SIGTSTP {
            raise(Signal::SIGSTOP)?;
        }
    }
    Ok(())
}
