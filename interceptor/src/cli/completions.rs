//! `interceptor completions`.

use std::process::ExitCode;

use clap_complete::Shell;

/// Which shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell; `interceptor completions bash > /etc/bash_completion.d/interceptor`.
    shell: Shell,
}

/// Prints the completions.
pub fn execute(args: &Args, command: &mut clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "interceptor", &mut script);
    super::print(String::from_utf8_lossy(&script))
}
