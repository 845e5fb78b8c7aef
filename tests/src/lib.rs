//! Fixtures: what the kernel tests and the demo run against. [`graph`] is an upstream, [`daemon`] a running Interceptor
//! with a configuration of its own, [`recorded`] reads what it recorded. Not here: the tests (`tests/tests`, a topic a
//! file), and the programs under interception (`src/bin`).

pub mod accounts;
pub mod adopted;
pub mod authority;
pub mod binary;
pub mod container;
pub mod daemon;
pub mod entra;
pub mod graph;
pub mod netns;
pub mod port;
pub mod recorded;
pub mod remains;
pub mod scene;
pub mod scripted;
pub mod systemd;
pub mod third_party;
pub mod unit;
pub mod wire;

/// Whether tests that drive the kernel can run: they need root. Where they must run (`INTERCEPTOR_REQUIRE_KERNEL=1`)
/// their absence is an error.
///
/// # Panics
/// If they are required and can't run.
pub fn is_kernel_ours() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let required = std::env::var_os("INTERCEPTOR_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(root || !required, "the kernel tests are required here and need root");
    root
}

/// Returns from a test that needs root where it isn't root, and says so; fails where the kernel tests are required.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::is_kernel_ours() {
            println!("skipped: needs root");
            return;
        }
    };
    ($done:expr) => {
        if !$crate::is_kernel_ours() {
            println!("skipped: needs root");
            return $done;
        }
    };
}
