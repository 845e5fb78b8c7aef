//! `interceptor notify`: the channels that people are told by.

use std::path::Path;
use std::process::ExitCode;

use super::terminal::escape;
use crate::control::client;
use crate::control::protocol::Request;

/// What to do with channels.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Send a test through a channel, once, and print what its receiver said
    Test {
        /// The channel's name, as in its `[[notify]]`
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Does it, through the daemon at `socket`. Exits 0 when the receiver took it, else 1.
pub fn execute(command: &Command, socket: &Path) -> ExitCode {
    let Command::Test { name } = command;
    match client::call(socket, &Request::NotifyTest { channel: name.clone() }) {
        Ok(value) => {
            let said = value["answer"].as_str().unwrap_or_default();
            super::print(format_args!("{name}: {}\n", escape(said)))
        }
        Err(error) => super::fail(escape(&error.to_string())),
    }
}
