//! What every run stands on, whatever it measures: certificates, the origin, an Entra that issues tokens.

use std::time::Duration;

use anyhow::{Result, ensure};
use interceptor_tests::entra::Entra;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::measure::Bench;
use crate::ours::{self, Ours, Policies, Shape};
use crate::peers::{Process, Site, part};
use crate::pki::Folder;

/// Open files that are asked for: 10,000 connections take some of the daemon each.
const FILES: u64 = 65_536;

/// What every run stands on.
pub(crate) struct Ground {
    pub(crate) site: Site,
    entra: Entra,
    origin: Process,
    bearer: String,
    // Removed last, when nobody uses it any longer.
    _room: TempDir,
}

impl Ground {
    /// Makes everything and starts everybody.
    pub(crate) fn lay() -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "namespaces and eBPF need root");
        let room = tempfile::Builder::new().prefix("interceptor-bench-").tempdir()?;
        let pki = Folder::make(&room.path().join("pki"))?;
        let (origin, address) = Process::printing(part("origin").arg("--pki").arg(pki.path()))?;
        let site = Site { room: room.path().to_owned(), pki, origin: address };
        let entra = Entra::start(&[])?;
        let bearer = ours::token(&entra)?;
        Ok(Self { site, entra, origin, bearer, _room: room })
    }

    /// Interceptor in this shape.
    pub(crate) fn ours(&self, shape: &Shape) -> Result<Ours> {
        Ours::start(&self.site, &self.entra, shape)
    }

    /// Interceptor in this shape, which has these policies first.
    pub(crate) fn ours_with(&self, first: Policies, shape: &Shape) -> Result<Ours> {
        Ours::start_with(first, &self.site, &self.entra, shape)
    }

    /// What samples are taken with.
    pub(crate) fn bench(&self, warm: Duration, time: Duration) -> Bench<'_> {
        Bench { origin: &self.origin, pki: &self.site.pki, bearer: &self.bearer, warm, time }
    }
}

/// Lets this process, and those that it starts, open many files; gives how many.
pub(crate) fn open_many_files() -> Result<u64> {
    // Root may raise the hard limit, unless something above says no.
    if setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).is_err() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}
