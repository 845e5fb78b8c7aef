//! The launcher: makes a workload out of a command. The daemon's side chooses the `[[workload]]` ([`choose`]), reads the
//! caller from the kernel ([`Caller`]), clones process 1 into namespaces and a cgroup of its own ([`prepare`]), and lets
//! it go once the sockets inside are open ([`Prepared::go`]). Process 1's side is [`init`]. Not here: the steering of the
//! namespace (`transport`, `bpf`), and the client (`cli::run`).
//!
//! Everything here blocks for milliseconds: call it on a thread that may.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::WorkloadSettings;
use crate::ids::{LaunchId, WorkloadName};

mod caller;
pub mod channel;
mod choose;
mod descriptors;
mod environment;
pub mod init;
mod plan;
mod prepare;
mod refused;
mod running;
mod seccomp;
mod spawn;
mod sys;
mod user;
mod view;

pub use caller::{Caller, hold};
pub use choose::choose;
pub use prepare::{Prepared, prepare};
pub use refused::Refused;
pub use running::{Revived, Running, discard, revive, unreadable};
pub use sys::share_files;

/// A launch, ready to be prepared.
#[derive(Debug)]
pub struct Order {
    /// Its id, new.
    pub id: LaunchId,
    /// What [`choose`] chose.
    pub settings: Arc<WorkloadSettings>,
    /// Who asked.
    pub caller: Caller,
    /// The command and its arguments; not empty.
    pub argv: Vec<Vec<u8>>,
    /// The caller's environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// The size in rows and columns of the terminal that the workload gets, if it gets one.
    pub tty: Option<(u16, u16)>,
    /// The caller's standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// Process 1's end of the channel to the client (see [`channel::pair`]).
    pub channel: OwnedFd,
    /// The cgroup that holds those of all workloads, as an absolute path on the cgroup2 mount. It exists.
    pub workloads: PathBuf,
    /// The launch's own folder, absolute; made here (0700), removed by [`Running::clean_up`].
    pub folder: PathBuf,
    /// What the workload is to trust.
    pub trust: Trust,
    /// Files and directories of ours that the workload mustn't see: configuration, policies, state.
    pub hidden: Vec<PathBuf>,
    /// What is run as process 1.
    pub program: Program,
}

/// What a workload is to trust; both files are PEM and readable by all (0644).
#[derive(Debug, Clone)]
pub struct Trust {
    /// The host's roots and ours.
    pub bundle: PathBuf,
    /// Ours alone.
    pub authority: PathBuf,
}

/// What is run as process 1: a program that calls [`init::main`] when its first argument is [`init::ARGUMENT`].
#[derive(Debug, Clone)]
pub enum Program {
    /// This very program.
    Own,
    /// Another file (for a daemon that runs inside a test).
    File(PathBuf),
}

/// Why there was no launch.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No `[[workload]]` is for this caller and command.
    #[error("no `[[workload]]` fits: {asked}")]
    NoMatch {
        /// Who asked for what.
        asked: String,
        /// The stanza that would fit.
        stanza: String,
    },
    /// The named workload isn't there, or isn't for this caller.
    #[error("workload `{0}` doesn't exist or isn't for this caller")]
    NotForCaller(WorkloadName),
    /// The user that the workload would run as can't be had.
    #[error("{message}")]
    User {
        /// What is wrong with it.
        message: String,
        /// What to do next.
        next: &'static str,
    },
    /// The command can't be contained, or isn't one.
    #[error("{message}")]
    Command {
        /// What is wrong with it.
        message: String,
        /// What to do next.
        next: &'static str,
    },
    /// The caller can't be taken for what it is.
    #[error("{message}")]
    Caller {
        /// What is wrong with it.
        message: String,
        /// What to do next.
        next: &'static str,
    },
    /// Standard input, output or error is something that mustn't cross.
    #[error("{name} is {what}, which can't be handed to a workload")]
    Descriptor {
        /// `standard input`, …
        name: &'static str,
        /// What it is.
        what: String,
    },
    /// Process 1 couldn't make its inside ready.
    #[error("{message}")]
    Inside {
        /// What stood in the way.
        message: String,
        /// What to do next.
        next: String,
    },
    /// A system call failed.
    #[error("could not {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl LaunchError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMatch { .. } => "no-workload",
            Self::NotForCaller(_) => "workload-not-yours",
            Self::User { .. } => "workload-user",
            Self::Command { .. } => "command-refused",
            Self::Caller { .. } => "caller-refused",
            Self::Descriptor { .. } => "descriptor-refused",
            Self::Inside { .. } | Self::System { .. } => "launch-failed",
        }
    }

    /// What to do next, for the person at the command line.
    pub fn next(&self) -> String {
        match self {
            Self::NoMatch { stanza, .. } => {
                format!("add this to the configuration, then run `interceptor policy reload`:\n\n{stanza}")
            }
            Self::NotForCaller(_) => "name one that is, or leave `--workload` out".into(),
            Self::User { next, .. } | Self::Command { next, .. } | Self::Caller { next, .. } => (*next).into(),
            Self::Descriptor { .. } => {
                "redirect it to a pipe, a file, a terminal, /dev/null or a unix stream socket".into()
            }
            Self::Inside { next, .. } => next.clone(),
            Self::System { .. } => "see the daemon's log, and `interceptor doctor`".into(),
        }
    }

    /// The message with its causes, for a log or the caller.
    pub fn in_full(&self) -> String {
        match self {
            Self::System { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }
}

/// Makes a [`LaunchError::System`] of an error.
fn while_doing<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> LaunchError {
    move |source| LaunchError::System { doing, source: source.into() }
}
