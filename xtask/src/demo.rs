//! `cargo xtask demo`: sets up, builds, and hands over to the `demo` binary of the `tests` package.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, is_root, run, say, target};
use crate::setup;

/// Shows the main job.
pub(crate) fn demo(keep: bool) -> Result<()> {
    if !is_root() {
        bail!(
            "the demo makes namespaces and loads eBPF, which needs root: run `sudo -E env PATH=\"$PATH\" cargo xtask demo`"
        );
    }
    setup::setup(false)?;
    say("build", "interceptor and the demo (some minutes the first time) …");
    run(cargo().args(["build", "--quiet", "--workspace", "--exclude", "interceptor-ebpf", "--bins"]))?;
    let mut demo = Command::new(target().join("debug/demo"));
    if keep {
        demo.arg("--keep");
    }
    // In our place, so that Ctrl-C and the exit status are the demo's own.
    Err(demo.exec()).context("can't start the demo")
}
