//! `cargo xtask setup`: what the build needs that cargo can't bring. Idempotent; one line for each thing.
//! What only the tests need from other registries is in [`crate::third_party`].

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::command::{ask, cargo, is_root, run_quietly, say};
use crate::third_party;

/// It loads rustc's own LLVM, so its version goes with the toolchain's: newer ones need a newer LLVM.
const BPF_LINKER: &str = "0.10.3";
/// Installed only where no cargo-nextest is.
const NEXTEST: &str = "0.9.143";
const BPFFS: &str = "/sys/fs/bpf";

/// Brings what the build needs; with `tests`, also what the tests need.
pub(crate) fn setup(tests: bool) -> Result<()> {
    rust_src()?;
    bpf_linker()?;
    bpffs()?;
    if tests {
        nextest()?;
        third_party::debian()?;
        third_party::python()?;
        third_party::node()?;
    }
    Ok(())
}

/// The eBPF half builds its own `core`.
fn rust_src() -> Result<()> {
    let sysroot = ask("rustc", &["--print", "sysroot"]).context("`rustc` is missing; install Rust with rustup")?;
    if fs::exists(format!("{sysroot}/lib/rustlib/src/rust/library/core/src/lib.rs"))? {
        say("rust-src", "found");
        return Ok(());
    }
    run_quietly(std::process::Command::new("rustup").args(["component", "add", "rust-src"]))
        .context("rust-src is missing; install it into the toolchain of rust-toolchain.toml")?;
    say("rust-src", "installed");
    Ok(())
}

fn bpf_linker() -> Result<()> {
    let found = ask("bpf-linker", &["--version"]).and_then(|line| line.split(' ').nth(1).map(str::to_owned));
    install("bpf-linker", BPF_LINKER, found.as_deref(), found.as_deref() == Some(BPF_LINKER))
}

fn nextest() -> Result<()> {
    let found = ask("cargo-nextest", &["nextest", "--version"])
        .and_then(|lines| lines.lines().next().and_then(|line| line.split(' ').nth(1)).map(str::to_owned));
    install("cargo-nextest", NEXTEST, found.as_deref(), found.is_some())
}

fn install(name: &str, version: &str, found: Option<&str>, good: bool) -> Result<()> {
    if let (true, Some(found)) = (good, found) {
        say(name, &format!("{found}, found"));
        return Ok(());
    }
    say(name, &format!("{}; installing {version} …", found.unwrap_or("missing")));
    let start = Instant::now();
    // Outside the workspace, so that its toolchain file and configuration don't reach the tool's own build.
    run_quietly(
        cargo()
            .current_dir("/")
            .args(["install", name, "--version", version, "--locked", "--force"])
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    say(name, &format!("{version}, installed in {} s", start.elapsed().as_secs()));
    Ok(())
}

/// The pins of links and maps live on a bpffs.
fn bpffs() -> Result<()> {
    let mounted =
        fs::read_to_string("/proc/self/mounts")?.lines().any(|line| line.split(' ').skip(1).take(2).eq([BPFFS, "bpf"]));
    if mounted {
        say("bpffs", &format!("mounted at {BPFFS}"));
    } else if is_root() {
        nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
            .with_context(|| format!("can't mount a bpffs at {BPFFS}"))?;
        say("bpffs", &format!("mounted at {BPFFS} just now"));
    } else {
        say("bpffs", &format!("not mounted at {BPFFS}; mounting it needs root"));
    }
    Ok(())
}
