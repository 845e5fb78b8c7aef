//! `cargo xtask check`: the rules of the workspace that no compiler holds. Each finding names file and line, and what
//! to do. How sources are read is in [`source`], the layering in [`layers`].

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::{root, say};
use source::Source;

mod layers;
mod source;
mod threats;

/// The most lines that a source may have, without its tests.
const LINES: usize = 500;

/// Where `unsafe` may stand: the kernel's interfaces, creating processes, entering namespaces, and the allocator.
const UNSAFE: &[&str] = &[
    "interceptor/build.rs",
    "interceptor/src/bpf",
    "interceptor/src/heap",
    "interceptor/src/launch",
    "interceptor/src/transport/namespace",
    "interceptor/src/transport/accept",
    "interceptor-common/",
    "interceptor-ebpf/",
    // Attackers and probes do what an unprivileged process could do, raw system calls included.
    "tests/",
];

/// Words that mean "not finished"; put together here so that this file passes its own check.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

/// Module names that say nothing.
const NAMELESS: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "misc", "mod"];

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Checks the workspace.
pub(crate) fn check() -> Result<()> {
    let root = root();
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for package in ["bench", "interceptor", "interceptor-common", "interceptor-ebpf", "tests", "xtask"] {
        findings.extend(manifest(&root, package)?);
        for path in rust_files(&root.join(package))? {
            let name = path.strip_prefix(&root)?.to_string_lossy().into_owned();
            sources.push(Source::new(name, fs::read_to_string(&path)?));
        }
    }
    for source in &sources {
        findings.extend(shape(source));
        findings.extend(wording(source));
    }
    findings.extend(layers::check(&sources));
    findings.extend(threats::missing(&fs::read_to_string(root.join(threats::THREATS))?, &sources));
    for finding in &findings {
        say("check", &finding.to_string());
    }
    if !findings.is_empty() {
        bail!("{} things to mend", findings.len());
    }
    say("check", &format!("ok: {} files", sources.len()));
    Ok(())
}

/// The workspace's lints only reach the packages that ask for them.
fn manifest(root: &Path, package: &str) -> Result<Option<Finding>> {
    let path = format!("{package}/Cargo.toml");
    let text = fs::read_to_string(root.join(&path))?;
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != "[lints]");
    let inherits = lines.next().is_some() && lines.next() == Some("workspace = true");
    Ok((!inherits).then(|| Finding {
        path,
        line: 1,
        message: "add `[lints]` with `workspace = true`: lints aren't inherited by themselves".into(),
    }))
}

/// Size, module doc, name, and where tests and `unsafe` stand.
fn shape(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    if lines > LINES && !source.is_test() {
        findings.push(source.finding(LINES + 1, format!("{lines} lines: split it, {LINES} are the most")));
    }
    if !source.is_test() && !source.text.starts_with("//!") {
        findings.push(source.finding(1, "start with a module doc: what lives here and what doesn't".into()));
    }
    if NAMELESS.contains(&source.stem()) {
        findings.push(source.finding(1, format!("`{}` says nothing: name what the module holds", source.stem())));
    }
    let may_be_unsafe = UNSAFE.iter().any(|prefix| source.path.starts_with(prefix));
    for (number, line) in source.code.lines().enumerate() {
        if !may_be_unsafe && source::words(line).any(|word| word == "unsafe") {
            findings.push(source.finding(number + 1, "`unsafe` isn't allowed here: use a safe interface".into()));
        }
        if line.trim_start().starts_with("mod tests {") {
            findings.push(source.finding(number + 1, "tests stand in a file beside: `mod tests;`".into()));
        }
    }
    findings
}

/// Nothing unfinished is committed.
fn wording(source: &Source) -> Vec<Finding> {
    let unfinished = |line: &str| source::words(line).find(|word| UNFINISHED.contains(word)).map(str::to_owned);
    source
        .text
        .lines()
        .enumerate()
        .filter_map(|(number, line)| {
            let word = unfinished(line)?;
            Some(source.finding(number + 1, format!("`{word}`: finish it, or file an issue and leave it out")))
        })
        .collect()
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
