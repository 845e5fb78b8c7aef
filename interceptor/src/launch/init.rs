//! Process 1 of a workload: a fresh program in new namespaces. It makes the network and the filesystem view, says that it
//! is ready, waits for the daemon's go, starts the command, and from then on reaps, passes signals on and reports
//! ([`supervise`]). It outlives the daemon; its own end is the end of everything in the workload.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use super::plan::{Failure, Plan, ToDaemon, ToInit, failing};
use super::seccomp::Filters;
use super::{channel, spawn, sys, view};

mod command;
mod privileges;
mod supervise;

/// The first argument that makes this program process 1 of a workload. People have no use for it.
pub const ARGUMENT: &str = "__init";
pub(super) const ARGUMENT_TEXT: &std::ffi::CStr = c"__init";

/// What process 1 does; to be called first thing in `main`, before any other thread is started.
pub fn main() -> ExitCode {
    if std::process::id() != 1 {
        let _ = writeln!(std::io::stderr(), "`{ARGUMENT}` is for the daemon: start workloads with `interceptor run`");
        return ExitCode::from(2);
    }
    let Ok(handshake) = sys::inherited(spawn::HANDSHAKE) else { return ExitCode::FAILURE };
    match get_ready() {
        Ok(ready) => {
            if channel::send(&handshake, &ToDaemon::Ready, None).is_err() || !may_go(&handshake) {
                return ExitCode::FAILURE;
            }
            drop(handshake);
            ready.go()
        }
        Err(failure) => {
            let _ = channel::send(&handshake, &ToDaemon::Failed(failure), None);
            ExitCode::FAILURE
        }
    }
}

/// Everything that the command needs.
struct Ready {
    plan: Plan,
    channel: OwnedFd,
    filters: Filters,
    /// Where it counts what it refuses.
    refused: File,
}

fn get_ready() -> Result<Ready, Failure> {
    // Its memory holds the caller's environment, and its descriptors the channel to the client.
    nix::sys::prctl::set_dumpable(false).map_err(failing("close process 1 to others"))?;
    let plan = sys::inherited(spawn::PLAN).and_then(Plan::read).map_err(failing("read the plan"))?;
    let channel = sys::inherited(spawn::CHANNEL).map_err(failing("take the channel"))?;
    let refused = sys::inherited(spawn::REFUSED).map_err(failing("take the file of counts"))?.into();
    let filters = Filters::compile().map_err(|e| Failure::new(format!("seccomp filter: {e}"), "report this"))?;
    crate::transport::namespace::configure().map_err(failing("set the workload's network up"))?;
    view::build(&plan)?;
    Ok(Ready { plan, channel, filters, refused })
}

/// Waits for the daemon's go. No go, or no daemon any more, means no launch.
fn may_go(handshake: &OwnedFd) -> bool {
    matches!(channel::receive(handshake), Ok(channel::Received::Message(ToInit::Go, _)))
}

impl Ready {
    fn go(self) -> ExitCode {
        let started = supervise::Supervisor::prepare().and_then(|supervisor| {
            let terminal = self.plan.tty.map(|size| self.terminal(size)).transpose()?;
            let child = command::start(&self.plan, &self.filters, terminal)?;
            privileges::keep_only_kill().map_err(failing("drop process 1's privileges"))?;
            self.filters.load().map_err(failing("load process 1's seccomp filters"))?;
            leave_stdio().map_err(failing("let go of the caller's descriptors"))?;
            Ok((supervisor, child))
        });
        match started {
            Ok((supervisor, child)) => supervisor.run(&self.channel, child, self.refused),
            Err(failure) => supervise::report_failure(&self.channel, failure),
        }
    }

    /// A terminal of the workload's own: the client gets the master, the command the slave.
    fn terminal(&self, (rows, columns): (u16, u16)) -> Result<OwnedFd, Failure> {
        let make = || -> std::io::Result<OwnedFd> {
            let mut options = OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true).write(true), libc::O_NOCTTY);
            let master = options.open("/dev/pts/ptmx")?;
            let slave = sys::open_slave(master.as_fd())?;
            std::os::unix::fs::fchown(&slave, Some(self.plan.uid), None)?;
            sys::set_terminal_size(&slave, rows, columns)?;
            channel::send(&self.channel, &channel::ToClient::Pty, Some(master.as_fd()))?;
            Ok(slave)
        };
        make().map_err(failing("make a terminal"))
    }
}

/// Lets go of the caller's 0 to 2: while process 1 held a pipe's end, its other end would never see the end of file.
fn leave_stdio() -> std::io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}
