//! `interceptor approvals watch`, on a terminal as a person sits at it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::require_root;
use interceptor_tests::wire::Wire;
use nix::pty::openpty;

use super::fixture::{ADA, HELD, begin, open, post};

/// How long anything may take to be shown.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than it takes to look for questions twice.
const WHILE: Duration = Duration::from_millis(1500);

const PROMPT: &str = "or enter to decide later: ";

/// Ada at her terminal.
struct Terminal {
    child: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn watch(daemon: &Daemon) -> Result<Self> {
        let pty = openpty(None, None)?;
        let mut command = daemon.interceptor(&["approvals", "watch"]);
        command.uid(ADA).gid(ADA).current_dir("/");
        command.stdin(Stdio::from(pty.slave.try_clone()?)).stdout(Stdio::from(pty.slave.try_clone()?));
        let child = command.stderr(Stdio::from(pty.slave)).spawn()?;
        let keys = File::from(pty.master);
        let mut from = keys.try_clone()?;
        let (to, screen) = sync_channel(64);
        std::thread::spawn(move || {
            let mut bytes = vec![0; 4096];
            // The end of it is an error, EIO.
            while let Ok(count) = from.read(&mut bytes)
                && count > 0
                && to.send(bytes[..count].to_vec()).is_ok()
            {}
        });
        Ok(Self { child, keys, screen, shown: String::new() })
    }

    fn type_in(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    /// Reads on until it shows this, and gives what came before and with it.
    fn until(&mut self, what: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(what) {
                let rest = self.shown.split_off(at + what.len());
                return Ok(std::mem::replace(&mut self.shown, rest));
            }
            self.read(deadline.saturating_duration_since(Instant::now()))
                .with_context(|| format!("`{what}` isn't shown, but: {}", self.shown))?;
        }
    }

    /// What it shows in the next while.
    fn meanwhile(&mut self) -> Result<&str> {
        let deadline = Instant::now() + WHILE;
        while self.read(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        ensure!(self.child.try_wait()?.is_none(), "it has ended: {}", self.shown);
        Ok(&self.shown)
    }

    fn read(&mut self, patience: Duration) -> Result<()> {
        match self.screen.recv_timeout(patience) {
            Ok(bytes) => self.shown += &String::from_utf8_lossy(&bytes),
            Err(RecvTimeoutError::Timeout) => bail!("nothing is shown"),
            Err(RecvTimeoutError::Disconnected) => bail!("it has ended"),
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn asking(daemon: &Daemon, body: &str) -> Result<Wire> {
    let mut wire = Wire::tls(daemon)?;
    wire.send(post(body))?;
    Ok(wire)
}

#[test]
fn each_question_is_answered_by_y_n_or_enter_and_by_nothing_that_was_typed_before() -> Result<()> {
    require_root!(Ok(()));
    let (graph, daemon) = begin(HELD, "20s")?;
    let mut terminal = Terminal::watch(&daemon)?;
    terminal.until("waiting for questions")?;
    // A yes to nothing, and half a line of another one.
    terminal.type_in("y\ny")?;
    std::thread::sleep(Duration::from_millis(200));

    let mut wire = asking(&daemon, "{\"n\":1}")?;
    let question = terminal.until(PROMPT)?;
    for part in ["POST /echo on graph", "asked of   crm-approvers", "they say   ticket 7", "\"n\": 1"] {
        ensure!(question.contains(part), "no `{part}` in:\n{question}");
    }
    let shown = terminal.meanwhile()?;
    ensure!(!shown.contains("approved") && graph.received().is_empty(), "an earlier key approved it: {shown}");
    let id = open(&daemon, 1)?.remove(0);
    terminal.type_in("y\n")?;
    terminal.until(&format!("{id}: approved"))?;
    ensure!(wire.answer()?.status == 200 && graph.received().len() == 1, "it wasn't let through");

    let mut wire = asking(&daemon, "{\"n\":2}")?;
    ensure!(terminal.until(PROMPT)?.contains("\"n\": 2"), "it is another question");
    let id = open(&daemon, 1)?.remove(0);
    terminal.type_in("n\n")?;
    terminal.until(&format!("{id}: denied"))?;
    ensure!(wire.answer()?.code() == "approval-denied", "it isn't denied");

    // Who decides later isn't asked again, and has answered nothing.
    let wire = asking(&daemon, "{\"n\":3}")?;
    terminal.until(PROMPT)?;
    terminal.type_in("\n")?;
    let shown = terminal.meanwhile()?;
    ensure!(!shown.contains(PROMPT) && !shown.contains("apr_"), "{shown}");
    ensure!(open(&daemon, 1)?.len() == 1 && graph.received().len() == 1, "enter was an answer");
    drop((wire, terminal));
    daemon.finish()
}

#[test]
fn who_watches_goes_on_when_the_daemon_is_started_again() -> Result<()> {
    require_root!(Ok(()));
    let (graph, mut daemon) = begin(HELD, "20s")?;
    let mut terminal = Terminal::watch(&daemon)?;
    let wire = asking(&daemon, "{}")?;
    terminal.until(PROMPT)?;
    // What was asked is closed with the daemon: a yes to it comes too late, and nobody takes it.
    daemon.kill9()?;
    terminal.type_in("y\n")?;
    terminal.until("the daemon doesn't answer; waiting until it does")?;
    daemon.restart()?;
    terminal.until("the daemon is back")?;
    drop(wire);
    ensure!(open(&daemon, 0)?.is_empty() && graph.received().is_empty(), "it was approved");

    let mut wire = asking(&daemon, "{}")?;
    terminal.until(PROMPT)?;
    terminal.type_in("y\n")?;
    terminal.until(": approved")?;
    ensure!(wire.answer()?.status == 200, "it wasn't let through");
    drop((wire, terminal));
    daemon.finish()
}

#[test]
fn a_daemon_that_never_answered_isnt_waited_for() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, mut daemon) = begin(HELD, "1s")?;
    daemon.kill9()?;
    let refused = super::fixture::refuses(&daemon, ADA, &["approvals", "watch"])?;
    ensure!(refused.contains("the daemon isn't running"), "{refused}");
    daemon.restart()?;
    daemon.finish()
}
