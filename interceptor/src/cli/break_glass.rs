//! `interceptor break-glass`: what was written for an emergency comes into force for a time, and an auditor looks at it
//! afterwards.

use std::path::Path;
use std::process::ExitCode;

use super::listing::{Listing, time};
use super::sessions::table;
use super::terminal::escape;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{BreakGlassStart, Request};
use crate::ids::WorkloadName;
use crate::policy::BreakGlass;
use crate::record::break_glass::Broken;

/// What to do in an emergency, and after it.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// For a time a workload may what the policies of break-glass.d permit; for operators
    Start {
        /// For this workload
        #[arg(long)]
        workload: WorkloadName,
        /// For how long, as in 30m; a day at most
        #[arg(long = "for", value_name = "TIME", value_parser = time::<1>)]
        time: u64,
        /// Why, for the record and for those who look at it afterwards
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// End it before its time; what goes on under it is cut
    Stop {
        /// Its id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// List what lasts, then what no auditor has closed, newest first
    List(Listing),
    /// Say that you have looked at what was done; for auditors who didn't start it
    Close {
        /// Its id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
        /// What you found, for the record
        #[arg(long, value_name = "TEXT")]
        note: String,
    },
}

/// Does it, through the daemon at `socket`.
pub fn execute(command: Command, socket: &Path) -> ExitCode {
    let id = |value: serde_json::Value| value["id"].as_str().unwrap_or_default().to_owned();
    let done = match command {
        Command::Start { workload, time, reason } => {
            started(socket, BreakGlassStart { workload, seconds: time, reason })
        }
        Command::Stop { id: asked } => client::call(socket, &Request::BreakGlassStop { id: asked }).map(|value| {
            let id = id(value);
            format!("{id}: stopped; an auditor closes it with `interceptor break-glass close {id} --note TEXT`\n")
        }),
        Command::List(listing) => list(socket, listing),
        Command::Close { id: asked, note } => {
            let closed = client::call(socket, &Request::BreakGlassClose { id: asked, note });
            closed.map(|value| format!("{}: closed\n", id(value)))
        }
    };
    match done {
        Ok(text) => super::print(text),
        Err(error) => super::fail(escape(&error.to_string())),
    }
}

fn started(socket: &Path, start: BreakGlassStart) -> Result<String, ClientError> {
    let broken: BreakGlass = client::decoded(client::call(socket, &Request::BreakGlassStart(start))?)?;
    Ok(format!(
        "{}: {} may what break-glass.d permits, until {}\n",
        broken.id,
        broken.workload,
        broken.until.strftime("%FT%TZ")
    ))
}

fn list(socket: &Path, Listing { all, limit, json }: Listing) -> Result<String, ClientError> {
    let value = client::call(socket, &Request::BreakGlassList { all, limit })?;
    if json {
        return Ok(format!("{value:#}\n"));
    }
    let found: Vec<Broken> = client::decoded(value)?;
    if found.is_empty() {
        return Ok("nothing lasts, and nothing is left to look at\n".into());
    }
    let mut table = table(&["ID", "WORKLOAD", "SINCE", "UNTIL", "BY", "REASON", "STATE"]);
    for one in &found {
        let state = match (&one.closed_by, &one.ending) {
            (Some(uid), _) => format!("closed by uid {uid}"),
            (None, Some(ending)) => format!("{ending}; to be looked at"),
            (None, None) => "lasts".into(),
        };
        table.add_row([
            one.broken.id.to_string(),
            one.broken.workload.to_string(),
            one.started_at.strftime("%FT%TZ").to_string(),
            one.ended_at.unwrap_or(one.broken.until).strftime("%FT%TZ").to_string(),
            format!("uid {}", one.started_by),
            escape(&one.broken.reason).into_owned(),
            state,
        ]);
    }
    Ok(format!("{table}\n"))
}
