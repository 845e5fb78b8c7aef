//! Preparing a launch: cgroup, folder, plan, process 1, in this order, and all undone when one of them fails. Between
//! [`prepare`] and [`Prepared::go`] the namespace is ready and nothing runs in it but process 1: the time for the daemon
//! to open its sockets inside.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::plan::{Failure, Plan, PlannedCwd, ToDaemon, ToInit, path_bytes, planned_path};
use super::refused::Refused;
use super::running::{Kept, Running, State, discard};
use super::user::RunAs;
use super::{LaunchError, Order, Program, channel, descriptors, environment, spawn, while_doing};
use crate::who::Workload;

/// How long process 1 may take to become ready. A hung network filesystem below the caller's home can hold it up.
const READY_MILLISECONDS: u16 = 15_000;

/// A launch whose namespaces and filesystem view are ready, and whose command hasn't started. Dropping it undoes it.
#[derive(Debug)]
pub struct Prepared {
    running: Option<Running>,
    handshake: OwnedFd,
}

/// Makes everything ready for the command.
///
/// # Errors
/// Any [`LaunchError`]; nothing is left behind then.
pub fn prepare(order: Order) -> Result<Prepared, LaunchError> {
    descriptors::check(&order.stdio)?;
    let run_as = RunAs::settle(&order.settings, &order.caller)?;
    let plan = plan(&order, &run_as)?.seal().map_err(while_doing("write the plan"))?;
    let program = open_program(&order.program).map_err(while_doing("open the program that is process 1"))?;

    let mut undo =
        Undo { cgroup: order.workloads.join(order.id.to_string()), folder: order.folder.clone(), armed: true };
    fs::create_dir(&undo.cgroup).map_err(while_doing("make the workload's cgroup"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&undo.folder).map_err(while_doing("make its folder"))?;
    let cgroup = File::open(&undo.cgroup).map_err(while_doing("open the workload's cgroup"))?.into();

    let refused = Refused::create(&undo.folder).map_err(while_doing("make the file of counts"))?.into();

    let (handshake, inner) = channel::pair().map_err(while_doing("make the handshake"))?;
    let [input, output, error] = &order.stdio;
    let descriptors = [input, output, error, &plan, &inner, &order.channel, &refused];
    order.caller.still_lives()?;
    let (init, pidfd) = spawn::spawn(&spawn::Start { program: &program, cgroup: &cgroup, descriptors })
        .map_err(while_doing("clone process 1"))?;
    drop(inner);

    let workload = Workload {
        id: order.id,
        settings: Arc::clone(&order.settings),
        initiator: order.caller.uid,
        loginuid: order.caller.loginuid,
        uid: run_as.uid,
        init,
        cgroup: undo.cgroup.clone(),
        folder: undo.folder.clone(),
    };
    let state = State::new(super::running::start_time(init).unwrap_or(0), Kept::of(&workload));
    let netns = File::open(format!("/proc/{init}/ns/net")).map(OwnedFd::from);
    let netns = match netns.and_then(|netns| state.write(&workload.folder).map(|()| netns)) {
        Ok(netns) => netns,
        Err(error) => {
            // Process 1 may have failed before its namespace could be opened: its own reason is the one to tell.
            let told = await_ready(&handshake);
            drop(undo);
            super::running::reap(&pidfd);
            return Err(told.err().unwrap_or_else(|| while_doing("keep the workload's state")(error)));
        }
    };
    // From here on `Prepared` undoes it all.
    undo.armed = false;
    let prepared = Prepared { running: Some(Running::new(Arc::new(workload), pidfd, netns)), handshake };
    await_ready(&prepared.handshake)?;
    Ok(prepared)
}

impl Prepared {
    /// The workload. Its process 1 waits.
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        self.running.as_ref().map(Running::workload)
    }

    /// Its network namespace.
    pub fn netns(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(Running::netns)
    }

    /// Lets process 1 start the command. Whether that works, it tells the client over the channel.
    ///
    /// # Errors
    /// [`LaunchError::System`] when process 1 is gone.
    pub fn go(mut self) -> Result<Running, LaunchError> {
        channel::send(&self.handshake, &ToInit::Go, None).map_err(while_doing("start the command"))?;
        self.running.take().ok_or_else(|| while_doing("start the command")(io::Error::other("it was started before")))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.clean_up();
        }
    }
}

/// Waits for process 1's word that the inside is ready, and passes on why it isn't.
fn await_ready(handshake: &OwnedFd) -> Result<(), LaunchError> {
    let mut ready = [PollFd::new(handshake.as_fd(), PollFlags::POLLIN)];
    let events = nix::poll::poll(&mut ready, PollTimeout::from(READY_MILLISECONDS))
        .map_err(while_doing("wait for process 1"))?;
    if events == 0 {
        return Err(while_doing("make the inside ready in time")(io::Error::from(io::ErrorKind::TimedOut)));
    }
    let (bytes, _) = channel::receive_bytes(handshake.as_fd()).map_err(while_doing("hear from process 1"))?;
    if let [spawn::NOT_EXECUTED, errno @ ..] = bytes.as_slice()
        && let Ok(errno) = errno.try_into().map(i32::from_ne_bytes)
    {
        return Err(while_doing("execute process 1")(io::Error::from_raw_os_error(errno)));
    }
    match serde_json::from_slice(&bytes) {
        Ok(ToDaemon::Ready) => Ok(()),
        Ok(ToDaemon::Failed(Failure { message, next, .. })) => Err(LaunchError::Inside { message, next }),
        Err(_) => Err(while_doing("make the inside ready")(io::Error::other("process 1 ended without a word"))),
    }
}

/// Removes what was made so far, unless all went well.
struct Undo {
    cgroup: PathBuf,
    folder: PathBuf,
    armed: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.armed {
            discard(&self.cgroup, &self.folder);
        }
    }
}

fn plan(order: &Order, run_as: &RunAs) -> Result<Plan, LaunchError> {
    if order.argv.first().is_none_or(Vec::is_empty) || order.argv.iter().any(|argument| argument.contains(&0)) {
        return Err(LaunchError::Command {
            message: "the command is empty or has a NUL in it".into(),
            next: "name the command after `--`",
        });
    }
    let env = environment::compose(&order.env, run_as)?;
    let mut homes: Vec<Vec<u8>> = Vec::new();
    let named = environment::value(&env, "HOME").map(planned_path);
    for home in run_as.home.clone().into_iter().chain(named) {
        let home = path_bytes(&home);
        if !homes.contains(&home) {
            homes.push(home);
        }
    }
    let cwd = &order.caller.cwd;
    let bytes = |paths: &[PathBuf]| paths.iter().map(|path| path_bytes(path)).collect();
    Ok(Plan {
        argv: order.argv.clone(),
        env,
        cwd: PlannedCwd { path: path_bytes(&cwd.path), device: cwd.device, inode: cwd.inode },
        uid: run_as.uid,
        gid: run_as.gid,
        groups: run_as.groups.clone(),
        umask: order.caller.umask,
        ignored: order.caller.ignored,
        limits: order.caller.limits.clone(),
        tty: order.tty,
        home: order.settings.home.into(),
        homes,
        unix: bytes(&order.settings.unix),
        hidden: bytes(&order.hidden),
        bundle: path_bytes(&order.trust.bundle),
        authority: path_bytes(&order.trust.authority),
    })
}

fn open_program(program: &Program) -> io::Result<OwnedFd> {
    let path = match program {
        Program::Own => "/proc/self/exe".as_ref(),
        Program::File(path) => path.as_path(),
    };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    Ok(file.into())
}
