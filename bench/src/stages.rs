//! What each stage of a request costs: the same load past nobody, a relay of bytes, and Interceptor with as little as its
//! configuration allows, then with one thing more from row to row.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::allocations::Probes;
use crate::asking::Asking;
use crate::ground::Ground;
use crate::measure::{Bench, Figures, Sample};
use crate::ours::{Ours, Policies, Shape, policies};
use crate::peers::{Peer, Running, Way};
use crate::points::{self, Point};
use crate::report::say;
use crate::rounds::sample;

/// What the samples' cells begin with.
pub(crate) const FAMILY: &str = "stages";

/// Each row: its name in the JSON, and for people.
pub(crate) const STAGES: [(&str, &str); 7] = [
    ("direct", "direct"),
    ("relay", "TLS in, TLS out, bytes"),
    ("least", "interceptor: HTTP, one policy, verdict and outcome recorded"),
    ("identity", "and a bound token (five policies)"),
    ("policies", "and 200 policies, ten asked"),
    ("mask", "and a mask of three paths"),
    ("payload", "and requests and answers kept: all"),
];

/// The cell of allocations.
pub(crate) const ALLOCATIONS: &str = "allocations";
/// The requests of the two loads whose difference is counted.
const FEW: u64 = 300;
const MANY: u64 = 2_300;
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(120);

const PAYLOAD_NONE: &str = "payload = \"none\"";

/// The way that a row is measured on; `record` are keys of `[record]` where it is whole.
fn way(ground: &Ground, name: &str, record: &str) -> Result<Running> {
    let many = Policies::Many(policies::USUAL);
    let (policies, is_masked, record) = match name {
        "direct" => return Peer::Direct.start(&ground.site, &none),
        "relay" => return Peer::Relay.start(&ground.site, &none),
        "least" => (Policies::One, false, PAYLOAD_NONE),
        "identity" => (Policies::Bound, false, PAYLOAD_NONE),
        "policies" => (many, false, PAYLOAD_NONE),
        "mask" => (many, true, PAYLOAD_NONE),
        _ => (many, true, record),
    };
    let shape = Shape { policies, is_masked, ..Shape::usual(record) };
    Ok(Running::governed(ground.ours(&shape)?))
}

fn none() -> Result<Ours> {
    bail!("this row is without Interceptor")
}

/// Measures all rows.
pub(crate) fn measure(ground: &Ground, bench: &Bench, record: &str, rounds: usize) -> Result<Vec<Sample>> {
    let rows = STAGES.map(|(name, _)| Ok(Point::new(name, way(ground, name, record)?)));
    let points = rows.into_iter().collect::<Result<Vec<_>>>()?;
    let mut samples = points::measure(bench, FAMILY, &points, rounds)?;
    match Probes::place(&ground.site.room) {
        Ok(probes) => {
            for point in &points {
                if let Way::Governed(ours) = &point.running.way {
                    let figures = allocations(&probes, ground, ours, &point.name);
                    samples.push(sample(0, &points::cell(FAMILY, ALLOCATIONS), &point.name, figures));
                }
            }
        }
        Err(error) => say("missing", &format!("allocations: not counted; {error:#}")),
    }
    Ok(samples)
}

/// The calls for one request: what so many requests take more than a few, so that launch and handshakes don't count.
fn allocations(probes: &Probes, ground: &Ground, ours: &Ours, name: &str) -> Result<Figures> {
    let traffic = points::traffic("http1-1")?;
    let bench = ground.bench(Duration::ZERO, PATIENCE);
    let count = |most: u64| {
        let mut arguments = bench.arguments(&traffic, "http1", &format!("{name}-allocations-{most}"));
        arguments.extend(["--most".to_owned(), most.to_string()]);
        probes.count(ours.daemon.pid()?, || {
            let mark = ours.mark()?;
            let mut asking = Asking::start(ours.load(&arguments)?)?;
            asking.expect("begin")?;
            asking.expect("end")?;
            let tally = asking.tally()?;
            ensure!(tally.failed == 0, "{} failed: {}", tally.failed, tally.fault.unwrap_or_default());
            let (rows, _) = ours.rows(mark, tally.sent)?;
            ensure!(rows == tally.sent, "{rows} rows for {} requests", tally.sent);
            Ok(tally.sent)
        })
    };
    let ((few, before), (many, after)) = (count(FEW)?, count(MANY)?);
    let each = |prefix: &str| {
        let sum = |calls: &BTreeMap<String, u64>| -> u64 {
            calls.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
        };
        (sum(&after) as f64 - sum(&before) as f64) / (many - few) as f64
    };
    let figures = [
        ("workers_allocations", each("worker-")),
        ("writer_allocations", each("record")),
        ("requests", (few + many) as f64),
        ("rows", (few + many) as f64),
    ];
    Ok(figures.map(|(name, value)| (name.to_owned(), value)).into())
}
