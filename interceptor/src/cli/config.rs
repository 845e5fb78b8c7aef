//! `interceptor config`: needs no daemon, and no root.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Settings, schema};

/// What to do with the configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read the configuration file as the daemon would, and underline what is wrong.
    Check,
    /// Print the JSON schema of the configuration file, for editors.
    Schema,
}

/// Does it.
pub fn execute(command: &Command, config: &Path) -> ExitCode {
    match command {
        Command::Schema => super::print(format_args!("{:#}\n", schema())),
        Command::Check => match Settings::load(config) {
            Ok(settings) => super::print(format_args!(
                "ok: {}: workloads {}, targets {}\n",
                config.display(),
                settings.workloads.len(),
                settings.targets.iter().count()
            )),
            Err(error) => super::fail_underlined(error),
        },
    }
}
