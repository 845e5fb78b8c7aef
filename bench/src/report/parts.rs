//! What the daemon's CPU time goes to, as tables: a line for each part, a column for each cell.

use super::{Run, Section, Table, number};
use crate::cells::CELLS;
use crate::parts::{FAMILY, PARTS, Threads, WHOLE};
use crate::points::cell;

/// What the run found of it.
pub(super) fn section(run: &Run) -> Section {
    let tables = Threads::ALL.into_iter().filter_map(|threads| table(run, threads)).collect();
    let notes = vec![
        "µs of CPU time for a request; for a MB where it is `bulk`. What there is of it is by the kernel's account, how \
         it is divided by samples of `perf`: below a twentieth of a column they are a guess."
            .to_owned(),
    ];
    Section { name: "parts", heading: "Where the time goes: the parts", tables, notes, drawing: None }
}

fn table(run: &Run, threads: Threads) -> Option<Table> {
    let figure = |name: &str, figure: &str| run.median(&cell(FAMILY, name), threads.name(), figure);
    let cells: Vec<&str> = CELLS.iter().map(|cell| cell.name).filter(|name| figure(name, WHOLE).is_some()).collect();
    let line = |title: &str, name: &str| {
        let values = cells.iter().map(|cell| number(figure(cell, name), 1));
        std::iter::once(title.to_owned()).chain(values).collect::<Vec<_>>()
    };
    // The other threads do little of all that there is.
    let is_seen = |name: &str| cells.iter().any(|cell| figure(cell, name).is_some_and(|found| found >= 0.05));
    let seen = PARTS.iter().filter(|part| part.is_of(threads) && is_seen(part.name));
    let parts = seen.map(|part| line(part.name, part.name));
    let title = match threads {
        Threads::Workers => "Parts: the workers",
        Threads::Others => "Parts: other threads, which accept, and search large bodies for secrets",
        Threads::Writer => "Parts: the writer",
    };
    let lines = std::iter::once(line("all", WHOLE)).chain(parts).collect();
    let head = std::iter::once("").chain(cells.iter().copied()).collect();
    (!cells.is_empty()).then(|| Table { title: title.to_owned(), head, lines })
}
