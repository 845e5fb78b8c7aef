//! The clients and servers of other makers that `cargo xtask setup --tests` brought, shown to a fixture's workloads.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use crate::daemon::Daemon;

/// Where they are, as every user and every workload of one daemon can read them.
#[derive(Debug, Clone)]
pub struct ThirdParty {
    folder: PathBuf,
}

impl ThirdParty {
    /// Where they were installed: for root, outside of a workload.
    ///
    /// # Errors
    /// They aren't.
    pub fn installed() -> Result<Self> {
        let own = std::env::current_exe().context("can't tell where this program is")?;
        // `target/debug/deps/topic-hash` for a test.
        let target = own.ancestors().nth(3).context("the build's folder")?;
        let folder = target.join("third-party");
        for part in ["python/pinned-by", "node/pinned-by"] {
            let there = folder.join(part);
            ensure!(there.exists(), "`{}` isn't there: run `cargo xtask setup --tests`", there.display());
        }
        Ok(Self { folder })
    }

    /// Shows them in the daemon's room. The checkout may lie below a folder that others can't enter, and copying takes
    /// long: it is a mount, and a read-only one, so that nothing that clears the room can reach what is behind it.
    ///
    /// # Errors
    /// They aren't installed, or can't be mounted.
    pub fn show(daemon: &Daemon) -> Result<Self> {
        let source = Self::installed()?.folder;
        let folder = daemon.room().join("third-party");
        std::fs::create_dir(&folder)?;
        let bind = |flags| mount(Some(&source), &folder, None::<&str>, flags, None::<&str>);
        bind(MsFlags::MS_BIND).context("can't mount the third-party programs")?;
        bind(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY).context("can't make them read-only")?;
        Ok(Self { folder })
    }

    /// The Python interpreter of their virtual environment.
    pub fn python(&self) -> PathBuf {
        self.folder.join("python/bin/python")
    }

    /// The folder of `node_modules`.
    pub fn node(&self) -> PathBuf {
        self.folder.join("node")
    }

    /// `@modelcontextprotocol/server-everything`, for `node`.
    pub fn server_everything(&self) -> PathBuf {
        self.node().join("node_modules/@modelcontextprotocol/server-everything/dist/index.js")
    }
}
