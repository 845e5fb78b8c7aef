//! A run: everything is set up once, then each round measures every cell for everybody in turn, so that what else the
//! machine does meets all alike. What is missing is named; a sample that fails says why and doesn't count.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::cells::{CELLS, Cell, What};
use crate::ground::{self, Ground};
use crate::growth::{self, Curve};
use crate::machine::Machine;
use crate::measure::{Figures, Sample, launch};
use crate::ours::Shape;
use crate::parts;
use crate::peers::{Peer, Running, Way};
use crate::report::{self, Run, say};
use crate::stages;

/// What is measured.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One short round: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// Not the cells, but which part of the work the daemon's CPU time goes to in them, as perf samples it.
    #[arg(long)]
    parts: bool,
    /// Not the cells, but what each stage of a request costs.
    #[arg(long)]
    stages: bool,
    /// Not the cells, but how the cost of a request grows: with policies, idle connections, the record, workloads.
    #[arg(long)]
    growth: bool,
    /// Only this curve of growth; may be said more than once. `policies`, `connections`, `record`, `workloads`.
    #[arg(long, requires = "growth")]
    curve: Vec<String>,
    /// How many rounds; 5 if nobody says, 3 for growth and parts.
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each sample counts, in milliseconds; 2000 if nobody says, 1000 for growth.
    #[arg(long)]
    time: Option<u64>,
    /// Only this cell; may be said more than once. `http1-64`, `http1-1`, `http2-64`, `http2-1x64`, `http2-1x1`, `tls`,
    /// `tls-pq`, `json-paths`, `json-detectors`, `bulk`, `memory`, `launch`.
    #[arg(long)]
    cell: Vec<String>,
    /// Only this way to the origin; may be said more than once. `direct`, `relay`, `nginx`, `haproxy`, `envoy`,
    /// `sslsplit`, `mitmproxy`, `interceptor`.
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

/// How long is measured.
struct Pace {
    rounds: usize,
    warm: Duration,
    time: Duration,
}

impl Options {
    fn pace(&self, (rounds, time): (usize, u64)) -> Pace {
        if self.quick {
            return Pace { rounds: 1, warm: Duration::from_millis(200), time: Duration::from_millis(500) };
        }
        let [warm, time] = [400, self.time.unwrap_or(time)].map(Duration::from_millis);
        Pace { rounds: self.rounds.unwrap_or(rounds), warm, time }
    }

    /// What tells the JSON of this run from that of another kind.
    fn kind(&self) -> String {
        let kinds = [(self.parts, "-parts"), (self.stages, "-stages"), (self.growth, "-growth")];
        kinds.iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, kind)| *kind).collect()
    }
}

/// Measures, and tells.
pub(crate) fn run(options: &Options) -> Result<()> {
    let run = match &options.from {
        Some(path) => Run::read(path)?,
        None => {
            let run = measure(options)?;
            run.write(&options.json.clone().unwrap_or_else(|| report::place(&run.machine, &options.kind())))?;
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
    let curves = chosen(&options.curve, Curve::ALL.into_iter(), |curve| curve.name())?;
    watch_interrupts()?;
    let (machine, start) = (Machine::here(), Instant::now());
    let mut run = Run { machine, settings: String::new(), missing: Vec::new(), samples: Vec::new() };
    // Before anybody is started, so that everybody has them.
    let files = if options.growth { ground::open_many_files()? } else { 0 };
    let ground = Ground::lay()?;
    let told = |pace: &Pace| format!("{} rounds, {} ms a sample", pace.rounds, pace.time.as_millis());
    let mut settings = Vec::new();
    if options.parts {
        let pace = options.pace((3, 2000));
        let bench = ground.bench(pace.warm, pace.time);
        let cells = chosen(&options.cell, CELLS.iter(), |cell: &&Cell| cell.name)?;
        run.samples.extend(parts::measure(&ground, &bench, &options.record, &cells, pace.rounds)?);
        settings.push(format!("parts: {}", told(&pace)));
    }
    if options.stages {
        let pace = options.pace((5, 2000));
        let bench = ground.bench(pace.warm, pace.time);
        run.samples.extend(stages::measure(&ground, &bench, &options.record, pace.rounds)?);
        settings.push(format!("stages: {}", told(&pace)));
    }
    if options.growth {
        let pace = options.pace((3, 1000));
        let bench = ground.bench(pace.warm, pace.time);
        let (with, how) = ((options.record.as_str(), files), (pace.rounds, options.quick));
        for curve in curves {
            run.samples.extend(growth::measure(curve, &ground, &bench, with, how)?);
        }
        settings.push(format!("growth: {}, {files} open files", told(&pace)));
    }
    if !options.parts && !options.stages && !options.growth {
        let pace = options.pace((5, 2000));
        cells(options, &ground, &pace, &mut run)?;
        settings.push(told(&pace));
    }
    settings.push(record(&options.record));
    settings.push(format!("all in {} s", start.elapsed().as_secs()));
    run.settings = settings.join("; ");
    Ok(run)
}

/// Every cell for everybody.
fn cells(options: &Options, ground: &Ground, pace: &Pace, run: &mut Run) -> Result<()> {
    let cells = chosen(&options.cell, CELLS.iter(), |cell: &&Cell| cell.name)?;
    let wanted = chosen(&options.peer, Peer::ALL.into_iter(), |peer| peer.name())?;
    let ours = || ground.ours(&Shape::usual(&options.record));
    let bench = ground.bench(pace.warm, pace.time);
    let mut running = Vec::new();
    for peer in wanted {
        let started = match peer.missing() {
            Some(why) => Err(anyhow::anyhow!("it is {why}")),
            None => peer.start(&ground.site, &ours),
        };
        match started {
            Ok(one) => running.push(one),
            Err(error) if peer.is_peer() => {
                say("missing", &format!("{}: not measured; {error:#}", peer.name()));
                run.missing.push(peer.name().to_owned());
            }
            Err(error) => return Err(error),
        }
    }
    for round in 0..pace.rounds {
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
                        let fresh = one.peer.start(&ground.site, &ours);
                        vec![(one.peer, fresh.and_then(|fresh| bench.memory(&fresh, &format!("held-{round}"))))]
                    }
                    What::Launch => launches(one),
                };
                for (peer, figures) in found {
                    run.samples.push(sample(round, cell.name, peer.name(), figures));
                }
                if is_interrupted() {
                    bail!("interrupted");
                }
            }
        }
    }
    Ok(())
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

/// Keeps what was found, and says it.
pub(crate) fn sample(round: usize, cell: &str, peer: &str, figures: Result<Figures>) -> Sample {
    let (figures, fault) = match figures {
        Ok(figures) => (figures, None),
        Err(error) => (Figures::new(), Some(format!("{error:#}"))),
    };
    let told = match &fault {
        Some(fault) => format!("failed: {fault}"),
        None => figures.iter().map(|(name, value)| format!("{name} {value:.2}")).collect::<Vec<_>>().join(", "),
    };
    say(&format!("{} {cell}", round + 1), &format!("{peer}: {told}"));
    Sample { round, cell: cell.to_owned(), peer: peer.to_owned(), figures, fault }
}

/// Whether somebody pressed Ctrl-C.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
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
