//! A load that runs as a process of its own: what it is started with, when it counts, and what it tells at its end.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::load::Tally;

/// A load that runs.
pub(crate) struct Asking {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Asking {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let output = child.stdout.take().context("its output")?;
        Ok(Self { child, said: BufReader::new(output).lines() })
    }

    fn line(&mut self) -> Result<String> {
        match self.said.next() {
            Some(line) => Ok(line?),
            None => bail!("the load ended early"),
        }
    }

    /// Waits until it says this.
    pub(crate) fn expect(&mut self, word: &str) -> Result<()> {
        let line = self.line()?;
        ensure!(line == word, "the load said `{line}`, not `{word}`");
        Ok(())
    }

    /// Lets it end, and takes what it tells.
    pub(crate) fn tally(mut self) -> Result<Tally> {
        drop(self.child.stdin.take());
        let tally = serde_json::from_str(&self.line()?)?;
        ensure!(self.child.wait()?.success(), "the load failed");
        Ok(tally)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // After `tally` it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
