//! The curves as tables: each step beside the smallest of its round, and whether the top keeps the mark.

use super::{Drawing, Run, Section, Table, number};
use crate::chart::curves;
use crate::growth::{Curve, LOAD_S, LOADING};
use crate::points::{LOADS, cell, title};

/// What a request may cost more at the top.
pub(crate) const MARK: f64 = 1.1;

/// What the run found of them.
pub(super) fn section(run: &Run) -> Section {
    let each = || Curve::ALL.into_iter().flat_map(|curve| LOADS.map(|load| (curve, load)));
    let tables = each().filter_map(|(curve, load)| table(run, curve, load)).chain(loading(run)).collect();
    let notes = each().filter_map(|(curve, load)| note(run, curve, load)).collect();
    let drawing = Drawing {
        file: "performance-growth.svg",
        about: "What a request costs at each step, as a multiple of the smallest",
        svg: curves::draw(run),
    };
    Section { name: "growth", heading: "How the cost of a request grows", tables, notes, drawing: Some(drawing) }
}

/// The steps of a curve with the CPU time of the workers as a multiple of the smallest step's.
pub(crate) fn steps<'a>(run: &'a Run, curve: Curve, load: &str) -> Vec<(&'a str, f64)> {
    let cell = cell(&curve.family(), load);
    let names = ordered(run, &cell);
    let Some(smallest) = names.first().copied() else { return Vec::new() };
    let step = |name: &'a str| Some((name, run.ratio(&cell, (name, smallest), "workers_cpu")?));
    names.into_iter().filter_map(step).collect()
}

/// The steps are named by their numbers; each round measures them in another order.
fn ordered<'a>(run: &'a Run, cell: &str) -> Vec<&'a str> {
    let mut names = run.names(cell);
    names.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
    names
}

fn table(run: &Run, curve: Curve, load: &str) -> Option<Table> {
    let cell = cell(&curve.family(), load);
    let names = ordered(run, &cell);
    let smallest = names.first().copied()?;
    let head = vec![
        "",
        "per s",
        "of smallest",
        "p50 µs",
        "workers CPU s/100k",
        "times",
        "writer CPU s/100k",
        "times",
        "RSS MiB",
    ];
    let lines = names.iter().map(|name| {
        let figure = |figure, digits| number(run.median(&cell, name, figure), digits);
        let ratio = |figure| number(run.ratio(&cell, (name, smallest), figure), 2);
        vec![
            grouped(name),
            figure("rate", 0),
            ratio("rate"),
            figure("p50_us", 0),
            figure("workers_cpu", 2),
            ratio("workers_cpu"),
            figure("writer_cpu", 2),
            ratio("writer_cpu"),
            number(run.median(&cell, name, "rss_kib").map(|kib| kib / 1024.0), 0),
        ]
    });
    Some(Table { title: format!("Growth: {}; {}", curve.title(), title(load)), head, lines: lines.collect() })
}

/// How long policies take to be loaded.
fn loading(run: &Run) -> Option<Table> {
    let cell = cell(&Curve::Policies.family(), LOADING);
    let names = ordered(run, &cell);
    let lines = names.iter().map(|name| vec![grouped(name), number(run.median(&cell, name, LOAD_S), 2)]).collect();
    let title = "Growth: loading policies, once at each reload".to_owned();
    (!names.is_empty()).then(|| Table { title, head: vec!["", "s"], lines })
}

/// Whether the top of a curve keeps the mark.
fn note(run: &Run, curve: Curve, load: &str) -> Option<String> {
    let steps = steps(run, curve, load);
    let ((smallest, _), (top, times)) = (steps.first()?, steps.last()?);
    let verdict = if *times <= MARK { "keeps" } else { "misses" };
    Some(format!(
        "{} against {} {}; {}: ×{times:.2} CPU of the workers, which {verdict} the mark of ×{MARK:.2}.",
        grouped(top),
        grouped(smallest),
        curve.title(),
        title(load)
    ))
}

/// 10000 as 10,000.
fn grouped(number: &str) -> String {
    let mut text = String::new();
    for (place, digit) in number.chars().enumerate() {
        if place > 0 && (number.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
