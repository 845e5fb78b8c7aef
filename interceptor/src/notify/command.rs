//! Telling by a program: run as an unprivileged user, with the notification on its standard input. It runs where the daemon
//! does, outside of every workload, and what it starts in its process group ends with it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::body::body;
use super::deliver::{Deliver, Delivering, PATIENCE, Undelivered};
use super::notice::Notice;
use crate::config::{self, Form};

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A program and who runs it.
pub(super) struct Hook {
    pub(super) words: Vec<String>,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) patience: Duration,
}

impl Hook {
    pub(super) fn new(words: Vec<String>, uid: u32, gid: u32) -> Self {
        Self { words, uid, gid, patience: PATIENCE }
    }

    fn failed(&self, problem: impl std::fmt::Display) -> Undelivered {
        let program = self.words.first().cloned().unwrap_or_default();
        Undelivered::Command { program, problem: problem.to_string() }
    }
}

impl Deliver for Hook {
    fn deliver<'a>(&'a self, notice: &'a Notice, _now: Timestamp) -> Delivering<'a> {
        Box::pin(async move {
            let (words, ids, input) = (self.words.clone(), (self.uid, self.gid), body(Form::Webhook, notice));
            // Judging the file and starting it block; so does reaping, if the kernel takes its time to kill.
            let started = tokio::task::spawn_blocking(move || Running::start(&words, ids, &input)).await;
            let running = started.map_err(|ended| self.failed(ended))??;
            let ended = tokio::time::timeout(self.patience, running.ended()).await;
            let reaped = tokio::task::spawn_blocking(move || running.end()).await;
            match ended {
                Err(_elapsed) => Err(self.failed(format_args!("took longer than {} s", self.patience.as_secs_f32()))),
                Ok(Err(error)) => Err(self.failed(format_args!("can't be waited for: {error}"))),
                Ok(Ok(())) => match reaped {
                    Ok(Ok(status)) if status.success() => Ok(format!("the command ended with {status}")),
                    Ok(Ok(status)) => Err(self.failed(format_args!("ended with {status}"))),
                    Ok(Err(error)) => Err(self.failed(format_args!("can't be waited for: {error}"))),
                    Err(ended) => Err(self.failed(ended)),
                },
            }
        })
    }
}

/// A program that runs; it is ended when this is dropped.
struct Running {
    child: Child,
}

impl Running {
    fn start(words: &[String], (uid, gid): (u32, u32), input: &[u8]) -> Result<Self, Undelivered> {
        let program = words.first().cloned().unwrap_or_default();
        config::program(Path::new(&program))?;
        // Supplementary groups are left behind with the uid.
        let child = Command::new(&program)
            .args(words.iter().skip(1))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir("/")
            .uid(uid)
            .gid(gid)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let child = child.map_err(|error| Undelivered::Command {
            program: program.clone(),
            problem: format!("can't be started: {error}"),
        })?;
        let mut running = Self { child };
        if let Some(mut to) = running.child.stdin.take() {
            // A pipe takes 64 KiB at once, which no notification has. Whoever doesn't want to read it needn't.
            let _unread = to.write_all(input);
        }
        Ok(running)
    }

    /// Waits for the end of the program, which keeps its id until [`Running::end`].
    async fn ended(&self) -> nix::Result<()> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(self.pid()), flags)? == WaitStatus::StillAlive {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Ends what is left of its group, and tells how it ended itself.
    fn end(mut self) -> std::io::Result<ExitStatus> {
        self.kill();
        self.child.wait()
    }

    fn kill(&self) {
        // Until it is waited for, its id is nobody else's.
        let _gone = killpg(self.pid(), Signal::SIGKILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Waited for already, its id may be somebody else's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            let _reaped = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests;
