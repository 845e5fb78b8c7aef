//! The demo as a newcomer starts it: told to its end, left running, and stopped by Ctrl-C at any moment. Whichever it is,
//! nothing is left behind.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::remains::Remains;
use interceptor_tests::{binary, require_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the demo may take to clear up.
const PATIENCE: Duration = Duration::from_secs(40);

struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    said: String,
}

impl Demo {
    fn start(options: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary::find("demo")?);
        let mut child = command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, output, said: String::new() })
    }

    /// Reads on until it says this.
    fn until(&mut self, what: &str) -> Result<()> {
        let from = self.said.len();
        while !self.said[from..].contains(what) {
            ensure!(self.output.read_line(&mut self.said)? > 0, "it ended before `{what}`:\n{}", self.said);
        }
        Ok(())
    }

    fn interrupt(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?)
    }

    /// Waits for its end; nothing of it may be left then.
    fn end(mut self) -> Result<(ExitStatus, String)> {
        self.output.read_to_string(&mut self.said)?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "it doesn't end:\n{}", self.said);
            sleep(Duration::from_millis(20));
        };
        let left = Remains::of(&format!("interceptor-demo-{}-0", self.child.id()))?.list();
        ensure!(left.is_empty(), "left behind: {left:?}\n{}", self.said);
        Ok((status, std::mem::take(&mut self.said)))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // After its end nothing happens.
        let _ = self.interrupt();
        let _ = self.child.wait();
    }
}

#[test]
fn it_goes_as_expected_and_leaves_nothing() -> Result<()> {
    require_root!(Ok(()));
    let (status, said) = Demo::start(&[])?.end()?;
    ensure!(status.success(), "{status}\n{said}");
    ensure!(said.contains("Everything went as expected, and nothing is left behind."), "{said}");
    ensure!(!said.contains("NOT AS EXPECTED") && said.matches("as expected\n").count() == 16, "{said}");
    Ok(())
}

#[test]
fn ctrl_c_ends_it_at_any_moment_and_leaves_nothing() -> Result<()> {
    require_root!(Ok(()));
    for moment in ["what an MCP server does", "policy ", "  1  ", "  6  ", "  8  ", "interceptor sessions list"] {
        let mut demo = Demo::start(&[])?;
        demo.until(moment)?;
        demo.interrupt()?;
        let (status, said) = demo.end()?;
        let told = if status.success() { "Everything went as expected" } else { "nothing is left behind" };
        ensure!(status.code().is_some() && said.contains(told), "at `{moment}`: {status}\n{said}");
    }
    Ok(())
}

#[test]
fn kept_it_runs_what_it_proposes_until_ctrl_c() -> Result<()> {
    require_root!(Ok(()));
    let mut demo = Demo::start(&["--keep"])?;
    demo.until("In another terminal, as root:")?;
    let from = demo.said.len();
    demo.until("Ctrl-C here ends it")?;
    let proposed: Vec<&str> = demo.said[from..].lines().filter(|line| line.starts_with("  ")).collect();
    let script = format!("set -e; EDITOR=true\n{}", proposed.join("\n"));
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{script}\n{said}{}", String::from_utf8_lossy(&output.stderr));
    for part in ["serving yes", "crm", "graph.microsoft.com", "people-stay", "Adele Vance"] {
        ensure!(said.contains(part), "`{part}` isn't in: {said}");
    }
    demo.interrupt()?;
    let (status, said) = demo.end()?;
    ensure!(status.success(), "{status}\n{said}");
    Ok(())
}
