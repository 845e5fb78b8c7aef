//! Starting the command: from the fork in process 1 to the exec. What goes wrong on the way travels back on a pipe that
//! the exec closes.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;

use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::privileges;
use crate::launch::plan::{Failure, NOT_MADE, Plan, failing, planned_path};
use crate::launch::seccomp::Filters;
use crate::launch::{channel, environment, sys, view};

/// Where the shell looks when there is no PATH (confstr(_CS_PATH)).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// A command that was forked.
pub(super) struct Child {
    pub(super) pid: Pid,
    /// Yields a [`Failure`] in JSON, or nothing and its end when the command runs.
    pub(super) report: File,
    /// Yields what it is asked at about its sockets, once it is confined; see [`Filters::load_asking`].
    pub(super) confined: OwnedFd,
    /// What of it was read so far.
    heard: Vec<u8>,
}

impl Child {
    /// Reads what the command's process reported: a failure, or nothing and the end. WouldBlock as long as there is more
    /// to come.
    pub(super) fn read_report(&mut self) -> io::Result<Option<Failure>> {
        // What came before a WouldBlock is kept in `heard`.
        io::Read::read_to_end(&mut self.report, &mut self.heard)?;
        let unreadable =
            |_| Failure { status: NOT_MADE, message: "the command's start failed".into(), next: String::new() };
        Ok((!self.heard.is_empty()).then(|| serde_json::from_slice(&self.heard).unwrap_or_else(unreadable)))
    }
}

/// Forks the command's process.
pub(super) fn start(plan: &Plan, filters: &Filters, terminal: Option<OwnedFd>) -> Result<Child, Failure> {
    let (report, reports) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failing("make a pipe for the command"))?;
    let (confined, confining) = channel::pair().map_err(failing("make a channel for the command"))?;
    let pid = sys::fork(|| {
        let failure = match become_command(plan, filters, terminal.as_ref(), &confining) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let _ = serde_json::to_vec(&failure).map(|bytes| File::from(reports).write_all(&bytes));
        i32::from(failure.status)
    })
    .map_err(failing("fork the command"))?;
    Ok(Child { pid, report: report.into(), confined, heard: Vec::new() })
}

fn become_command(
    plan: &Plan,
    filters: &Filters,
    terminal: Option<&OwnedFd>,
    confining: &OwnedFd,
) -> Result<std::convert::Infallible, Failure> {
    nix::unistd::setsid().map_err(failing("make a session"))?;
    if let Some(slave) = terminal {
        take_stdio(slave).map_err(failing("take the terminal"))?;
    }
    sys::close_on_exec_from(3).map_err(failing("close what isn't the command's"))?;
    reset_signals(plan.ignored).map_err(failing("reset the signals"))?;
    privileges::become_workload(plan)?;
    enter_cwd(plan)?;
    let program = Program::new(plan)?;
    let asked_at = privileges::confine(filters)?;
    let sent = channel::send(confining, &(), asked_at.as_ref().map(AsFd::as_fd));
    sent.map_err(failing("hand over what is asked about sockets"))?;
    // Nothing of the workload's may have it: who has it lets sockets through.
    drop(asked_at);
    Err(program.execute(plan))
}

fn take_stdio(slave: &OwnedFd) -> io::Result<()> {
    sys::take_terminal(slave.as_fd())?;
    nix::unistd::dup2_stdin(slave)?;
    nix::unistd::dup2_stdout(slave)?;
    nix::unistd::dup2_stderr(slave)?;
    Ok(())
}

/// Every signal as the caller had it: those that it ignored stay ignored, as after any exec; none is blocked.
fn reset_signals(ignored: u64) -> io::Result<()> {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            sys::set_disposition(signal, ignored & (1 << (signal - 1)) != 0)?;
        }
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Enters the caller's working directory by its path, as the user; a descriptor would lead out of the mount namespace.
fn enter_cwd(plan: &Plan) -> Result<(), Failure> {
    let path = planned_path(&plan.cwd.path);
    let hint = || match view::unseen(plan, &path) {
        Some(reason) => format!("change to another directory first: {reason}"),
        None => "change to a directory that the workload's user may enter".into(),
    };
    std::env::set_current_dir(&path)
        .map_err(|e| Failure::new(format!("working directory `{}`: {e}", path.display()), hint()))?;
    let entered = fs::metadata(".").map_err(failing("look at the working directory"))?;
    if (entered.dev(), entered.ino()) != (plan.cwd.device, plan.cwd.inode) {
        let message = format!("working directory `{}` is another one inside", path.display());
        return Err(Failure::new(message, hint()));
    }
    Ok(())
}

/// The command's argument list and environment as execve wants them, and where it may be.
struct Program {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn new(plan: &Plan) -> Result<Self, Failure> {
        let strings = |list: &[Vec<u8>]| {
            let strings = list.iter().map(|bytes| CString::new(bytes.clone()));
            strings.collect::<Result<Vec<_>, _>>().map_err(failing("pass the command on"))
        };
        let (argv, env) = (strings(&plan.argv)?, strings(&plan.env)?);
        let name = plan.argv.first().map(Vec::as_slice).unwrap_or_default();
        let candidates = if name.contains(&b'/') {
            strings(&[name.to_vec()])?
        } else {
            let path = environment::value(&plan.env, "PATH").unwrap_or(DEFAULT_PATH);
            let places = path.split(|&byte| byte == b':').map(|place| {
                let place = if place.is_empty() { b"." } else { place };
                [place, b"/", name].concat()
            });
            strings(&places.collect::<Vec<_>>())?
        };
        Ok(Self { candidates, argv, env })
    }

    /// Tries the places in their order, as execvp(3) does. Returns only why none worked.
    fn execute(&self, plan: &Plan) -> Failure {
        let argv = pointers(&self.argv);
        let env = pointers(&self.env);
        let mut denied = None;
        for path in &self.candidates {
            let error = sys::execute(path, &argv, &env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => denied = Some((path, error)),
                Some(libc::ENOEXEC) => return self.execute_as_script(path, &env),
                _ => return not_executable(path, &error),
            }
        }
        match denied {
            Some((path, error)) => not_executable(path, &error),
            None => self.not_found(plan),
        }
    }

    /// A file without a header that names its interpreter is the shell's.
    fn execute_as_script(&self, path: &CStr, env: &[*const libc::c_char]) -> Failure {
        let mut argv = vec![c"sh".as_ptr(), path.as_ptr()];
        argv.extend(self.argv.iter().skip(1).map(|argument| argument.as_ptr()));
        argv.push(ptr::null());
        not_executable(path, &sys::execute(c"/bin/sh", &argv, env))
    }

    fn not_found(&self, plan: &Plan) -> Failure {
        let command = String::from_utf8_lossy(plan.argv.first().map(Vec::as_slice).unwrap_or_default()).into_owned();
        let unseen =
            self.candidates.iter().find_map(|path| view::unseen(plan, Path::new(OsStr::from_bytes(path.to_bytes()))));
        let next = match unseen {
            Some(reason) => format!("put the command elsewhere, if it is there: {reason}"),
            None => "check its spelling and PATH; a script's interpreter must be there as well".into(),
        };
        Failure { status: NOT_FOUND, message: format!("command `{command}` was not found"), next }
    }
}

fn not_executable(path: &CStr, error: &io::Error) -> Failure {
    Failure {
        status: NOT_EXECUTABLE,
        message: format!("command `{}` can't be executed: {error}", path.to_string_lossy()),
        next: "check that the workload's user may execute it".into(),
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}
