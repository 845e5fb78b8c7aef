//! Where cargo put the binaries that tests start. Another package's binary isn't built for a test by cargo itself:
//! `cargo xtask test` builds them first.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The path of the binary `name`, from the build that this process comes from.
///
/// # Errors
/// It isn't built; the error says how to.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("can't tell where this program is")?;
    // `target/debug/deps/topic-hash` for a test, `target/debug/demo` for a binary.
    for folder in own.ancestors().skip(1).take(2) {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("`{name}` isn't built: run `cargo build --bins`, or the tests by `cargo xtask test`")
}
