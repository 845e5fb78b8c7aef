//! What a run found: medians, spread and ratios; as tables for people and as JSON. How it gets into docs/performance.md is
//! in [`document`], its drawings are in [`chart`](crate::chart).

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cells::{CELLS, Cell, What};
use crate::chart;
use crate::machine::Machine;
use crate::measure::Sample;
use crate::peers::Peer;

pub(crate) use self::document::document;
pub(crate) use self::growth::{MARK, steps};

mod document;
mod growth;
mod parts;
mod stages;

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) settings: String,
    /// Peers that aren't there.
    pub(crate) missing: Vec<String>,
    pub(crate) samples: Vec<Sample>,
}

/// A cell of one of those who stand between, over all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) peer: Peer,
    /// Medians of the rounds.
    pub(crate) rate: f64,
    /// Half of what lies between the extremes, as a part of the median.
    pub(crate) spread: f64,
    pub(crate) of_direct: Option<f64>,
    pub(crate) of_limit: Option<f64>,
    pub(crate) of_best: Option<f64>,
}

/// Says one line on stderr.
pub(crate) fn say(what: &str, how: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{what:<18} {how}");
}

/// Where the JSON goes if nobody says.
pub(crate) fn place(machine: &Machine, kind: &str) -> PathBuf {
    root().join("target/bench").join(format!("{}{kind}.json", machine.date))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

impl Run {
    /// An earlier one.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("can't read `{}`", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Keeps it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("can't write `{}`", path.display()))?;
        say("json", &path.display().to_string());
        Ok(())
    }

    /// A figure of all rounds that have it, with the round.
    fn all(&self, cell: &str, peer: &str, figure: &str) -> Vec<(usize, f64)> {
        let of = self.samples.iter().filter(|sample| sample.cell == cell && sample.peer == peer);
        of.filter_map(|sample| Some((sample.round, *sample.figures.get(figure)?))).collect()
    }

    /// The median of a figure.
    pub(crate) fn median(&self, cell: &str, peer: &str, figure: &str) -> Option<f64> {
        median(self.all(cell, peer, figure).into_iter().map(|(_, value)| value).collect())
    }

    /// The median of the rounds' ratios: what happened to a whole round doesn't show.
    pub(crate) fn ratio(&self, cell: &str, (peer, other): (&str, &str), figure: &str) -> Option<f64> {
        let others = self.all(cell, other, figure);
        let ratios = self.all(cell, peer, figure).into_iter().filter_map(|(round, value)| {
            others.iter().find(|(other, _)| *other == round).map(|(_, other)| value / other)
        });
        median(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// Whom or what a cell was measured for, in the order in which they were.
    pub(crate) fn names(&self, cell: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.cell == cell) {
            if !names.contains(&sample.peer.as_str()) {
                names.push(&sample.peer);
            }
        }
        names
    }

    /// The lines of a cell of traffic.
    pub(crate) fn lines(&self, cell: &Cell) -> Vec<Line> {
        let rate = |peer: Peer| self.median(cell.name, peer.name(), "rate");
        let peers = Peer::ALL.into_iter().filter(|peer| peer.is_peer());
        let best = peers
            .filter(|peer| rate(*peer).is_some())
            .max_by(|a, b| rate(*a).unwrap_or_default().total_cmp(&rate(*b).unwrap_or_default()));
        let ratio = |peer: Peer, other: Peer| self.ratio(cell.name, (peer.name(), other.name()), "rate");
        let line = |peer: Peer| {
            let rate = rate(peer)?;
            let all = self.all(cell.name, peer.name(), "rate").into_iter().map(|(_, value)| value);
            let (least, most) = (all.clone().fold(f64::MAX, f64::min), all.fold(0.0, f64::max));
            Some(Line {
                peer,
                rate,
                spread: (most - least) / 2.0 / rate,
                of_direct: ratio(peer, Peer::Direct),
                of_limit: ratio(peer, Peer::Relay),
                of_best: best.and_then(|best| ratio(peer, best)),
            })
        };
        Peer::ALL.into_iter().filter_map(line).collect()
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A table for people.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: Vec<&'static str>,
    pub(crate) lines: Vec<Vec<String>>,
}

/// What a cell found, if it was measured.
fn table(run: &Run, cell: &Cell) -> Option<Table> {
    let (head, lines): (Vec<&str>, Vec<Vec<String>>) = match cell.what {
        What::Traffic(traffic) => {
            let bulk = traffic.is_bulk();
            let head = vec![
                "",
                if bulk { "MB/s" } else { "per s" },
                "±",
                "of direct",
                "of limit",
                "of best peer",
                "p50 µs",
                "p99 µs",
                if bulk { "CPU s/GB under load" } else { "CPU s/100k under load" },
                "writer, to its end",
                "behind s",
                "RSS MiB",
            ];
            let lines = run.lines(cell).into_iter().map(|line| {
                let figure = |name, digits, scale: f64| {
                    number(run.median(cell.name, line.peer.name(), name).map(|value| value / scale), digits)
                };
                vec![
                    line.peer.name().to_owned(),
                    if bulk { format!("{:.0}", line.rate / 1e6) } else { format!("{:.0}", line.rate) },
                    format!("{:.0} %", line.spread * 100.0),
                    number(line.of_direct, 2),
                    number(line.of_limit, 2),
                    number(line.of_best, 2),
                    figure("p50_us", 0, 1.0),
                    figure("p99_us", 0, 1.0),
                    figure("cpu", 2, 1.0),
                    figure("writer_cpu", 2, 1.0),
                    figure("drain_s", 2, 1.0),
                    figure("rss_kib", 0, 1024.0),
                ]
            });
            (head, lines.collect())
        }
        What::Memory => {
            let head = vec!["", "idle MiB", "with 1,000 TLS connections MiB"];
            let line = |peer: Peer| {
                let mib = |name| run.median(cell.name, peer.name(), name).map(|kib| kib / 1024.0);
                mib("idle_kib")?;
                Some(vec![peer.name().to_owned(), number(mib("idle_kib"), 1), number(mib("held_kib"), 1)])
            };
            (head, Peer::ALL.into_iter().filter_map(line).collect())
        }
        What::Launch => {
            let line = |peer: Peer| {
                let time = run.median(cell.name, peer.name(), "launch_ms")?;
                Some(vec![peer.name().to_owned(), format!("{time:.2}")])
            };
            (vec!["", "ms"], Peer::ALL.into_iter().filter_map(line).collect())
        }
    };
    (!lines.is_empty()).then(|| Table { title: cell.title.to_owned(), head, lines })
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

/// What the rows of the record say, over all cells and rounds.
fn rows(run: &Run) -> String {
    // `sum` of nothing is a negative zero, and is printed so.
    let sum =
        |name: &str| run.samples.iter().filter_map(|sample| sample.figures.get(name)).fold(0.0, |sum, one| sum + one);
    let failed: Vec<&Sample> = run.samples.iter().filter(|sample| sample.fault.is_some()).collect();
    let mut text =
        format!("{:.0} requests went through Interceptor; {:.0} are recorded.", sum("requests"), sum("rows"));
    for sample in failed {
        let fault = sample.fault.as_deref().unwrap_or_default();
        let _ =
            write!(text, "\nDoesn't count: {} of {}, round {}: {fault}.", sample.cell, sample.peer, sample.round + 1);
    }
    text
}

fn about(run: &Run) -> String {
    let Machine { date, cores, processor, memory_kib, kernel, load_before, profile } = &run.machine;
    let missing = if run.missing.is_empty() { "nobody".to_owned() } else { run.missing.join(", ") };
    format!(
        "{date}; {cores} cores of {processor}, {} MiB, Linux {kernel}; built with the profile `{profile}`; {}. The load \
         average before the run was {load_before:.2}. Missing: {missing}.",
        memory_kib / 1024,
        run.settings
    )
}

/// What belongs together: the cells, the stages, the curves.
struct Section {
    /// What marks it in docs/performance.md.
    name: &'static str,
    heading: &'static str,
    tables: Vec<Table>,
    notes: Vec<String>,
    drawing: Option<Drawing>,
}

/// A drawing beside docs/performance.md.
struct Drawing {
    file: &'static str,
    about: &'static str,
    svg: String,
}

/// All sections that the run has something for.
fn sections(run: &Run) -> Vec<Section> {
    let cells: Vec<Table> = CELLS.iter().filter_map(|cell| table(run, cell)).collect();
    let bars = Drawing {
        file: "performance.svg",
        about: "Rates as parts of what the load reaches without a proxy",
        svg: chart::draw(run),
    };
    let all = [
        Section { name: "cells", heading: "Results", tables: cells, notes: Vec::new(), drawing: Some(bars) },
        parts::section(run),
        stages::section(run),
        growth::section(run),
    ];
    all.into_iter().filter(|section| !section.tables.is_empty()).collect()
}

/// Prints the tables.
pub(crate) fn print(run: &Run) -> Result<()> {
    let mut text = String::new();
    for section in sections(run) {
        for Table { title, head, lines } in section.tables {
            let _ = writeln!(text, "\n{title}");
            let width = |column: usize| {
                let of = lines.iter().map(|line| line[column].chars().count());
                of.chain([head[column].chars().count()]).max().unwrap_or_default()
            };
            let widths: Vec<usize> = (0..head.len()).map(width).collect();
            for line in std::iter::once(head.iter().map(ToString::to_string).collect()).chain(lines.iter().cloned()) {
                let first = format!("  {:<width$}", line[0], width = widths[0]);
                let rest = line.iter().zip(&widths).skip(1).map(|(text, width)| format!("  {text:>width$}"));
                let _ = writeln!(text, "{first}{}", rest.collect::<String>());
            }
        }
        if !section.notes.is_empty() {
            let _ = writeln!(text, "\n{}", section.notes.join("\n"));
        }
    }
    let _ = writeln!(text, "\n{}\n{}", rows(run), about(run));
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests;
