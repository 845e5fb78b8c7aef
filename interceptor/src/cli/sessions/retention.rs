//! `interceptor sessions prune`, `erase` and `hold`: how long what sessions sent and got is kept.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use super::search::ago;
use super::{Failure, escape};
use crate::control::client;
use crate::control::protocol::Request;

/// What is pruned.
#[derive(Debug, Clone, clap::Args)]
pub struct Prune {
    /// What was decided longer ago than this, as in 12h, 30d
    #[arg(long = "older-than", value_name = "AGE", value_parser = before)]
    before: Timestamp,
    /// Prune payloads; nothing else can be pruned, so this is what happens without it too
    #[arg(long)]
    payloads: bool,
}

/// Which session is held.
#[derive(Debug, Clone, clap::Args)]
pub struct Hold {
    /// The session's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// Lift the hold
    #[arg(long)]
    release: bool,
}

/// The moment that lies so long ago.
fn before(age: &str) -> Result<Timestamp, String> {
    ago(age).ok_or_else(|| "a whole number and ms, s, m, h or d, as in 30d".into())
}

pub(super) fn prune(out: &mut dyn Write, socket: &Path, args: &Prune) -> Result<(), Failure> {
    let value = client::call(socket, &Request::SessionsPrune { before: args.before })?;
    let before = args.before;
    match value["payloads"].as_u64() {
        Some(0) => writeln!(out, "no payload is older than {before:.0}, but for those of held sessions")?,
        count => writeln!(out, "{} payloads from before {before:.0} are being deleted", count.unwrap_or(0))?,
    }
    Ok(out.flush()?)
}

pub(super) fn erase(out: &mut dyn Write, socket: &Path, id: String) -> Result<(), Failure> {
    let value = client::call(socket, &Request::SessionsErase { id })?;
    writeln!(out, "erased: nobody can read any more what {} sent and got", session(&value))?;
    Ok(out.flush()?)
}

pub(super) fn hold(out: &mut dyn Write, socket: &Path, args: Hold) -> Result<(), Failure> {
    let value = client::call(socket, &Request::SessionsHold { id: args.id, held: !args.release })?;
    match args.release {
        false => writeln!(out, "held: {} is neither pruned nor erased until the hold is lifted", session(&value))?,
        true => writeln!(out, "released: {} can be pruned and erased again", session(&value))?,
    }
    Ok(out.flush()?)
}

fn session(answer: &Value) -> String {
    escape(answer["session"].as_str().unwrap_or("the session")).into_owned()
}
