//! How the cost of a request grows: with policies, with connections that stand idle beside it, with what is recorded
//! already, and with workloads that live beside its own. Of each curve all points run at once and are measured in turn.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::asking::Asking;
use crate::cells::Traffic;
use crate::ground::Ground;
use crate::measure::{Bench, Figures, Sample};
use crate::origin;
use crate::ours::{Ours, Policies, Shape, policies};
use crate::peers::Running;
use crate::points::{self, Point};
use crate::report::say;
use crate::rounds::sample;

/// Files that the daemon has open for a connection that rests and that the origin has closed, and besides those: some thousand
/// connections that were just made are open at both ends.
const FILES_EACH: usize = 1;
const FILES: usize = 9_000;
/// How many workloads are started at once.
const STARTS: usize = 10;
/// How long filling the record may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How many requests fill it at a time; then the writer gets to its end, so that a daemon can always be stopped.
const PIECE: usize = 100_000;
/// While the record is filled, the writer may fall behind as far as it does.
const BACKLOG: &str = "backlog = \"32GiB\"\nbacklog_age = \"1h\"\n";

/// The cell of loading policies, and its figure.
pub(crate) const LOADING: &str = "load";
pub(crate) const LOAD_S: &str = "load_s";

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    Policies,
    Connections,
    Record,
    Workloads,
}

impl Curve {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 4] = [Self::Policies, Self::Connections, Self::Record, Self::Workloads];

    /// Its name on the command line and in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Connections => "connections",
            Self::Record => "record",
            Self::Workloads => "workloads",
        }
    }

    /// Its name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Policies => "policies, of which a request is decided on ten",
            Self::Connections => "idle connections beside",
            Self::Record => "operations recorded before",
            Self::Workloads => "live workloads, each with a connection",
        }
    }

    /// What the samples' cells begin with.
    pub(crate) fn family(self) -> String {
        format!("growth/{}", self.name())
    }

    /// Its steps, the smallest first.
    fn steps(self, is_quick: bool) -> &'static [usize] {
        match (self, is_quick) {
            (Self::Policies, false) => &[policies::FEWEST, 100, 1_000, 10_000],
            (Self::Policies, true) => &[policies::FEWEST, 1_000],
            (Self::Connections, false) => &[0, 1_000, 10_000],
            (Self::Connections, true) => &[0, 1_000],
            (Self::Record, false) => &[0, 10_000, 100_000, 1_000_000],
            (Self::Record, true) => &[0, 5_000],
            (Self::Workloads, false) => &[1, 20, 200],
            (Self::Workloads, true) => &[1, 20],
        }
    }
}

/// Measures a curve; `record` are keys of `[record]`, `files` how many may be open.
pub(crate) fn measure(
    curve: Curve,
    ground: &Ground,
    bench: &Bench,
    (record, files): (&str, u64),
    (rounds, is_quick): (usize, bool),
) -> Result<Vec<Sample>> {
    let (usual, start) = (Shape::usual(record), Instant::now());
    let steps = curve.steps(is_quick);
    let mut samples = Vec::new();
    let points = match curve {
        Curve::Policies => {
            let mut points = Vec::new();
            for step in steps {
                let (point, loading) = governed_by(ground, &usual, *step)?;
                samples.push(sample(0, &points::cell(&curve.family(), LOADING), &step.to_string(), loading));
                points.extend(point);
            }
            Ok(points)
        }
        Curve::Connections => each(steps, |step| idle(ground, bench, &usual, step, files)),
        Curve::Record => filled(ground, steps, &usual),
        Curve::Workloads => each(steps, |step| live(ground, bench, &usual, step)),
    }?;
    say("growth", &format!("{}: set up in {} s", curve.name(), start.elapsed().as_secs()));
    samples.extend(points::measure(bench, &curve.family(), &points, rounds)?);
    points.into_iter().try_for_each(Point::end)?;
    Ok(samples)
}

fn each(steps: &[usize], point: impl FnMut(usize) -> Result<Point>) -> Result<Vec<Point>> {
    steps.iter().copied().map(point).collect()
}

const fn held(connections: usize) -> Traffic {
    Traffic { how: "hold", connections, streams: 1, path: "users", one_core: false, post_quantum: true }
}

/// So many policies, and how long they took to be loaded. Where they can't be, that is told, and there is no point.
fn governed_by(ground: &Ground, usual: &Shape, step: usize) -> Result<(Option<Point>, Result<Figures>)> {
    let shape = Shape { policies: Policies::Many(step), ..usual.clone() };
    // All of them may take longer to load than a daemon may take to start.
    let ours = ground.ours_with(Policies::Many(policies::FEWEST), &shape)?;
    Ok(match ours.load_policies() {
        Ok(took) => {
            let figures = [(LOAD_S.to_owned(), took.as_secs_f64())].into();
            (Some(Point::new(step.to_string(), Running::governed(ours))), Ok(figures))
        }
        Err(error) => (None, Err(error)),
    })
}

/// Idle connections beside the load, as many as files allow.
fn idle(ground: &Ground, bench: &Bench, usual: &Shape, step: usize, files: u64) -> Result<Point> {
    let most = usize::try_from(files)?.saturating_sub(FILES) / FILES_EACH;
    if step > most {
        say("growth", &format!("only {most} connections, not {step}: no more than {files} files may be open"));
    }
    let count = step.min(most);
    let ours = ground.ours(&Shape { connections: 16_384, ..usual.clone() })?;
    let mut beside = Vec::new();
    if count > 0 {
        let mark = ours.mark()?;
        beside.push(stand(ours.load(&bench.arguments(&held(count), "hold", origin::IDLE))?)?);
        has_rows(&ours, mark, count as u64)?;
    }
    Ok(Point { name: count.to_string(), running: Running::governed(ours), beside })
}

/// So many workloads live, the load's own included; each has a connection.
fn live(ground: &Ground, bench: &Bench, usual: &Shape, step: usize) -> Result<Point> {
    let ours = ground.ours(&Shape { others: step - 1, ..usual.clone() })?;
    let mark = ours.mark()?;
    let numbers: Vec<usize> = (0..step - 1).collect();
    let mut beside = Vec::new();
    for few in numbers.chunks(STARTS) {
        let start = |number: &usize| {
            let arguments = bench.arguments(&held(1), "hold", &format!("live{number}"));
            Asking::start(ours.load_beside(*number, &arguments)?)
        };
        let mut started = few.iter().map(start).collect::<Result<Vec<_>>>()?;
        started.iter_mut().try_for_each(|one| one.expect("begin"))?;
        beside.append(&mut started);
    }
    has_rows(&ours, mark, numbers.len() as u64)?;
    Ok(Point { name: step.to_string(), running: Running::governed(ours), beside })
}

/// Records that hold so many operations: all made by one daemon under load, which is stopped at each step so that the
/// daemon of the step can be given a copy.
fn filled(ground: &Ground, steps: &[usize], usual: &Shape) -> Result<Vec<Point>> {
    let shape = Shape { record: usual.record.clone() + "\n" + BACKLOG, ..usual.clone() };
    let mut source = ground.ours(&shape)?;
    let (last, earlier) = steps.split_last().context("a curve has steps")?;
    let (mut points, mut has) = (Vec::new(), 0);
    for step in earlier {
        has += fill(ground, &source, *step, has)?;
        let mut copy = ground.ours(&shape)?;
        if *step > 0 {
            source.daemon.stop()?;
            copy.daemon.stop()?;
            take_over(&source, &copy)?;
            source.daemon.restart()?;
            copy.daemon.restart()?;
        }
        points.push(Point::new(step.to_string(), Running::governed(copy)));
    }
    fill(ground, &source, *last, has)?;
    // As the others, it hasn't done anything since its start.
    source.daemon.stop()?;
    source.daemon.restart()?;
    points.push(Point::new(last.to_string(), Running::governed(source)));
    Ok(points)
}

/// Lets the daemon's record grow to `step` operations, of which it has some; gives how many were added.
fn fill(ground: &Ground, ours: &Ours, step: usize, has: usize) -> Result<usize> {
    let mut added = 0;
    while has + added < step {
        added += add(ground, ours, (step - has - added).min(PIECE), has + added)?;
    }
    Ok(added)
}

/// Adds so many operations, or a few more, to those that there are.
fn add(ground: &Ground, ours: &Ours, missing: usize, has: usize) -> Result<usize> {
    let (start, mark) = (Instant::now(), ours.mark()?);
    let traffic = points::traffic("http1-64")?;
    let mut arguments = ground.bench(Duration::ZERO, PATIENCE).arguments(&traffic, "http1", &format!("fill{has}"));
    arguments.extend(["--most".to_owned(), missing.to_string()]);
    let mut asking = Asking::start(ours.load(&arguments)?)?;
    asking.expect("begin")?;
    asking.expect("end")?;
    let tally = asking.tally()?;
    ensure!(tally.failed == 0, "{} failed: {}", tally.failed, tally.fault.unwrap_or_default());
    let asked = start.elapsed();
    has_rows(ours, mark, tally.sent)?;
    let [asked, all] = [asked, start.elapsed()].map(|time| time.as_secs());
    say("growth", &format!("record: {} operations beside {has}, asked in {asked} s, recorded in {all} s", tally.sent));
    Ok(usize::try_from(tally.sent)?)
}

/// Copies the state of one daemon to another's place; both are stopped.
fn take_over(from: &Ours, to: &Ours) -> Result<()> {
    let [from, to] = [from, to].map(|ours| ours.daemon.room().join("state"));
    std::fs::remove_dir_all(&to)?;
    let status = Command::new("cp").arg("--archive").arg("--reflink=auto").arg(&from).arg(&to).status()?;
    ensure!(status.success(), "can't copy `{}`", from.display());
    Ok(())
}

/// A load that holds its connections, once they stand.
fn stand(command: Command) -> Result<Asking> {
    let mut asking = Asking::start(command)?;
    asking.expect("begin")?;
    Ok(asking)
}

/// Waits until exactly so many requests are recorded after the mark.
fn has_rows(ours: &Ours, mark: u64, expected: u64) -> Result<()> {
    let (rows, _) = ours.rows_within(mark, expected, PATIENCE)?;
    ensure!(rows == expected, "{rows} rows for {expected} requests");
    Ok(())
}
