//! `cargo xtask test`: sets up, builds, and runs every test that can run here. The doctests go first, so that the last
//! lines are the runner's summary, unless something is left over.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::{cargo, is_root, root, run, run_quietly, say, target};
use crate::setup;

/// All but the eBPF half, which has a target of its own and no tests in user space.
const PACKAGES: &[&str] = &["--workspace", "--exclude", "interceptor-ebpf"];

/// Tests that drive the kernel: the integration tests of the `tests` package.
const KERNEL: &str = "package(interceptor-tests) & kind(test)";

/// How long what tests made may take to be gone: the kernel frees programs and cgroups a moment later.
const GOING: Duration = Duration::from_secs(10);

/// Runs the tests; `filter` goes to cargo-nextest as it is. Fails as well if they leave something on the host.
pub(crate) fn test(long: bool, filter: &[String]) -> Result<()> {
    setup::setup(true)?;
    // The integration tests start the real binary, which cargo wouldn't build for another package's tests. With the
    // same packages and targets each time, cargo builds each dependency with one set of features only.
    run(cargo().arg("build").args(PACKAGES).args(["--bins", "--tests"]))?;
    if filter.is_empty() {
        run(cargo().args(["test", "--quiet", "--doc"]).args(PACKAGES))?;
    }
    let mut nextest = cargo();
    nextest.args(["nextest", "run"]).args(PACKAGES).args(filter);
    if is_root() {
        nextest.env("INTERCEPTOR_REQUIRE_KERNEL", "1");
    } else {
        for topic in topics()? {
            say("left out", &format!("tests/tests/{topic}: needs root (namespaces, cgroups, eBPF)"));
        }
        nextest.args(["--filterset", &format!("not ({KERNEL})")]);
    }
    if long {
        nextest.env("INTERCEPTOR_LONG", "1");
    } else {
        say("left out", "the long rounds: run `cargo xtask test --long` for them");
    }
    if !is_root() {
        return run(&mut nextest);
    }
    let before = on_this_host()?;
    let outcome = run(&mut nextest);
    let left = left_since(&before)?;
    for line in &left {
        say("left over", line);
    }
    outcome?;
    if !left.is_empty() {
        bail!("the tests left {} things on this host", left.len());
    }
    Ok(())
}

/// Processes, cgroups, pins, folders, mounts and programs such as tests make, a line each.
fn on_this_host() -> Result<BTreeSet<String>> {
    Ok(run_quietly(&mut Command::new(target().join("debug/left-over")))?.lines().map(str::to_owned).collect())
}

/// What of it there is that wasn't there before, and doesn't go.
fn left_since(before: &BTreeSet<String>) -> Result<Vec<String>> {
    let since = Instant::now();
    loop {
        let left: Vec<String> = on_this_host()?.difference(before).cloned().collect();
        if left.is_empty() || since.elapsed() > GOING {
            return Ok(left);
        }
        sleep(Duration::from_millis(100));
    }
}

/// Prints the escape matrix, and what the doctor foretold: builds, and runs those tests, their output where ours goes.
pub(crate) fn escape() -> Result<()> {
    setup::setup(true)?;
    if !is_root() {
        bail!("the escape matrix makes namespaces, cgroups and eBPF programs: run it as root");
    }
    run(cargo().arg("build").args(PACKAGES).args(["--bins", "--tests"]))?;
    let mut nextest = cargo();
    nextest.args(["nextest", "run"]).args(PACKAGES).args(["--filterset", "binary(escape_matrix)", "--no-capture"]);
    run(nextest.env("INTERCEPTOR_REQUIRE_KERNEL", "1"))
}

fn topics() -> Result<Vec<String>> {
    let folder = root().join("tests/tests");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut topics = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rs") {
            topics.push(name);
        }
    }
    topics.sort();
    Ok(topics)
}
