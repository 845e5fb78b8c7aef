//! `interceptor run`: has the daemon launch a command, and stands for it here: it passes signals on and ends as the command
//! ended. Where the command's input and output are handed over as they are, not one byte passes through this process; only
//! a terminal (`-t`) is relayed ([`terminal`]).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::control::client::{self, ClientError};
use crate::control::protocol::{Request, Run};
use crate::ids::WorkloadName;
use crate::launch::channel;

mod session;
mod terminal;

/// How long a busy daemon is asked again.
const BUSY_PATIENCE: Duration = Duration::from_secs(30);

/// What `interceptor run` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The workload; without it, the one whose `match` fits the command and who calls
    #[arg(long, value_name = "NAME")]
    workload: Option<WorkloadName>,
    /// The user to run as, where the workload's `user` says the same
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Give the command a terminal of its own
    #[arg(short = 't')]
    tty: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Nothing was launched.
const NOT_LAUNCHED: u8 = 1;
/// The call was wrong, or no workload is for it.
const USAGE: u8 = 2;
/// The code with which the daemon says that no workload is for this call.
const NO_WORKLOAD: &str = "no-workload";

/// What is passed on. TSTP stops this process as well.
const SIGNALS: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Runs the command, and returns its exit status. If a signal killed it, so it does this process.
pub fn execute(args: Args, socket: &Path) -> ExitCode {
    match run(args, socket) {
        Ok(status) => ExitCode::from(status),
        Err(Refusal { status, message }) => {
            say(&message);
            ExitCode::from(status)
        }
    }
}

/// Why nothing was launched.
struct Refusal {
    status: u8,
    message: String,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { status: NOT_LAUNCHED, message: format!("the launch failed on this side: {error}") }
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        let status = match &error {
            ClientError::Refused { code, .. } if code == NO_WORKLOAD => USAGE,
            _ => NOT_LAUNCHED,
        };
        Self { status, message: error.to_string() }
    }
}

fn run(args: Args, socket: &Path) -> Result<u8, Refusal> {
    if args.tty && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        let message = "`-t` needs a terminal as standard input and output; leave it out, or call from a terminal";
        return Err(Refusal { status: USAGE, message: message.into() });
    }
    // Before the daemon reads them: what this process ignores, the command ignores. Blocking changes nothing of that.
    let signals = take_signals()?;
    let tty = if args.tty { Some(channel::terminal_size(io::stdin())?) } else { None };
    let request = Request::Run(Run {
        workload: args.workload,
        user: args.user,
        tty,
        argv: args.command.into_iter().map(OsString::into_vec).collect(),
        env: std::env::vars_os()
            .map(|(name, value)| [name.into_vec(), b"=".into(), value.into_vec()].concat())
            .collect(),
    });
    let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let own: [BorrowedFd<'_>; 3] = if args.tty {
        [null.as_fd(); 3]
    } else {
        let input = if is_in_background()? { null.as_fd() } else { input.as_fd() };
        [input, output.as_fd(), error.as_fd()]
    };
    let descriptors = ask(socket, &request, &own)?;
    let Some(channel) = descriptors.into_iter().next() else {
        let message = "the daemon answered without a channel to the command; use an `interceptor` of its version";
        return Err(Refusal { status: NOT_LAUNCHED, message: message.into() });
    };
    if !args.tty {
        // While this process held them too, a pipe's other end would see its end late.
        nix::unistd::dup2_stdin(&null).map_err(io::Error::from)?;
        nix::unistd::dup2_stdout(&null).map_err(io::Error::from)?;
    }
    let end = session::attend(&channel, &signals, args.tty)?;
    Ok(finish(end))
}

/// Asks for the launch. A daemon that has enough requests of this user's under way is asked again for a while: many
/// launches at once are no mistake.
fn ask(socket: &Path, request: &Request, own: &[BorrowedFd<'_>; 3]) -> Result<Vec<OwnedFd>, ClientError> {
    let deadline = Instant::now() + BUSY_PATIENCE;
    let mut pause = Duration::from_millis(5);
    loop {
        match client::call_with(socket, request, own) {
            Err(ClientError::Refused { code, .. }) if code == "busy" && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            answered => return answered.map(|(_, descriptors)| descriptors),
        }
    }
}

/// Ends as the command ended.
fn finish(end: session::End) -> u8 {
    match end {
        session::End::Exited(status) => status,
        session::End::Signaled(signal) => {
            channel::die_of(signal);
            // A signal that doesn't kill this process.
            u8::try_from(128 + signal).unwrap_or(NOT_LAUNCHED)
        }
        session::End::Failed { status, message, next } => {
            say(&if next.is_empty() { message } else { format!("{message}; {next}") });
            status
        }
        session::End::Lost => {
            say("the workload was ended from outside; see `interceptor status` and the daemon's log");
            128 + 9
        }
    }
}

/// Blocks the signals that are passed on, but for those that are ignored (as nohup(1) has it), and opens the descriptor
/// that yields them.
fn take_signals() -> io::Result<SignalFd> {
    let ignored = ignored_signals()?;
    let mut set = SigSet::empty();
    for signal in SIGNALS {
        if ignored & (1 << (signal as u32 - 1)) == 0 {
            set.add(signal);
        }
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// The signals that this process ignores: bit n - 1 for signal n.
fn ignored_signals() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default().trim();
    u64::from_str_radix(mask, 16).map_err(io::Error::other)
}

/// Whether this is a background job of a terminal: a command that read the terminal then would take the shell's input.
fn is_in_background() -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    match nix::unistd::tcgetpgrp(io::stdin()) {
        Ok(foreground) => Ok(foreground != nix::unistd::getpgrp()),
        // Not this process's terminal: nothing can be stolen from a shell.
        Err(nix::errno::Errno::ENOTTY) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn say(message: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "interceptor: {message}");
}
