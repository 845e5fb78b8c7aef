//! `interceptor grants`: what is let through for a time, although policy holds it or waits for a grant.

use std::path::Path;
use std::process::ExitCode;

use super::approvals::times;
use super::listing::{Listing, time};
use super::sessions::table;
use super::terminal::escape;
use crate::config::size;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{Issue, Request};
use crate::ids::{TargetName, WorkloadName};
use crate::policy::{Behind, Grant, Origin};
use crate::record::approval::Granted;
use crate::record::event::as_whom;
use crate::who::NOBODY;

/// What to do with grants.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// List the grants that live, newest first
    List(Listing),
    /// Let something through for a time: what policy holds, and what it permits when { context.base.granted }
    Issue {
        /// For this workload
        #[arg(long)]
        workload: WorkloadName,
        /// Only where it was launched by this uid; without it by anybody
        #[arg(long, value_name = "UID")]
        initiator: Option<u32>,
        /// On this target
        #[arg(long)]
        target: TargetName,
        /// This action, as in http:POST, or group of actions, as in http:write; without it everything
        #[arg(long)]
        action: Option<String>,
        /// Only this path and what is below it
        #[arg(long, requires = "action")]
        path: Option<String>,
        /// For how long, as in 30m
        #[arg(long = "for", value_name = "TIME", value_parser = time::<30>)]
        time: u64,
        /// How many requests; without it any number
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        uses: Option<u64>,
        /// How many bytes of answers in all, as in 10MiB
        #[arg(long, value_name = "SIZE", value_parser = bytes)]
        bytes: Option<u64>,
        /// How many rows of answers in all: elements of the outermost array of JSON, JSON Lines, records of CSV
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        rows: Option<u64>,
    },
    /// End a grant before its time; what goes on under it is cut
    Revoke {
        /// The grant's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Does it, through the daemon at `socket`.
pub fn execute(command: Command, socket: &Path) -> ExitCode {
    let done = match command {
        Command::List(listing) => list(socket, listing),
        Command::Issue { workload, initiator, target, action, path, time, uses, bytes, rows } => {
            let issue = Issue { workload, initiator, target, action, path, seconds: time, uses, bytes, rows };
            issued(socket, issue)
        }
        Command::Revoke { id } => client::call(socket, &Request::GrantsRevoke { id }).map(|value| {
            let id = value["grant"].as_str().unwrap_or_default().to_owned();
            format!("{id}: revoked\n")
        }),
    };
    match done {
        Ok(text) => super::print(text),
        Err(error) => super::fail(escape(&error.to_string())),
    }
}

/// `512B`, `64KiB`, `10MiB`, `1GiB`, or a number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let bytes = text.parse().ok().or_else(|| size(text)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "a size such as 64KiB, 10MiB or 1GiB, or a number of bytes".to_owned())
}

fn issued(socket: &Path, issue: Issue) -> Result<String, ClientError> {
    let grant: Grant = client::decoded(client::call(socket, &Request::GrantsIssue(issue))?)?;
    let mut uses = grant.uses.map_or_else(|| "any number of times".into(), times);
    for (most, what) in [(grant.bytes, "bytes"), (grant.rows, "rows")] {
        uses += &most.map_or_else(String::new, |most| format!(", {most} {what} at most"));
    }
    let told = grant.scope.told(&grant.target);
    Ok(format!("{}: {} may do {}, {uses}, until {}\n", grant.id, whose(&grant), escape(&told), grant.until))
}

/// `crm`, or `crm (launched by uid 1000)` where it is for that one's only.
fn whose(grant: &Grant) -> String {
    let by = match grant.behind {
        Behind::Anybody => String::new(),
        Behind::Initiator(NOBODY) | Behind::Asker { initiator: NOBODY, .. } => " (adopted)".into(),
        Behind::Initiator(uid) => format!(" (launched by uid {uid})"),
        Behind::Asker { initiator, loginuid, .. } => {
            format!(" (launched by uid {initiator}{})", as_whom(initiator, loginuid))
        }
    };
    format!("{}{by}", grant.workload)
}

/// `, 17 of 1024 bytes`, where that is limited.
fn spent(one: &Granted) -> String {
    let part = |most: Option<u64>, spent: u64, what: &str| {
        most.map_or_else(String::new, |most| format!(", {spent} of {most} {what}"))
    };
    part(one.grant.bytes, one.spent_bytes, "bytes") + &part(one.grant.rows, one.spent_rows, "rows")
}

fn list(socket: &Path, Listing { all, limit, json }: Listing) -> Result<String, ClientError> {
    let value = client::call(socket, &Request::GrantsList { all, limit })?;
    if json {
        return Ok(format!("{value:#}\n"));
    }
    let grants: Vec<Granted> = client::decoded(value)?;
    if grants.is_empty() {
        return Ok("no grants\n".into());
    }
    let mut table = table(&["GRANT", "WORKLOAD", "LETS THROUGH", "UNTIL", "USED", "FROM", "ENDED"]);
    for one in &grants {
        let grant = &one.grant;
        let of = grant.uses.map_or_else(String::new, |uses| format!(" of {uses}"));
        let from = match (&grant.origin, one.issuer) {
            (Origin::Approval { approval, .. }, _) => approval.to_string(),
            (Origin::Operator, Some(uid)) => format!("uid {uid}"),
            (Origin::Operator, None) => "an operator".into(),
        };
        table.add_row([
            grant.id.to_string(),
            whose(grant),
            escape(&grant.scope.told(&grant.target)).into_owned(),
            grant.until.strftime("%FT%TZ").to_string(),
            format!("{}{of}{}", one.used, spent(one)),
            from,
            one.reason.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    Ok(format!("{table}\n"))
}

#[cfg(test)]
mod tests;
