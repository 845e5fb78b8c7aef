//! `interceptor workloads`.

use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};

use crate::control::client;
use crate::control::protocol::{Launched, Request};

/// What to do with the workloads.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the launched workloads that live.
    List {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub fn execute(command: &Command, socket: &Path) -> ExitCode {
    let Command::List { json } = command;
    let value = match client::call(socket, &Request::Workloads) {
        Ok(value) => value,
        Err(error) => return super::fail(error),
    };
    if *json {
        return super::print(format_args!("{value:#}\n"));
    }
    match serde_json::from_value::<Vec<Launched>>(value) {
        Ok(launched) => super::print(format_args!("{}\n", table(&launched))),
        Err(error) => super::fail(client::ClientError::Garbled(error.to_string())),
    }
}

fn table(launched: &[Launched]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "LAUNCH",
        "WORKLOAD",
        "COMMAND",
        "INITIATOR",
        "UID",
        "PID",
        "SINCE",
        "CONNECTIONS",
        "CONTAINMENT",
    ]);
    for one in launched {
        table.add_row([
            one.launch.to_string(),
            one.workload.to_string(),
            // The command's name is its owner's choice.
            one.command.escape_debug().to_string(),
            one.initiator.to_string(),
            one.uid.to_string(),
            one.pid.to_string(),
            one.started.map_or_else(|| "unknown".into(), |at| at.to_string()),
            one.connections.to_string(),
            one.containment.clone(),
        ]);
    }
    table
}
