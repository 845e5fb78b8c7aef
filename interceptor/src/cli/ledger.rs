//! `interceptor ledger`: what the kernel counted, reconciled with what the proxy handled.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};

use crate::control::client;
use crate::control::protocol::Request;
use crate::record::Reader;
use crate::record::event::Ledger;
use crate::record::ledger::Reconciled;

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read what was recorded in this database instead, without the daemon; also of workloads that have ended
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Prints it. Exits 1 if something is unexplained.
pub fn execute(args: &Args, socket: &Path) -> ExitCode {
    let (value, ledgers) = match &args.db {
        Some(db) => match recorded(db) {
            Ok(found) => found,
            Err(error) => return super::fail(error),
        },
        None => match live(socket) {
            Ok(found) => found,
            Err(error) => return super::fail(error),
        },
    };
    let printed = if args.json {
        super::print(format_args!("{value:#}\n"))
    } else {
        super::print(format_args!("{}\n", table(&ledgers)))
    };
    let unexplained: u64 = ledgers.iter().map(Ledger::unexplained).sum();
    if unexplained > 0 {
        return super::fail(format_args!(
            "{unexplained} connections got an answer, and not from the proxy: end the workload, then see `interceptor doctor`"
        ));
    }
    printed
}

type Found = (serde_json::Value, Vec<Ledger>);

fn live(socket: &Path) -> Result<Found, client::ClientError> {
    let value = client::call(socket, &Request::Ledger)?;
    let ledgers =
        serde_json::from_value(value.clone()).map_err(|error| client::ClientError::Garbled(error.to_string()))?;
    Ok((value, ledgers))
}

fn recorded(db: &Path) -> Result<Found, String> {
    let found: Vec<Reconciled> =
        Reader::open(db).and_then(|reader| reader.ledger()).map_err(|error| error.to_string())?;
    let value = serde_json::to_value(&found).map_err(|error| error.to_string())?;
    Ok((value, found.into_iter().map(|one| one.ledger).collect()))
}

fn table(ledgers: &[Ledger]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let numbers = ["ATTEMPTED", "MEDIATED", "REFUSED", "DROPPED", "ALLOWED", "UNEXPLAINED"];
    table.set_header(["LAUNCH", "WORKLOAD", "KIND"].into_iter().chain(numbers));
    for ledger in ledgers {
        for (kind, counts) in &ledger.kinds {
            let numbers =
                [counts.attempted, counts.mediated, counts.refused, counts.dropped, counts.allowed, counts.unexplained];
            let words = [ledger.launch.to_string(), ledger.workload.to_string(), kind.clone()];
            table.add_row(words.into_iter().chain(numbers.map(|number| number.to_string())));
        }
    }
    for column in 3..9 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
