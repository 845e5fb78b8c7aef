//! What the tests use and didn't come with cargo: curl, h2load, strace and systemd-analyze, and MCP servers and HTTP
//! clients of Python and Node, unmodified, pinned by `tests/third-party/`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{ask, is_root, root, run_quietly, say, target};

/// The system's own: one that PATH names first may lie in a home that the tests' unprivileged user can't enter.
const PYTHON: &str = "/usr/bin/python3";

/// Debian's packages, each with a question that only succeeds when it is there.
const DEBIAN: &[(&str, &[&str])] = &[
    ("ca-certificates", &["test", "-s", "/etc/ssl/certs/ca-certificates.crt"]),
    ("curl", &["curl", "--version"]),
    ("nghttp2-client", &["h2load", "--version"]),
    ("python3", &[PYTHON, "--version"]),
    ("python3-venv", &[PYTHON, "-c", "import ensurepip, venv"]),
    ("nodejs", &["node", "--version"]),
    ("npm", &["npm", "--version"]),
    ("strace", &["strace", "--version"]),
    // For systemd-analyze, which reads units without a systemd that runs. It doesn't become the host's init by that.
    ("systemd", &["systemd-analyze", "--version"]),
];

/// Installs what is missing of the tests' packages.
pub(crate) fn debian() -> Result<()> {
    let missing = missing(DEBIAN);
    if missing.is_empty() {
        say("packages", "curl, h2load, python3, nodejs, strace, systemd, found");
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root() || ask("apt-get", &["--version"]).is_none() {
        bail!("the tests need {names}: install them with your system's package manager, then try again");
    }
    say("packages", &format!("installing {names} …"));
    install(&missing)?;
    say("packages", &format!("installed {names}"));
    Ok(())
}

/// Which of these packages aren't there: each comes with a question that only succeeds when it is.
pub(crate) fn missing(packages: &[(&'static str, &[&str])]) -> Vec<&'static str> {
    let is_missing = |question: &[&str]| ask(question[0], &question[1..]).is_none();
    packages.iter().filter(|(_, question)| is_missing(question)).map(|(package, _)| *package).collect()
}

/// Installs Debian packages.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    run_quietly(Command::new("apt-get").args(["update", "-q"]))?;
    run_quietly(
        Command::new("apt-get")
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    Ok(())
}

/// A virtual environment with what `requirements.txt` pins.
pub(crate) fn python() -> Result<()> {
    let folder = target().join("third-party/python");
    // A virtual environment goes with its interpreter.
    let pins = format!("# {PYTHON}\n{}", pins("requirements.txt")?);
    if is_current(&folder, &pins) {
        say("python", "venv found, as requirements.txt pins it");
        return Ok(());
    }
    begin(&folder)?;
    run_quietly(Command::new(PYTHON).args(["-m", "venv"]).arg(&folder))?;
    run_quietly(
        Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(root().join("tests/third-party/requirements.txt")),
    )?;
    finish(&folder, &pins)?;
    say("python", "venv made, as requirements.txt pins it");
    Ok(())
}

/// A `node_modules` with what `package-lock.json` pins.
pub(crate) fn node() -> Result<()> {
    let folder = target().join("third-party/node");
    let lock = pins("package-lock.json")?;
    if is_current(&folder, &lock) {
        say("node", "node_modules found, as package-lock.json pins it");
        return Ok(());
    }
    begin(&folder)?;
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("package.json"), pins("package.json")?)?;
    fs::write(folder.join("package-lock.json"), &lock)?;
    run_quietly(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&folder))?;
    finish(&folder, &lock)?;
    say("node", "node_modules made, as package-lock.json pins it");
    Ok(())
}

fn pins(file: &str) -> Result<String> {
    let path = root().join("tests/third-party").join(file);
    fs::read_to_string(&path).with_context(|| format!("can't read `{}`", path.display()))
}

/// The pins are copied beside what they brought when all of it is there: an interrupted set-up starts anew.
fn is_current(folder: &Path, pins: &str) -> bool {
    fs::read_to_string(folder.join("pinned-by")).is_ok_and(|text| text == pins)
}

fn begin(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("can't empty `{}`", folder.display()))?;
    }
    Ok(())
}

fn finish(folder: &Path, pins: &str) -> Result<()> {
    fs::write(folder.join("pinned-by"), pins)?;
    Ok(())
}
