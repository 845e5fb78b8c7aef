//! `interceptor sessions search`: operations by words and filters, newest first.

use std::io::{self, Write};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::{Failure, brief, escape, short, status, table, whole, write_table};
use crate::clock::{Clock, SystemClock};
use crate::config::duration;
use crate::control::client;
use crate::control::protocol::Request;
use crate::record::search::{Hit, Hits, Search};

/// What is looked for, and how it is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// At least one of these.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = true)]
struct Filter {
    /// Words that all occur in what was asked, the host, the reasons, policies, code or principal; `use*` finds what begins so
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
    /// Of this workload
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// Of this principal: TENANT/OBJECT, OBJECT alone, or its name in `[names]`
    #[arg(long, value_name = "ID")]
    principal: Option<String>,
    /// To this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Of workloads that this uid launched
    #[arg(long, value_name = "UID")]
    initiator: Option<u32>,
    /// Decided so
    #[arg(long, value_name = "VERDICT", value_parser = ["allow", "deny", "hold"])]
    verdict: Option<String>,
    /// Of this action, as in `http:GET`; `http` for all of HTTP
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Decided then or later: 2026-11-25T09:00:00Z, or so long ago, as in 30m, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Decided before
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

impl Args {
    fn search(self) -> Search {
        let Filter { text, workload, principal, target, initiator, verdict, action, since, until } = self.filter;
        let text = (!text.is_empty()).then(|| text.join(" "));
        let limit = self.limit;
        let (before, begins) = (None, None);
        Search { text, workload, principal, target, verdict, action, initiator, since, until, before, begins, limit }
    }
}

/// The moment that lies so long ago.
pub(super) fn ago(age: &str) -> Option<Timestamp> {
    SystemClock.now().checked_sub(SignedDuration::try_from(duration(age)?).ok()?).ok()
}

/// A time, or a duration before now.
fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse().ok().or_else(|| ago(text)).ok_or_else(|| {
        "a time in RFC 3339 (2026-11-25T09:00:00Z), or a whole number and ms, s, m, h or d for so long ago".into()
    })
}

/// Asks for them, piece by piece, and prints them.
pub(super) fn search(out: &mut impl Write, socket: &Path, args: Args) -> Result<(), Failure> {
    let json = args.json;
    let found = gather(args.search(), |search| {
        let value = client::call(socket, &Request::SessionsSearch { search: Box::new(search.clone()) })?;
        Ok(serde_json::from_value(value)?)
    })?;
    super::print::<Vec<Hit>>(out, json, serde_json::to_value(found)?, |out, hits| print(out, &hits))
}

/// All that is found, of as many answers as it takes.
fn gather(mut search: Search, mut ask: impl FnMut(&Search) -> Result<Hits, Failure>) -> Result<Vec<Hit>, Failure> {
    let mut found = Vec::new();
    loop {
        let Hits { hits, next, .. } = ask(&search)?;
        search.limit = search.limit.saturating_sub(u32::try_from(hits.len()).unwrap_or(u32::MAX));
        search.before = next;
        found.extend(hits);
        if next.is_none() || search.limit == 0 {
            return Ok(found);
        }
    }
}

fn print(out: &mut dyn Write, hits: &[Hit]) -> io::Result<()> {
    if hits.is_empty() {
        return writeln!(out, "nothing recorded fits");
    }
    let mut table = table(&[
        "DECIDED",
        "WORKLOAD",
        "AS",
        "HOST",
        "ACTION",
        "SUMMARY",
        "VERDICT",
        "CODE",
        "STATUS",
        "OPERATION",
        "SESSION",
    ]);
    for Hit { host, operation } in hits {
        let principal =
            operation.identity.as_ref().map(|identity| short(identity.principal.as_str(), &operation.names));
        table.add_row([
            brief(&operation.decided_at).as_str(),
            &operation.workload,
            principal.as_deref().unwrap_or("-"),
            &escape(host.as_deref().unwrap_or("-")),
            &escape(&operation.action),
            &escape(&operation.summary),
            &operation.verdict,
            &escape(operation.code.as_deref().unwrap_or("-")),
            &status(operation),
            &operation.operation,
            operation.session.as_deref().unwrap_or("-"),
        ]);
    }
    whole(&mut table, &[0, 6, 8, 9, 10]);
    write_table(out, &table)
}

#[cfg(test)]
mod tests;
