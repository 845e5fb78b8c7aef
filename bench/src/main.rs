//! What Interceptor costs, measured beside its peers in one run: `cargo xtask bench` builds this program and calls it.
//! It is also each of its own parts: `bench origin` is the service behind everything, `bench load` asks it, `bench relay`
//! is the physical limit (TLS in, TLS out, nothing else). How it is measured is in docs/performance.md.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod affinity;
mod allocations;
mod asking;
mod cells;
mod chart;
mod ground;
mod growth;
mod load;
mod machine;
mod measure;
mod origin;
mod ours;
mod parts;
mod peers;
mod pki;
mod points;
mod relay;
mod report;
mod rounds;
mod spread;
mod stages;
mod tls;
mod usage;

/// What Interceptor costs, beside its peers.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    run: rounds::Options,
}

#[derive(Subcommand)]
enum Part {
    /// Ask, and tell what came of it (used by the run itself).
    #[command(hide = true)]
    Load(Box<load::Options>),
    /// Answer (used by the run itself).
    #[command(hide = true)]
    Origin(origin::Options),
    /// Pass bytes on (used by the run itself).
    #[command(hide = true)]
    Relay(relay::Options),
}

fn main() -> ExitCode {
    let Arguments { part, run } = Arguments::parse();
    let outcome = match part {
        None => rounds::run(&run),
        Some(Part::Load(options)) => load::load(*options),
        Some(Part::Origin(options)) => origin::serve(&options),
        Some(Part::Relay(options)) => relay::serve(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say("error", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
