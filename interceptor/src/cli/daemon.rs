//! `interceptor daemon`.

use std::path::Path;
use std::process::ExitCode;

use crate::daemon::{self, DaemonError};

/// Serves until it is told to stop.
pub fn execute(config: &Path) -> ExitCode {
    match daemon::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(DaemonError::Config(error)) => super::fail_underlined(error),
        Err(error) => super::fail(error),
    }
}
