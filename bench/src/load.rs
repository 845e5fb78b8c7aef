//! The load generator: a closed loop on each connection (or each stream of it), one single-threaded runtime per core. It
//! warms up, says `begin`, counts for a fixed time, says `end`, lets what is under way finish, and prints what it counted
//! as JSON. How one connection asks is in [`lane`], the token is fetched in [`token`].

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::affinity;
use lane::{Counts, Lane};

mod lane;
mod token;

/// How long the connections may take to stand: this, and for each of them so much more.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_EACH: Duration = Duration::from_millis(10);

/// What is asked, how, and for how long.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// The host that is asked for.
    #[arg(long)]
    host: String,
    /// Where that is, if not where its name leads.
    #[arg(long)]
    at: Option<SocketAddr>,
    /// The authorities that are trusted; without it those that SSL_CERT_FILE names.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// How it is asked.
    #[arg(long, value_enum)]
    how: How,
    /// Connections.
    #[arg(long)]
    connections: usize,
    /// Streams of each connection.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// The collection that is asked for; `users`, `reports`, `scans` or `drive`.
    #[arg(long)]
    path: String,
    /// What tells this run's paths from those of others.
    #[arg(long)]
    tag: String,
    /// Milliseconds before it counts.
    #[arg(long)]
    warm: u64,
    /// Milliseconds that it counts for.
    #[arg(long)]
    time: u64,
    /// Stop earlier, when so many requests have been sent.
    #[arg(long)]
    most: Option<u64>,
    /// Threads.
    #[arg(long)]
    threads: usize,
    /// The core that it shall keep to.
    #[arg(long)]
    core: Option<usize>,
    /// Don't offer a post-quantum key share.
    #[arg(long)]
    classic: bool,
    /// The token to send.
    #[arg(long)]
    bearer: Option<String>,
    /// The URL of a token endpoint to get it from.
    #[arg(long, conflicts_with = "bearer")]
    login: Option<String>,
    /// The form that asks for the token there.
    #[arg(long, requires = "login")]
    form: Option<String>,
}

/// How it is asked.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// HTTP/1.1 on connections that are kept.
    Http1,
    /// HTTP/2 on connections that are kept.
    Http2,
    /// A new connection for each request.
    Connect,
    /// One request on each connection; then they are held until standard input ends.
    Hold,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// How long it counted.
    pub(crate) seconds: f64,
    /// Requests that were answered in full in this time.
    pub(crate) answered: u64,
    /// Bytes of bodies that came in this time.
    pub(crate) bytes: u64,
    /// All requests that were sent, those before and after as well.
    pub(crate) sent: u64,
    /// Requests and connections that failed, ever.
    pub(crate) failed: u64,
    /// Why the first one failed.
    pub(crate) fault: Option<String>,
    /// The median time of a request, in microseconds.
    pub(crate) p50: f64,
    /// What 99 of 100 take at most.
    pub(crate) p99: f64,
    /// What the first answers were like.
    pub(crate) sample: String,
}

/// The phases of a run; it begins with 0, warming up.
const COUNT: u8 = 1;
const DONE: u8 = 2;

/// What all lanes share.
#[derive(Debug, Default)]
struct Stage {
    phase: AtomicU8,
    /// Connections that stand, and lanes that have given up.
    ready: AtomicUsize,
    broken: AtomicUsize,
    /// Requests that were sent; only counted here where the options say how many there shall be.
    sent: AtomicU64,
    /// Wakes those that hold.
    over: Notify,
}

/// What runs beside a connection runs on its thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Asks, and tells.
pub(crate) fn load(options: Options) -> Result<()> {
    if let Some(core) = options.core {
        affinity::confine_self(core)?;
    }
    // Each connection is a descriptor.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let address = match options.at {
        Some(address) => address,
        None => (options.host.as_str(), 443).to_socket_addrs()?.next().context("the host has no address")?,
    };
    let ca = match &options.ca {
        Some(ca) => ca.clone(),
        None => std::env::var_os("SSL_CERT_FILE").context("no --ca, and no SSL_CERT_FILE")?.into(),
    };
    let bearer = match (&options.bearer, &options.login, &options.form) {
        (Some(bearer), ..) => Some(bearer.clone()),
        (None, Some(url), Some(form)) => Some(token::fetch(url, form, &ca)?),
        _ => None,
    };
    let stage = Arc::new(Stage::default());
    let threads = options.threads.clamp(1, options.connections.max(1));
    let lanes = (0..threads)
        .map(|number| {
            let lane = Lane::new(number, &options, (address, &ca), bearer.as_deref(), Arc::clone(&stage))?;
            let connections = options.connections / threads + usize::from(number < options.connections % threads);
            let spawn = std::thread::Builder::new().name(format!("load-{number}"));
            Ok(spawn.spawn(move || run(lane, connections))?)
        })
        .collect::<Result<Vec<_>>>()?;
    let spent = direct(&options, &stage);
    stage.phase.store(DONE, Ordering::Relaxed);
    stage.over.notify_waiters();
    let mut all = Counts::default();
    for lane in lanes {
        all.add(lane.join().map_err(|_| anyhow::anyhow!("a lane panicked"))??);
    }
    let spent = spent.with_context(|| all.fault().unwrap_or("no connection failed").to_owned())?;
    let tally = all.tally(spent);
    writeln!(io::stdout(), "{}", serde_json::to_string(&tally)?)?;
    Ok(())
}

/// One thread of it.
fn run(lane: Lane, connections: usize) -> Result<Counts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, lane.run(connections)))
}

/// Leads the lanes through the phases; gives how long it was counted.
fn direct(options: &Options, stage: &Stage) -> Result<Duration> {
    let tell = |word: &str| -> io::Result<()> {
        writeln!(io::stdout(), "{word}")?;
        io::stdout().flush()
    };
    let patience = PATIENCE + PATIENCE_EACH * u32::try_from(options.connections)?;
    let deadline = Instant::now() + patience;
    while stage.ready.load(Ordering::Relaxed) < options.connections {
        ensure!(stage.broken.load(Ordering::Relaxed) == 0, "a connection could not be made");
        if Instant::now() > deadline {
            bail!("the connections don't stand after {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if options.how == How::Hold {
        tell("begin")?;
        io::copy(&mut io::stdin().by_ref(), &mut io::sink())?;
        return Ok(Duration::ZERO);
    }
    std::thread::sleep(Duration::from_millis(options.warm));
    let start = Instant::now();
    stage.phase.store(COUNT, Ordering::Relaxed);
    tell("begin")?;
    let time = Duration::from_millis(options.time);
    match options.most {
        None => std::thread::sleep(time),
        Some(most) => {
            while start.elapsed() < time && stage.sent.load(Ordering::Relaxed) < most {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    stage.phase.store(DONE, Ordering::Relaxed);
    let spent = start.elapsed();
    tell("end")?;
    Ok(spent)
}
