//! Where secrets come from: a root-only file, or what a command prints. Both block; they run beside the workers.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::{Secret, VaultError};
use crate::config::{self, SecretSource};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much it may print.
const LARGEST: usize = 64 << 10;

/// Reads a secret.
///
/// # Errors
/// Why it can't be had; never with anything of it.
pub(super) fn read(source: &SecretSource) -> Result<Secret, VaultError> {
    let secret = match source {
        SecretSource::File(path) => Secret::new(config::secret(path)?),
        SecretSource::Command(words) => Secret::new(run(words, PATIENCE)?),
    };
    if secret.bytes().len() < Secret::LEAST {
        let problem = format!("it is shorter than {} bytes", Secret::LEAST);
        return Err(VaultError::Unusable { place: place(source), problem });
    }
    Ok(secret)
}

/// How errors name a source.
pub(super) fn place(source: &SecretSource) -> String {
    match source {
        SecretSource::File(path) => format!("`{}`", path.display()),
        SecretSource::Command(words) => format!("the command `{}`", words.first().map_or("", String::as_str)),
    }
}

/// Runs a command without a shell and takes what it prints on standard output. Its standard error goes nowhere: it
/// could repeat the secret.
pub(super) fn run(words: &[String], patience: Duration) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let program = words.first().cloned().unwrap_or_default();
    let failed = |problem: String| VaultError::Command { program: program.clone(), problem };
    config::program(Path::new(&program))?;
    let mut child = Command::new(&program)
        .args(words.iter().skip(1))
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("can't be started: {error}")))?;
    let printed = output(&mut child, Instant::now() + patience);
    if printed.is_err() {
        end(&mut child);
    }
    let printed = printed.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => failed(format!("took longer than {} s", patience.as_secs_f32())),
        io::ErrorKind::FileTooLarge => failed("printed more than 64 KiB".into()),
        _ => failed(format!("can't be read: {error}")),
    })?;
    let status =
        finish(&mut child, Instant::now() + patience).map_err(|error| failed(format!("didn't end: {error}")))?;
    if status.success() { Ok(printed) } else { Err(failed(format!("ended with {status}"))) }
}

fn output(child: &mut Child, deadline: Instant) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut from = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    // Never grown, so that no copy stays behind in memory that was given back.
    let mut bytes = Zeroizing::new(vec![0; LARGEST + 1]);
    let mut length = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if left.is_zero() || poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match from.read(&mut bytes[length..]) {
            Ok(0) if length > LARGEST => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Waits for a command that has closed its output; one that lives on is ended.
fn finish(child: &mut Child, deadline: Instant) -> io::Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            end(child);
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a command and what it started.
fn end(child: &mut Child) {
    // It may be gone already; then there is nothing to end, and waiting reaps it.
    let _gone = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let _gone = child.kill();
    let _reaped = child.wait();
}
