//! `cargo xtask test`: sets up, builds, and runs every test that can run here. The doctests go first, so that the last
//! lines are the runner's summary.

use std::fs;

use anyhow::{Result, bail};

use crate::command::{cargo, is_root, root, run, say};
use crate::setup;

/// All but the eBPF half, which has a target of its own and no tests in user space.
const PACKAGES: &[&str] = &["--workspace", "--exclude", "interceptor-ebpf"];

/// Tests that drive the kernel: the integration tests of the `tests` package.
const KERNEL: &str = "package(interceptor-tests) & kind(test)";

/// Runs the tests; `filter` goes to cargo-nextest as it is.
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
    run(&mut nextest)
}

/// Prints the escape matrix: builds, and runs the one test that does, its output where ours goes.
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
