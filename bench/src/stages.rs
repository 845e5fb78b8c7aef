//! What each stage of a request costs: the same load past nobody, a relay of bytes, and Interceptor with as little as its
//! configuration allows, then with one thing more from row to row.

use anyhow::{Result, bail};

use crate::ground::Ground;
use crate::measure::{Bench, Sample};
use crate::ours::{Policies, Shape, policies};
use crate::peers::{Peer, Running};
use crate::points::{self, Point};

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

fn none() -> Result<crate::ours::Ours> {
    bail!("this row is without Interceptor")
}

/// Measures all rows.
pub(crate) fn measure(ground: &Ground, bench: &Bench, record: &str, rounds: usize) -> Result<Vec<Sample>> {
    let rows = STAGES.map(|(name, _)| Ok(Point::new(name, way(ground, name, record)?)));
    points::measure(bench, FAMILY, rows.into_iter().collect::<Result<Vec<_>>>()?, rounds)
}
