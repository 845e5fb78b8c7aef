//! `interceptor ledger`: what the kernel counted, reconciled with what the proxy handled, and with what is recorded.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};

use crate::control::client;
use crate::control::protocol::Request;
use crate::record::event::Ledger;
use crate::record::ledger::Reconciled;
use crate::record::{QueryError, Reader, Waiting};

/// What happened a moment ago may be on its way into the database. It is looked at again until so long nothing came, and at most
/// for so long.
const QUIET: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read what was recorded in this database instead, without the daemon, and compare it with the sessions there; also of
    /// workloads that have ended
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Prints it. Exits 1 if something is unexplained, or what is recorded doesn't fit.
pub fn execute(args: &Args, socket: &Path) -> ExitCode {
    let found = match &args.db {
        Some(db) => recorded(db),
        None => live(socket),
    };
    let Found { value, rows, misfits, unsettled } = match found {
        Ok(found) => found,
        Err(error) => return super::fail(error),
    };
    let mut outcome = if args.json {
        super::print(format_args!("{value:#}\n"))
    } else {
        super::print(format_args!("{}\n", table(&rows, args.db.is_some())))
    };
    let unexplained: u64 = rows.iter().map(|row| row.ledger.unexplained()).sum();
    if unexplained > 0 {
        outcome = super::fail(format_args!(
            "{unexplained} connections or datagrams got past the proxy: end the workload, then see `interceptor doctor`"
        ));
    }
    if unsettled > 0 {
        // Not known to be right is no success: anybody could leave something there to be waited for.
        outcome = super::fail(format_args!(
            "sessions of {unsettled} workloads are missing or not in the database yet: what waits in `journal/` beside it comes \
             there when the daemon is started; look again then"
        ));
    }
    for misfit in misfits {
        outcome = super::fail(format_args!("{misfit}; see `interceptor sessions verify`"));
    }
    outcome
}

/// What there is to print.
struct Found {
    value: serde_json::Value,
    rows: Vec<Row>,
    /// What doesn't fit, in words.
    misfits: Vec<String>,
    /// Of how many workloads it can't be told, because what is missing may wait in the journals.
    unsettled: usize,
}

/// A workload's counts, and how many of its connections are recorded, where that is known.
struct Row {
    ledger: Ledger,
    recorded: Option<u64>,
}

fn live(socket: &Path) -> Result<Found, String> {
    let value = client::call(socket, &Request::Ledger).map_err(|error| error.to_string())?;
    let ledgers: Vec<Ledger> = serde_json::from_value(value.clone())
        .map_err(|error| client::ClientError::Garbled(error.to_string()).to_string())?;
    let rows = ledgers.into_iter().map(|ledger| Row { ledger, recorded: None }).collect();
    Ok(Found { value, rows, misfits: Vec::new(), unsettled: 0 })
}

fn recorded(db: &Path) -> Result<Found, String> {
    let (found, waits) = settled(db).map_err(|error| error.to_string())?;
    let value = serde_json::to_value(&found).map_err(|error| error.to_string())?;
    // What is too much is so whatever comes.
    let is_unsettled = |one: &&Reconciled| waits && one.lacks_sessions();
    let unsettled = found.iter().filter(is_unsettled).count();
    let misfits = found.iter().filter(|one| !is_unsettled(one)).filter_map(Reconciled::misfit).collect();
    let rows = found.into_iter().map(|one| Row { ledger: one.ledger, recorded: one.recorded }).collect();
    Ok(Found { value, rows, misfits, unsettled })
}

/// What a database says, once that fits or nothing comes to it any more; and whether, where it doesn't fit, something waits in
/// the journals beside it that was recorded before.
fn settled(db: &Path) -> Result<(Vec<Reconciled>, bool), QueryError> {
    let fits = |found: &[Reconciled]| found.iter().all(|one| one.misfit().is_none());
    let look = || -> Result<_, QueryError> {
        let reader = Reader::open(db)?;
        Ok((reader.last_seq()?, reader.ledger()?))
    };
    let began = Instant::now();
    let (mut last, mut found) = look()?;
    let mut changed = began;
    while !fits(&found) && changed.elapsed() < QUIET && began.elapsed() < MOST {
        std::thread::sleep(PAUSE);
        let (seq, again) = look()?;
        if seq != last {
            (last, changed) = (seq, Instant::now());
        }
        found = again;
    }
    if fits(&found) {
        return Ok((found, false));
    }
    // A session is recorded before the last counts are, but each journal is moved at its own pace: what these counts are of is
    // in the database or in the journals by now. Where the journals can't be read nothing is known to wait.
    let Ok(waiting) = Waiting::beside(db) else { return Ok((found, false)) };
    let began = Instant::now();
    loop {
        let reader = Reader::open(db)?;
        if waiting.is_in(&reader)? {
            return Ok((reader.ledger()?, false));
        }
        if began.elapsed() >= QUIET {
            return Ok((found, true));
        }
        std::thread::sleep(PAUSE);
    }
}

fn table(rows: &[Row], with_recorded: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let numbers = ["ATTEMPTED", "MEDIATED", "REFUSED", "DROPPED", "ALLOWED", "UNEXPLAINED"];
    let header = ["LAUNCH", "WORKLOAD", "KIND"].into_iter().chain(numbers);
    table.set_header(header.chain(with_recorded.then_some("RECORDED")));
    for Row { ledger, recorded } in rows {
        for (kind, counts) in &ledger.kinds {
            let numbers =
                [counts.attempted, counts.mediated, counts.refused, counts.dropped, counts.allowed, counts.unexplained];
            let words = [ledger.launch.to_string(), ledger.workload.to_string(), kind.clone()];
            // Only connections are sessions.
            let recorded = recorded.filter(|_| kind == "tcp").map_or_else(|| "-".to_owned(), |count| count.to_string());
            let cells = words.into_iter().chain(numbers.map(|number| number.to_string()));
            table.add_row(cells.chain(with_recorded.then_some(recorded)));
        }
    }
    for column in 3..10 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
