//! Points that are measured one beside the other, round by round: the stages of a request, the steps of a curve. Each is
//! a way to the origin under a name, asked at HTTP/1.1 with 64 connections and with one.

use anyhow::{Context, Result, bail};

use crate::asking::Asking;
use crate::cells::{CELLS, Cell, Traffic, What};
use crate::measure::{Bench, Sample};
use crate::peers::Running;
use crate::rounds::{is_interrupted, sample};

/// The cells that each point is measured in.
pub(crate) const LOADS: [&str; 2] = ["http1-1", "http1-64"];

/// One of them.
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) running: Running,
    /// Who is there besides the load, and asks for nothing.
    pub(crate) beside: Vec<Asking>,
}

impl Point {
    /// One with nobody beside the load.
    pub(crate) fn new(name: impl Into<String>, running: Running) -> Self {
        Self { name: name.into(), running, beside: Vec::new() }
    }

    /// Ends those beside, who must have stood to the end.
    pub(crate) fn end(self) -> Result<()> {
        for asking in self.beside {
            let tally = asking.tally()?;
            if tally.failed > 0 {
                bail!("beside {}: {} failed: {}", self.name, tally.failed, tally.fault.unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// What the samples of a family call their cell.
pub(crate) fn cell(family: &str, load: &str) -> String {
    format!("{family}/{load}")
}

fn find(name: &str) -> Option<&'static Cell> {
    CELLS.iter().find(|cell| cell.name == name)
}

/// A load's name for people.
pub(crate) fn title(load: &str) -> &str {
    find(load).map_or(load, |cell| cell.title)
}

/// How a load asks.
pub(crate) fn traffic(load: &str) -> Result<Traffic> {
    match find(load).context("a cell")?.what {
        What::Traffic(traffic) => Ok(traffic),
        What::Memory | What::Launch => bail!("{load} isn't traffic"),
    }
}

/// Measures all of them so many times.
pub(crate) fn measure(bench: &Bench, family: &str, points: &[Point], rounds: usize) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for round in 0..rounds {
        for name in LOADS {
            let traffic = traffic(name)?;
            for place in 0..points.len() {
                let point = &points[(place + round) % points.len()];
                let tag = format!("{}-{}-{round}", point.name, name).replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                let figures = bench.traffic(&point.running, &traffic, &tag);
                samples.push(sample(round, &cell(family, name), &point.name, figures));
                if is_interrupted() {
                    bail!("interrupted");
                }
            }
        }
    }
    Ok(samples)
}
