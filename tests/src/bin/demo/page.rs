//! How the demo looks: short aligned lines, plain words, colour only on a terminal.

use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};

const GREEN: &str = "32";
const RED: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Where the story is printed.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    colour: bool,
}

/// One thing that was tried, and what came of it.
#[derive(Debug)]
pub(crate) struct Step {
    title: &'static str,
    lines: Vec<(&'static str, String)>,
    wrong: Vec<String>,
}

impl Step {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, lines: Vec::new(), wrong: Vec::new() }
    }

    /// Adds a line.
    pub(crate) fn say(&mut self, who: &'static str, what: impl Into<String>) {
        self.lines.push((who, what.into()));
    }

    /// Notes that something isn't as expected, unless it `holds`.
    pub(crate) fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong.push(what.to_owned());
        }
    }

    /// Notes an error as something that isn't as expected.
    pub(crate) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.wrong.push(format!("{error:#}"))).ok()
    }

    /// Whether all was as expected.
    pub(crate) fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl Page {
    pub(crate) fn open() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour }
    }

    pub(crate) fn title(&self) {
        self.print(&[
            String::new(),
            self.paint(BOLD, "Interceptor: what an MCP server does, decided as it does it"),
            String::new(),
        ]);
    }

    /// A line about the scene.
    pub(crate) fn scene(&self, who: &str, what: &str) {
        self.print(&[format!("  {who:<9} {what}")]);
    }

    pub(crate) fn step(&self, number: usize, step: &Step) {
        let sign = if step.is_good() { self.paint(GREEN, "as expected") } else { self.paint(RED, "NOT AS EXPECTED") };
        let dots = ".".repeat(66usize.saturating_sub(step.title.chars().count()));
        let mut lines = vec![
            String::new(),
            format!("{number:>3}  {} {} {sign}", self.paint(BOLD, step.title), self.paint(DIM, &dots)),
        ];
        lines.extend(
            step.lines.iter().map(|(who, what)| format!("     {} {what}", self.paint(DIM, &format!("{who:<9}")))),
        );
        lines.extend(step.wrong.iter().map(|what| format!("     {} {what}", self.paint(RED, "expected:"))));
        self.print(&lines);
    }

    /// What a command printed, as it printed it.
    pub(crate) fn command(&self, line: &str, said: &str) {
        let mut lines = vec![String::new(), format!("  {} {}", self.paint(DIM, "#"), self.paint(BOLD, line))];
        lines.extend(said.trim_end().lines().map(|line| format!("  {line}")));
        self.print(&lines);
    }

    /// Some lines under a heading.
    pub(crate) fn list(&self, heading: &str, lines: &[String]) {
        let mut all = vec![String::new(), self.paint(BOLD, heading)];
        all.extend(lines.iter().map(|line| format!("  {line}")));
        self.print(&all);
    }

    pub(crate) fn note(&self, what: &str) {
        self.print(&[String::new(), self.paint(DIM, what)]);
    }

    pub(crate) fn failure(&self, what: &str) {
        self.print(&[String::new(), format!("{} {what}", self.paint(RED, "demo failed:"))]);
    }

    /// The last line. `wrong`: how many steps weren't as expected.
    pub(crate) fn verdict(&self, wrong: usize) -> Result<()> {
        if wrong > 0 {
            bail!("{wrong} of the steps above went otherwise than expected");
        }
        self.print(&[String::new(), self.paint(GREEN, "Everything went as expected, and nothing is left behind.")]);
        Ok(())
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn print(&self, lines: &[String]) {
        let mut out = std::io::stdout().lock();
        for line in lines {
            // Who closed the page doesn't want to read on; the story still ends in order.
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
    }
}
