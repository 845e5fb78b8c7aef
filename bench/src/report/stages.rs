//! The stages as tables: what each row costs, and how much more than the row before.

use super::{Run, Section, Table, number};
use crate::points::{LOADS, cell, title};
use crate::stages::{ALLOCATIONS, FAMILY, STAGES};

/// What the run found of them.
pub(super) fn section(run: &Run) -> Section {
    let tables = LOADS.iter().filter_map(|load| table(run, load)).chain(allocations(run)).collect();
    Section { name: "stages", heading: "What each stage costs", tables, notes: Vec::new(), drawing: None }
}

fn table(run: &Run, load: &str) -> Option<Table> {
    let cell = cell(FAMILY, load);
    let head = vec![
        "",
        "per s",
        "p50 µs",
        "workers CPU s/100k",
        "writer CPU s/100k",
        "CPU more than the row before",
        "p50 more",
    ];
    let mut before: Option<(f64, f64)> = None;
    let mut lines = Vec::new();
    for (name, title) in STAGES {
        let figure = |figure| run.median(&cell, name, figure);
        let Some((rate, p50)) = figure("rate").zip(figure("p50_us")) else { continue };
        // Nobody stands in between where there is no CPU time; the relay has no writer.
        let (workers, writer) = (figure("workers_cpu").or_else(|| figure("cpu")), figure("writer_cpu"));
        let cpu = workers.unwrap_or_default() + writer.unwrap_or_default();
        let more = before.map(|(cpu_before, p50_before)| (cpu - cpu_before, p50 - p50_before));
        before = Some((cpu, p50));
        lines.push(vec![
            title.to_owned(),
            format!("{rate:.0}"),
            format!("{p50:.0}"),
            number(workers, 2),
            number(writer, 2),
            more.map_or_else(String::new, |(cpu, _)| format!("{cpu:+.2}")),
            more.map_or_else(String::new, |(_, p50)| format!("{p50:+.0}")),
        ]);
    }
    (!lines.is_empty()).then(|| Table { title: format!("Stages: {}", title(load)), head, lines })
}

/// How often each row allocates.
fn allocations(run: &Run) -> Option<Table> {
    let cell = cell(FAMILY, ALLOCATIONS);
    let line = |(name, title): (&str, &str)| {
        let [workers, writer] = ["workers", "writer"].map(|who| run.median(&cell, name, &format!("{who}_allocations")));
        workers?;
        Some(vec![title.to_owned(), number(workers, 0), number(writer, 0)])
    };
    let lines: Vec<_> = STAGES.into_iter().filter_map(line).collect();
    let head = vec!["", "by the workers", "by the writer"];
    (!lines.is_empty()).then(|| Table { title: "Stages: allocations for one request".to_owned(), head, lines })
}
