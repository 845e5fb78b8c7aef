//! What a run found: medians, spread and ratios; as tables for people, as JSON, and as docs/performance.md. The chart is
//! in [`chart`](crate::chart).

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

/// What follows in docs/performance.md is written by the run.
const RESULTS: &str = "<!-- From here on `cargo xtask bench --docs` writes. -->";

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
pub(crate) fn place(machine: &Machine) -> PathBuf {
    root().join("target/bench").join(format!("{}.json", machine.date))
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
    fn all(&self, cell: &Cell, peer: Peer, figure: &str) -> Vec<(usize, f64)> {
        let of = self.samples.iter().filter(|sample| sample.cell == cell.name && sample.peer == peer.name());
        of.filter_map(|sample| Some((sample.round, *sample.figures.get(figure)?))).collect()
    }

    /// The median of a figure.
    pub(crate) fn median(&self, cell: &Cell, peer: Peer, figure: &str) -> Option<f64> {
        median(self.all(cell, peer, figure).into_iter().map(|(_, value)| value).collect())
    }

    /// The median of the rounds' ratios: what happened to a whole round doesn't show.
    fn ratio(&self, cell: &Cell, peer: Peer, other: Peer) -> Option<f64> {
        let others = self.all(cell, other, "rate");
        let ratios = self.all(cell, peer, "rate").into_iter().filter_map(|(round, rate)| {
            others.iter().find(|(other, _)| *other == round).map(|(_, other)| rate / other)
        });
        median(ratios.collect())
    }

    /// The lines of a cell of traffic.
    pub(crate) fn lines(&self, cell: &Cell) -> Vec<Line> {
        let rate = |peer: Peer| self.median(cell, peer, "rate");
        let peers = Peer::ALL.into_iter().filter(|peer| peer.is_peer());
        let best = peers
            .filter(|peer| rate(*peer).is_some())
            .max_by(|a, b| rate(*a).unwrap_or_default().total_cmp(&rate(*b).unwrap_or_default()));
        let line = |peer: Peer| {
            let rate = rate(peer)?;
            let all = self.all(cell, peer, "rate").into_iter().map(|(_, value)| value);
            let (least, most) = (all.clone().fold(f64::MAX, f64::min), all.fold(0.0, f64::max));
            Some(Line {
                peer,
                rate,
                spread: (most - least) / 2.0 / rate,
                of_direct: self.ratio(cell, peer, Peer::Direct),
                of_limit: self.ratio(cell, peer, Peer::Relay),
                of_best: best.and_then(|best| self.ratio(cell, peer, best)),
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

/// A table: its head, and its lines.
type Table = (Vec<&'static str>, Vec<Vec<String>>);

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
                if bulk { "CPU s/GB" } else { "CPU s/100k" },
                "of it writer",
                "behind s",
                "RSS MiB",
            ];
            let lines = run.lines(cell).into_iter().map(|line| {
                let figure = |name, digits, scale: f64| {
                    number(run.median(cell, line.peer, name).map(|value| value / scale), digits)
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
                let mib = |name| run.median(cell, peer, name).map(|kib| kib / 1024.0);
                mib("idle_kib")?;
                Some(vec![peer.name().to_owned(), number(mib("idle_kib"), 1), number(mib("held_kib"), 1)])
            };
            (head, Peer::ALL.into_iter().filter_map(line).collect())
        }
        What::Launch => {
            let line = |peer: Peer| {
                let time = run.median(cell, peer, "launch_ms")?;
                Some(vec![peer.name().to_owned(), format!("{time:.2}")])
            };
            (vec!["", "ms"], Peer::ALL.into_iter().filter_map(line).collect())
        }
    };
    (!lines.is_empty()).then_some((head, lines))
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

/// What the rows of the record say, over all cells and rounds.
fn rows(run: &Run) -> String {
    let sum = |name: &str| run.samples.iter().filter_map(|sample| sample.figures.get(name)).sum::<f64>();
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

/// Prints the tables.
pub(crate) fn print(run: &Run) -> Result<()> {
    let mut text = String::new();
    for cell in CELLS {
        let Some((head, lines)) = table(run, cell) else { continue };
        let _ = writeln!(text, "\n{}", cell.title);
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
    let _ = writeln!(text, "\n{}\n{}", rows(run), about(run));
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Writes the chart, and the results into docs/performance.md.
pub(crate) fn document(run: &Run) -> Result<()> {
    let folder = root().join("docs");
    fs::write(folder.join("performance.svg"), chart::draw(run))?;
    let path = folder.join("performance.md");
    let text = fs::read_to_string(&path).with_context(|| format!("can't read `{}`", path.display()))?;
    let (before, _) = text.split_once(RESULTS).with_context(|| format!("`{}` has no `{RESULTS}`", path.display()))?;
    let mut text = format!("{before}{RESULTS}\n\n## Results\n\n{}\n\n{}\n", about(run), rows(run));
    text += "\n![Rates as parts of what the load reaches without a proxy](performance.svg)\n";
    for cell in CELLS {
        let Some((head, lines)) = table(run, cell) else { continue };
        let title = cell.title.strip_suffix("100 MB").map_or_else(|| cell.title.to_owned(), |_| "100 MB".to_owned());
        let _ = writeln!(text, "\n### {title}\n\n| {} |", head.join(" | "));
        let _ = writeln!(text, "|---|{}", "--:|".repeat(head.len() - 1));
        for line in lines {
            let _ = writeln!(text, "| {} |", line.join(" | "));
        }
    }
    fs::write(&path, text)?;
    say("docs", &path.display().to_string());
    Ok(())
}

#[cfg(test)]
mod tests;
