//! A run: everything is set up once, then each round measures every cell for everybody in turn, so that what else the
//! machine does meets all alike. What is missing is named; a sample that fails says why and doesn't count.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use interceptor_tests::entra::Entra;

use crate::cells::{CELLS, Cell, What};
use crate::machine::Machine;
use crate::measure::{Bench, Figures, Sample, launch};
use crate::ours::{self, Ours};
use crate::peers::{Peer, Process, Running, Site, Way, part};
use crate::pki::Folder;
use crate::report::{self, Run, say};

/// What is measured.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One short round: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// How many rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each sample counts, in milliseconds.
    #[arg(long, default_value_t = 3000)]
    time: u64,
    /// Only this cell; may be said more than once. `http1-64`, `http1-1`, `http2-64`, `http2-1x64`, `http2-1x1`, `tls`,
    /// `tls-pq`, `json-paths`, `json-detectors`, `bulk`, `memory`, `launch`.
    #[arg(long)]
    cell: Vec<String>,
    /// Only this way to the origin; may be said more than once. `direct`, `relay`, `nginx`, `haproxy`, `sslsplit`,
    /// `mitmproxy`, `interceptor`.
    #[arg(long)]
    peer: Vec<String>,
    /// Keys of Interceptor's `[record]` other than the defaults, such as `payload = "none"`: what the rest costs.
    #[arg(long, default_value = "")]
    record: String,
    /// Where the samples go, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the results into docs/performance.md, and the chart beside it.
    #[arg(long)]
    docs: bool,
    /// Measure nothing: tell what this JSON of an earlier run says.
    #[arg(long)]
    from: Option<PathBuf>,
}

/// Set when somebody pressed Ctrl-C: the load has ended by it, and so does the run, in order.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Measures, and tells.
pub(crate) fn run(options: &Options) -> Result<()> {
    let run = match &options.from {
        Some(path) => Run::read(path)?,
        None => {
            let run = measure(options)?;
            run.write(&options.json.clone().unwrap_or_else(|| report::place(&run.machine)))?;
            run
        }
    };
    report::print(&run)?;
    if options.docs {
        report::document(&run)?;
    }
    let faults = run.samples.iter().filter(|sample| sample.fault.is_some()).count();
    ensure!(faults == 0, "{faults} samples failed");
    Ok(())
}

fn measure(options: &Options) -> Result<Run> {
    ensure!(nix::unistd::geteuid().is_root(), "namespaces and eBPF need root");
    let cells = chosen(&options.cell, CELLS.iter(), |cell: &&Cell| cell.name)?;
    let wanted = chosen(&options.peer, Peer::ALL.into_iter(), |peer| peer.name())?;
    watch_interrupts()?;
    let machine = Machine::here();
    let mut missing = Vec::new();
    let peers: Vec<Peer> = wanted
        .into_iter()
        .filter(|peer| {
            let why = peer.missing();
            if let Some(why) = why {
                say("missing", &format!("{}: not measured; it is {why}", peer.name()));
                missing.push(peer.name().to_owned());
            }
            why.is_none()
        })
        .collect();
    let room = tempfile::Builder::new().prefix("interceptor-bench-").tempdir()?;
    let pki = Folder::make(&room.path().join("pki"))?;
    let (origin, address) = Process::printing(part("origin").arg("--pki").arg(pki.path()))?;
    let site = Site { room: room.path().to_owned(), pki: pki.clone(), origin: address };
    let entra = Entra::start(&[])?;
    let ours = || Ours::start(&site, &entra, &options.record);
    let bearer = ours::token(&entra)?;
    let (rounds, warm, time) = match options.quick {
        true => (1, Duration::from_millis(200), Duration::from_millis(500)),
        false => (options.rounds, Duration::from_millis(500), Duration::from_millis(options.time)),
    };
    let bench = Bench { origin: &origin, pki: &pki, bearer: &bearer, warm, time };
    let mut running = Vec::new();
    for peer in peers {
        match peer.start(&site, &ours) {
            Ok(one) => running.push(one),
            Err(error) if peer.is_peer() => {
                say("missing", &format!("{}: not measured; {error:#}", peer.name()));
                missing.push(peer.name().to_owned());
            }
            Err(error) => return Err(error),
        }
    }
    let mut samples = Vec::new();
    for round in 0..rounds {
        for cell in &cells {
            // Each begins in turn: nobody always comes after the same one.
            for place in 0..running.len() {
                let one = &running[(place + round) % running.len()];
                let found = match cell.what {
                    What::Traffic(traffic) if traffic.is_http2() && !one.peer.speaks_http2() => continue,
                    What::Traffic(traffic) => {
                        let tag = format!("{}-{round}-{}", cell.name, one.peer.name());
                        vec![(one.peer, bench.traffic(one, &traffic, &tag))]
                    }
                    What::Memory if one.peer == Peer::Direct => continue,
                    // One that has done nothing yet: what is left of traffic isn't idle.
                    What::Memory => {
                        let fresh = one.peer.start(&site, &ours);
                        vec![(one.peer, fresh.and_then(|fresh| bench.memory(&fresh, &format!("held-{round}"))))]
                    }
                    What::Launch => launches(one),
                };
                for (peer, figures) in found {
                    samples.push(sample(round, cell, peer, figures));
                }
                if INTERRUPTED.load(Ordering::Relaxed) {
                    bail!("interrupted");
                }
            }
        }
    }
    let settings = format!("{rounds} rounds, {} ms a sample; {}", time.as_millis(), record(&options.record));
    Ok(Run { machine, settings, missing, samples })
}

fn record(keys: &str) -> String {
    if keys.is_empty() { "the record as it comes".into() } else { format!("the record with {keys}") }
}

fn launches(one: &Running) -> Vec<(Peer, Result<Figures>)> {
    let Way::Governed(ours) = &one.way else { return Vec::new() };
    match launch(ours) {
        Ok(found) => found.map(|(peer, figures)| (peer, Ok(figures))).into(),
        Err(error) => vec![(Peer::Ours, Err(error))],
    }
}

fn sample(round: usize, cell: &Cell, peer: Peer, figures: Result<Figures>) -> Sample {
    let (figures, fault) = match figures {
        Ok(figures) => (figures, None),
        Err(error) => (Figures::new(), Some(format!("{error:#}"))),
    };
    let told = match &fault {
        Some(fault) => format!("failed: {fault}"),
        None => figures.iter().map(|(name, value)| format!("{name} {value:.2}")).collect::<Vec<_>>().join(", "),
    };
    say(&format!("{} {}", round + 1, cell.name), &format!("{}: {told}", peer.name()));
    Sample { round, cell: cell.name.to_owned(), peer: peer.name().to_owned(), figures, fault }
}

/// Those that were named; all if none was.
fn chosen<T>(names: &[String], all: impl Iterator<Item = T>, name: impl Fn(&T) -> &str) -> Result<Vec<T>> {
    let all: Vec<T> = all.collect();
    if let Some(unknown) = names.iter().find(|wanted| all.iter().all(|one| name(one) != wanted.as_str())) {
        let known: Vec<&str> = all.iter().map(&name).collect();
        bail!("there is no `{unknown}`; there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|one| names.is_empty() || names.iter().any(|wanted| wanted == name(one))).collect())
}

/// Ctrl-C ends the run in order, so that nothing is left behind.
fn watch_interrupts() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("interrupts".into())
        .spawn(move || {
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        })
        .context("can't start a thread")?;
    Ok(())
}
