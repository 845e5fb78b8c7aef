//! `interceptor sessions`: what is recorded, for people and for scripts. What governed processes wrote is escaped
//! before it is printed; JSON is printed as it is (its strings hold no raw control characters).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use jiff::Timestamp;
use nix::unistd::{Uid, User};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::terminal::{self, escape};
use crate::control::client::{self, ClientError};
use crate::control::protocol::Request;
use crate::record::checkpoint::PublicKey;
use crate::record::query::{Launch, Operation, Session, Story};
use crate::record::{self, Anchored, Evidence, RecordError, Report};

mod export;
mod replay;
mod retention;
mod search;
mod whole;

/// What to do with sessions.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// List the latest sessions, newest first
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
        /// How many at most
        #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one session: who, where, and each of its operations
    Show {
        /// The session's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Find operations by words and filters, newest first
    Search(search::Args),
    /// Show what went back and forth, in its own time, with the verdicts between the lines; that you did is recorded
    Replay {
        /// The session's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
        /// How many times as fast as it was; 0 for at once
        #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
        speed: f64,
    },
    /// Write sessions for other tools, with what they sent and got; that you did is recorded
    Export {
        /// The sessions' ids, or the beginnings of them; none: all that is recorded, also what belongs to no session
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// HTTP Archive (one JSON object), one JSON object a line, or one OCSF event a line (without what was sent)
        #[arg(long, value_enum)]
        format: export::Format,
    },
    /// Delete what old operations sent and got; that they happened stays recorded, and that you did is recorded first
    Prune(retention::Prune),
    /// Destroy the key of a session, and with it what it sent and got; recorded first
    Erase {
        /// The session's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Keep a session from pruning and erasing, or no longer; recorded first
    Hold(retention::Hold),
    /// End a live session: its connection is cut, whatever is under way
    Kill {
        /// The session's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Check that nothing recorded was changed: compute the chain again, and all that is derived from it
    Verify {
        /// Check this database without the daemon, as in /var/lib/interceptor/record.db
        #[arg(long, value_name = "PATH")]
        db: Option<PathBuf>,
        /// Compare it with these checkpoints instead of those beside it, as in a copy that was kept elsewhere
        #[arg(long, value_name = "FILE", requires = "db")]
        checkpoints: Option<PathBuf>,
        /// Take signatures of this public key only (64 hex digits, as this command prints it)
        #[arg(long, value_name = "PUBLIC", requires = "db")]
        key: Option<PublicKey>,
        /// Check that it follows this database, which was moved aside when it was begun
        #[arg(long, value_name = "OLD", requires = "db")]
        previous: Option<PathBuf>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Why a command didn't do what was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the daemon's answer has another shape than expected ({0}); use the version that the daemon has")]
    Answer(#[from] serde_json::Error),
    #[error("can't print: {0}")]
    Output(#[from] io::Error),
}

/// Does it, through the daemon at `socket`. Exits 0 when done (and, for `verify`, all is well), else 1.
pub fn execute(command: Command, socket: &Path) -> ExitCode {
    match answer(command, socket) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // `… | head` has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // When standard error is closed too, the exit status is what is left to tell it.
            let _told = writeln!(io::stderr().lock(), "error: {}", escape(&failure.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn answer(command: Command, socket: &Path) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match command {
        Command::List { json, limit } => {
            let value = client::call(socket, &Request::SessionsList { limit })?;
            print::<Vec<Session>>(&mut out, json, value, |out, sessions| list(out, &sessions))?;
            Ok(true)
        }
        Command::Show { id, json } => {
            let value = serde_json::to_value(whole::story(socket, &id)?)?;
            print::<Story>(&mut out, json, value, |out, story| show(out, &story))?;
            Ok(true)
        }
        Command::Search(args) => {
            search::search(&mut out, socket, args)?;
            Ok(true)
        }
        Command::Replay { id, speed } => {
            replay::replay(&mut out, socket, &id, speed)?;
            Ok(true)
        }
        Command::Export { ids, format } => {
            export::export(&mut out, socket, format, &ids)?;
            Ok(true)
        }
        Command::Kill { id } => {
            let value = client::call(socket, &Request::SessionsKill { id })?;
            writeln!(out, "{}: cut", value["session"].as_str().unwrap_or_default())?;
            Ok(true)
        }
        Command::Prune(args) => {
            retention::prune(&mut out, socket, &args)?;
            Ok(true)
        }
        Command::Erase { id } => {
            retention::erase(&mut out, socket, id)?;
            Ok(true)
        }
        Command::Hold(args) => {
            retention::hold(&mut out, socket, args)?;
            Ok(true)
        }
        Command::Verify { db, checkpoints, key, previous, json } => {
            let value = match db {
                Some(path) => {
                    serde_json::to_value(record::verify_with(&path, &Evidence { checkpoints, key, previous })?)?
                }
                None => client::call(socket, &Request::SessionsVerify)?,
            };
            let ok = value["ok"] == Value::Bool(true);
            print::<Report>(&mut out, json, value, |out, report| verified(out, &report))?;
            Ok(ok)
        }
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.0..=1_000_000.0).contains(&speed) => Ok(speed),
        _ => Err("a number from 0 to 1000000".into()),
    }
}

fn print<T: DeserializeOwned>(
    out: &mut impl Write,
    json: bool,
    value: Value,
    people: impl FnOnce(&mut dyn Write, T) -> io::Result<()>,
) -> Result<(), Failure> {
    if json {
        serde_json::to_writer_pretty(&mut *out, &value).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        people(out, serde_json::from_value(value)?)?;
    }
    Ok(out.flush()?)
}

fn list(out: &mut dyn Write, sessions: &[Session]) -> io::Result<()> {
    if sessions.is_empty() {
        return writeln!(out, "no sessions yet; `interceptor run -- COMMAND` starts a workload that makes some");
    }
    let mut table = table(&["SESSION", "OPENED", "WORKLOAD", "AS", "HOST", "TARGET", "OPERATIONS", "DENIED", "ENDED"]);
    for session in sessions {
        let principals: Vec<_> = session.principals.iter().map(|id| short(id, &session.names)).collect();
        table.add_row([
            session.session.as_str(),
            &brief(&session.opened_at),
            &session.workload,
            &if principals.is_empty() { "-".to_owned() } else { principals.join(", ") },
            &escape(session.host.as_deref().unwrap_or(&session.original)),
            session.target.as_deref().unwrap_or("-"),
            &session.operations.to_string(),
            &session.denied.to_string(),
            &escape(session.reason.as_deref().unwrap_or("open")),
        ]);
    }
    whole(&mut table, &[0, 1]);
    right(&mut table, &[6, 7]);
    write_table(out, &table)
}

fn show(out: &mut dyn Write, story: &Story) -> io::Result<()> {
    let session = &story.session;
    writeln!(out, "session   {}", escape(&session.session))?;
    write!(out, "workload  {} ({})", escape(&session.workload), escape(&session.launch))?;
    match &story.launch {
        Some(launch) => who(out, launch)?,
        None => writeln!(out, ", of whose launch nothing is recorded")?,
    }
    match &session.process {
        Some(process) => {
            write!(out, "process   {}, pid {}, thread {}", escape(&process.comm), process.pid, process.tid)?;
            match &process.exe {
                Some(exe) => writeln!(out, ", {}", escape(&exe.to_string_lossy()))?,
                None => writeln!(out)?,
            }
        }
        None => writeln!(out, "process   unknown")?,
    }
    let host = session.host.as_deref().unwrap_or("no known name");
    let target = session.target.as_ref().map_or("no target".into(), |target| format!("target {target}"));
    writeln!(out, "to        {}, {}, by {}", escape(host), escape(&target), escape(&session.original))?;
    write!(out, "time      {}", escape(&session.opened_at))?;
    match (&session.closed_at, &session.reason) {
        (Some(closed), reason) => {
            let reason = reason.as_deref().unwrap_or("unknown");
            writeln!(out, " to {} ({})", escape(closed), escape(reason))?;
        }
        (None, _) => writeln!(out, ", open")?,
    }
    if !session.cut_by.is_empty() {
        writeln!(out, "cut by    {}", escape(&session.cut_by.join(", ")))?;
    }
    writeln!(out)?;
    operations(out, story)
}

fn who(out: &mut dyn Write, launch: &Launch) -> io::Result<()> {
    writeln!(out, ", {}, runs {} as {}", escape(&launch.containment), escape(&launch.command), user(launch.uid))?;
    writeln!(out, "by        {}, launched {}", user(launch.initiator), escape(&launch.started_at))?;
    match (&launch.ended_at, &launch.status) {
        (Some(ended), Some(status)) => writeln!(out, "ended     {}: {}", escape(ended), escape(status)),
        _ => Ok(()),
    }
}

fn operations(out: &mut dyn Write, story: &Story) -> io::Result<()> {
    if story.operations.is_empty() {
        return writeln!(out, "no operations");
    }
    let mut table = table(&[
        "TIME",
        "AS",
        "ACTION",
        "SUMMARY",
        "VERDICT",
        "CODE",
        "POLICIES",
        "STATUS",
        "SENT",
        "RECEIVED",
        "OPERATION",
    ]);
    for operation in &story.operations {
        let principal =
            operation.identity.as_ref().map(|identity| short(identity.principal.as_str(), &operation.names));
        table.add_row([
            time_of_day(&operation.decided_at).as_str(),
            principal.as_deref().unwrap_or("-"),
            &escape(&operation.action),
            &escape(&operation.summary),
            &operation.verdict,
            &escape(operation.code.as_deref().unwrap_or("-")),
            &escape(&operation.basis.policies.join(", ")),
            &status(operation),
            &operation.request.bytes.map_or("-".into(), |bytes| bytes.to_string()),
            &operation.response.bytes.map_or("-".into(), |bytes| bytes.to_string()),
            &operation.operation,
        ]);
    }
    whole(&mut table, &[0, 1, 4, 7, 10]);
    right(&mut table, &[7, 8, 9]);
    write_table(out, &table)?;
    identities(out, story)?;
    if story.omitted > 0 {
        writeln!(out, "… and {} more, which don't fit into one answer", story.omitted)?;
    }
    for (operation, masked) in story.operations.iter().filter_map(|one| Some((one, masked(one)?))) {
        writeln!(out, "\nin the answer of {} were masked: {masked}", escape(&operation.operation))?;
    }
    for operation in story.operations.iter().filter(|operation| !operation.cut_by.is_empty()) {
        writeln!(out, "\n{} was cut by {}", escape(&operation.operation), escape(&operation.cut_by.join(", ")))?;
    }
    let denied = story.operations.iter().filter(|operation| operation.verdict == "deny");
    for operation in denied.filter(|operation| !operation.basis.reasons.is_empty()) {
        writeln!(out, "\n{} was denied:", escape(&operation.operation))?;
        for reason in &operation.basis.reasons {
            writeln!(out, "  {}", escape(reason))?;
        }
    }
    Ok(())
}

/// What was masked in an operation's answer, if anything was: `3 $..mail, 1 email`.
fn masked(operation: &Operation) -> Option<String> {
    let counts = operation.masked.iter().map(|(what, count)| format!("{count} {}", escape(what)));
    (!operation.masked.is_empty()).then(|| counts.collect::<Vec<_>>().join(", "))
}

/// Who the short names in the table are.
fn identities(out: &mut dyn Write, story: &Story) -> io::Result<()> {
    let mut told = BTreeSet::new();
    for operation in &story.operations {
        let Some(identity) = &operation.identity else { continue };
        if !told.insert(&identity.principal) {
            continue;
        }
        let id = identity.principal.as_str();
        write!(out, "\n{} is {} {}", short(id, &operation.names), identity.kind.as_str(), escape(id))?;
        if let Some(client) = &identity.client {
            write!(out, ", by application {}", client)?;
            if let Some(name) = operation.names.get(&client.to_string()) {
                write!(out, " ({})", escape(name))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What the configuration calls an id, or the beginning of what follows its tenant.
fn short(id: &str, names: &BTreeMap<String, String>) -> String {
    match names.get(id) {
        Some(name) => escape(name).into_owned(),
        None => {
            let own = id.split_once('/').map_or(id, |(_, own)| own);
            escape(&own.chars().take(8).collect::<String>()).into_owned()
        }
    }
}

fn verified(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    match &report.fault {
        None => writeln!(out, "ok: {} events, the chain and all that is derived from it are whole", report.events)?,
        Some(fault) => {
            let place = fault.seq.map_or("the record".into(), |seq| format!("event {seq}"));
            writeln!(out, "NOT ok: {place}: {}", escape(&fault.what))?;
            writeln!(out, "{} events up to there are as they were written", report.events)?;
        }
    }
    writeln!(out, "hash of the last event checked: {}", escape(&report.hash))?;
    if let Some(anchored) = &report.checkpoints {
        let Anchored { count, seq, at, key, .. } = anchored;
        writeln!(out, "{count} checkpoints, the last of event {seq}, {at}, signed by {key}")?;
    }
    if let Some((first, last)) = report.uncovered {
        writeln!(out, "events {first} to {last} have no checkpoint yet")?;
    }
    for damage in &report.damage {
        let (place, detail) = (escape(&damage.place), escape(&damage.detail));
        writeln!(out, "damage, reported by event {}: {place}: {detail}", damage.seq)?;
    }
    for note in &report.notes {
        writeln!(out, "note: {}", escape(note))?;
    }
    Ok(())
}

/// The HTTP status, or how else it ended.
fn status(operation: &Operation) -> String {
    match (operation.status, &operation.outcome) {
        (Some(status), _) => status.to_string(),
        (None, Some(outcome)) => escape(outcome).into_owned(),
        (None, None) => "open".into(),
    }
}

fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("{} (uid {uid})", escape(&user.name)),
        _ => format!("uid {uid}"),
    }
}

/// A time to the second.
fn brief(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| escape(time).into_owned(), |time| format!("{time:.0}"))
}

/// Hours to milliseconds, in UTC.
fn time_of_day(time: &str) -> String {
    let shown = time.parse::<Timestamp>().map(|time| format!("{time:.3}"));
    match &shown {
        Ok(text) => text.split_once('T').map_or(text.as_str(), |(_, time)| time).trim_end_matches('Z').into(),
        Err(_) => escape(time).into_owned(),
    }
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    match terminal::width() {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table
}

/// A body for people: JSON over several lines, anything else as it is.
pub(super) fn pretty(text: &str) -> String {
    replay::pretty(text).unwrap_or_else(|| text.to_owned())
}

/// Columns that are never broken into lines.
fn whole(table: &mut Table, columns: &[usize]) {
    for &index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

fn right(table: &mut Table, columns: &[usize]) {
    for &index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn write_table(out: &mut dyn Write, table: &Table) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
