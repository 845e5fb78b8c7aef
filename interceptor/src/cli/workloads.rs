//! `interceptor workloads`.

use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};

use super::terminal::escape;
use crate::control::client;
use crate::control::protocol::{Launched, Request};
use crate::who::NOBODY;

/// What to do with the workloads.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the launched workloads that live, and the adopted ones; below each what lowers its containment.
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
        Ok(launched) => super::print(format_args!("{}\n{}", table(&launched), holes(&launched))),
        Err(error) => super::fail(client::ClientError::Garbled(error.to_string())),
    }
}

/// What is open, and how to close it: a line each.
fn holes(launched: &[Launched]) -> String {
    let mut said = String::new();
    for one in launched {
        for cgroup in one.adopted.iter().flatten() {
            let image = cgroup.image.as_ref().map(|image| format!(", image {}", escape(image))).unwrap_or_default();
            // Its name is the choice of whoever made it.
            said += &format!("{}: {}{image}\n", one.workload, escape(&cgroup.cgroup));
        }
        for hole in &one.holes {
            said += &format!("{}: {}\n", one.workload, escape(hole));
        }
    }
    if said.is_empty() { said } else { format!("\n{said}") }
}

/// A number that an adopted workload doesn't have.
fn known(number: u32, none: u32) -> String {
    if number == none { "-".into() } else { number.to_string() }
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
            known(one.initiator, NOBODY),
            known(one.uid, NOBODY),
            known(one.pid, 0),
            one.started.map_or_else(|| "unknown".into(), |at| at.to_string()),
            one.connections.to_string(),
            one.containment.clone(),
        ]);
    }
    table
}
