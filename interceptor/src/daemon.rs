//! The daemon: what is started in which order, and stopped in which. What it answers on the control socket is in
//! `host`, what becomes of launched workloads in `launches`, how settings and policies come into force in `reload`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::approve::Desk;
use crate::bpf::{BpfError, Kernel};
use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigError, Settings};
use crate::control::{self, SocketError, metrics, server};
use crate::export::{Dialing, ExportError, Exporter};
use crate::identity::Judge;
use crate::identity::provenance::DigestKey;
use crate::ids::GrantId;
use crate::keyfile::{self, KeyFileError};
use crate::mask::BadRule;
use crate::notify::{Notifier, NotifyError};
use crate::pipeline::{ApprovalKey, Directory, Order, Pipeline, RecordingGate, Registry, World, start_workers};
use crate::policy::Origin;
use crate::record::approval::{Approval, Granted};
use crate::record::event::{Payload, What};
use crate::record::{QueryError, Reader, Record, RecordError, Unfinished};
use crate::transport::accept::{self, Acceptor};
use crate::transport::authority::{Authority, AuthorityError};
use crate::transport::fetch::{Fetcher, Memberships};
use crate::transport::trust::{Roots, TrustError};

mod adoptions;
mod cgroup;
mod dense;
mod emergencies;
mod engage;
mod exhibit;
mod gauges;
mod host;
mod launches;
mod ledger;
mod listed;
mod login;
mod payloads;
mod people;
mod publish;
mod reaper;
mod reload;
mod retention;
mod service;
mod slack;
mod status;
mod watchdog;

use cgroup::{CgroupError, Cgroups};
use host::Host;
use launches::{Launches, Parts};
use login::Logins;
use reload::{Loader, OwnJournal};

/// The most proxy workers; more cores than this are left to what they do for others.
const MOST_WORKERS: usize = 8;

/// Connections that may wait for one worker; what comes beyond is reset.
const WORKER_QUEUE: usize = 256;

/// The file in the state folder that has the key of pseudonyms.
const MASK_KEY: &str = "mask.key";
/// The file in the state folder that has the key of what held operations are known by.
const APPROVAL_KEY: &str = "approval.key";
/// How far behind the latest event the clock may be at a start: as far as it is set right now and then.
const STEP: SignedDuration = SignedDuration::from_secs(2);
/// How many denials of earlier daemons are remembered; the latest.
const MOST_DENIED: u32 = 16_384;
/// How often it is looked whether a grant, a question or a sign-in is over; besides when the next of them ends.
const EXPIRY: Duration = Duration::from_secs(1);

/// How long what was cut may take to be gone.
const CUT_PATIENCE: Duration = Duration::from_millis(500);

/// How what a killed daemon had under way is recorded to have ended.
const KILLED: &str = "daemon-killed";
/// How long the last events may take into the database; what doesn't make it is in the journal for the next start.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

pub use engage::EngageError;

/// Why the daemon doesn't start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A detector of the configuration can't be used.
    #[error(transparent)]
    Masks(#[from] BadRule),
    /// The daemon can't keep itself apart from its workloads.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The record can't be opened.
    #[error("the record can't be opened: {0}")]
    Record(#[from] RecordError),
    /// The record can't be read.
    #[error("the record can't be read: {0}")]
    Query(#[from] QueryError),
    /// The certificate authority can't be made or read.
    #[error("the certificate authority can't be opened: {0}")]
    Authority(#[from] AuthorityError),
    /// A key file can't be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The record can't be sent where it is to be sent.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The channels that people are told by can't be used.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// The kernel half can't be loaded.
    #[error("the kernel programs can't be loaded: {0}; `interceptor doctor` tells what is missing")]
    Kernel(#[from] BpfError),
    /// Workloads can't be served.
    #[error("workloads can't be served: {0}")]
    Launches(#[source] EngageError),
    /// There are no roots to verify upstreams against.
    #[error("upstreams can't be verified: {0}")]
    Trust(#[from] TrustError),
    /// A socket is in use, or can't be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A folder, a thread or a signal handler can't be had.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Runs the daemon in the foreground until SIGTERM or SIGINT.
///
/// # Errors
/// Why it doesn't start, or that its last events couldn't be moved in time.
pub fn run(config: &Path) -> Result<(), DaemonError> {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(system("the control runtime"))?.block_on(serve(config))
}

/// Logs to stderr, where a service manager takes it: from `info` up, or as INTERCEPTOR_LOG says.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("INTERCEPTOR_LOG")
        .unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A test that runs the daemon in its own process may have one already.
    let _ = subscriber.try_init();
}

/// Secrets are in this process: it leaves no core, and nobody but root looks into it. The hard limit stays, for the
/// workloads, which get their callers' limits.
fn keep_memory_to_itself() -> std::io::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard)?;
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

async fn serve(config: &Path) -> Result<(), DaemonError> {
    keep_memory_to_itself().map_err(system("closing the daemon's memory to others"))?;
    let settings = Arc::new(Settings::load_trusted(config)?);
    let paths = settings.paths.clone();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for (folder, mode) in [(&paths.state, 0o700), (&paths.runtime, 0o755), (&paths.runtime.join("workloads"), 0o700)] {
        make_folder(folder, mode)?;
    }
    let cgroups = Cgroups::enter(&settings.cgroup)?;
    let listener = control::bind(&paths.control_socket, 0o666, None)?;

    let record = Arc::new(Record::open(&paths.state, &settings.record, Arc::clone(&clock))?);
    let journal = OwnJournal::new(record.journal("control")?, Arc::clone(&clock));
    let authority = Arc::new(Authority::open(&paths.state.join("ca"), Arc::clone(&clock))?);
    let trust = launches::write_trust(&paths.runtime, &Roots::load(&settings.upstream)?, &authority)?;
    let kernel = Arc::new(Kernel::load(&paths.pins, &cgroups.workloads)?);

    // Generations count on over restarts: one number never means two texts.
    let reader = record.reader()?;
    let generation = reader.last_generation()? + 1;
    let unfinished = reader.unfinished()?;
    let uncounted = grants_of(&reader, &unfinished)?;
    conclude(&journal, unfinished);
    let (worlds, watching) = watch::channel(Arc::new(reload::first(&settings, generation, &journal)?));
    let dialing = watching.clone();
    let dialing: Dialing = Arc::new(move || Arc::clone(&dialing.borrow().dialer));
    let exporter = Arc::new(Exporter::start(&settings.exports, &paths.state, &record, &dialing, &clock)?);
    let notifier = notifier(&settings, dialing, &journal, &clock)?;
    let registry = Arc::new(Registry::default());
    let judge = Arc::new(judge(&paths.state, &record, &watching, &clock)?);
    tokio::spawn({
        let judge = Arc::clone(&judge);
        async move { judge.keep_fresh().await }
    });
    let desk = desk(&reader, &journal, &notifier, &uncounted)?;
    // Whoever has it open is in the way of a rotation.
    drop(reader);
    let logins = Arc::new(Logins::new(fetcher(&watching)));
    tokio::spawn(expire(Arc::clone(&desk), Arc::clone(&logins), journal.clone()));
    let gate = RecordingGate::new(Arc::clone(&clock), watching.clone(), Arc::clone(&desk), record.journal("resolver")?);
    let pipeline = Arc::new(Pipeline {
        callers: Arc::default(),
        clock: Arc::clone(&clock),
        worlds: watching.clone(),
        authority,
        judge,
        keys: record.keys(),
        approval_key: ApprovalKey::new(&keyfile::open(&paths.state.join(APPROVAL_KEY))?),
        desk,
        mask_key: *keyfile::open(&paths.state.join(MASK_KEY))?,
        registry: Arc::clone(&registry),
        directory: Directory::default(),
    });

    // First: a counter that is looked up before there is a recorder counts for nobody.
    let metrics_handle = gauges::install().map_err(system("the metrics"))?;
    let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let (seats, queues): (Vec<_>, Vec<mpsc::Receiver<_>>) =
        (0..count).map(|_| accept::Worker::new(WORKER_QUEUE)).unzip();
    start_workers(&pipeline, &record, queues).map_err(system("the workers"))?;
    let acceptor = Acceptor::start(Arc::clone(&kernel), seats).map_err(system("the acceptor"))?;
    let launches = Launches::new(Parts {
        kernel,
        acceptor,
        pipeline: Arc::clone(&pipeline),
        gate: Arc::new(gate),
        journal: journal.clone(),
        store: service::Store::inherited(),
        cgroup: cgroups.workloads.clone(),
        paths: paths.clone(),
        trust,
    })
    .map_err(DaemonError::Launches)?;
    launches.revive();
    launches.adoptions().follow(&settings).map_err(DaemonError::Launches)?;
    launches.let_go_of_the_rest();

    tokio::spawn(ledger::keep(Arc::clone(&launches), Arc::clone(&registry)));
    tokio::spawn(watchdog::keep(Arc::clone(&launches)));
    tokio::spawn(slack::give_back(Arc::clone(&registry)));
    tokio::spawn(dense::keep());
    let metrics_listener = metrics::listen(&paths.metrics_socket, &settings.control)?;
    let gauges = gauges::Gauges::new(&record, &pipeline, &exporter, &notifier);
    tokio::spawn(metrics::serve(metrics_listener, metrics_handle, move || gauges.look()));

    let loader = Arc::new(Loader::new(settings, worlds, journal.clone(), Arc::clone(&launches), Arc::clone(&notifier)));
    journal.note(What::DaemonStarted { version: env!("CARGO_PKG_VERSION").into(), pid: std::process::id() });
    let host = Host::new(
        Arc::clone(&record),
        exporter,
        notifier,
        Arc::clone(&launches),
        Arc::clone(&loader),
        pipeline,
        logins,
    );
    let (stop, stopped) = watch::channel(false);
    let answering = tokio::spawn(server::serve(listener, cgroups.below_root, Arc::new(host), until(stopped)));
    tracing::info!(socket = %paths.control_socket.display(), "serving");
    service::ready();

    let why = until_told_to_stop(&loader).await.map_err(system("signals"))?;
    tracing::info!(why, "stopping");
    service::stopping();
    stop.send_replace(true);
    launches.close();
    let drain_for = watching.borrow().snapshot.settings.limits.drain;
    drain(&registry, drain_for).await;
    if let Ok(Err(error)) = answering.await {
        tracing::warn!(%error, "the control socket did not end well");
    }
    ledger::record(&launches, registry.left(), false).await;
    journal.note(What::DaemonStopped { reason: why.into() });
    record.flush(FLUSH_PATIENCE)?;
    Ok(())
}

/// Who judges tokens: what is recorded of them, and the way to their issuers by the dialler of the moment.
fn judge(
    state: &Path,
    record: &Record,
    worlds: &watch::Receiver<Arc<World>>,
    clock: &Arc<dyn Clock>,
) -> Result<Judge, DaemonError> {
    let recorded = record.reader()?.provenance(clock.now())?;
    let fetcher = fetcher(worlds);
    let settings = worlds.clone();
    let settings = move || Arc::clone(&settings.borrow().snapshot.settings);
    let memberships = Memberships::new(fetcher.clone(), settings, Arc::clone(clock));
    Ok(Judge::new(DigestKey::open(state)?, recorded, Arc::new(fetcher), Arc::new(memberships), Arc::clone(clock)))
}

/// The daemon's own requests, by the dialler of the moment.
fn fetcher(worlds: &watch::Receiver<Arc<World>>) -> Fetcher {
    let worlds = worlds.clone();
    Fetcher::new(move || Arc::clone(&worlds.borrow().dialer))
}

/// Who tells people, by the channels of the configuration. What nobody was told is recorded.
fn notifier(
    settings: &Settings,
    dialing: Dialing,
    journal: &OwnJournal,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Notifier>, DaemonError> {
    let dialer = dialing();
    let journal = journal.clone();
    let report = Arc::new(move |what| journal.note(what));
    let notifier = Notifier::new(dialing, Arc::clone(clock), report, tokio::runtime::Handle::current());
    notifier.apply(notifier.prepare(settings, &dialer)?);
    Ok(Arc::new(notifier))
}

/// The desk, with the grants of the daemon before. Nobody waits any more for what that one asked. What the desk does is
/// told once it is recorded. `uncounted`: grants of which it isn't known how much was used; those of bytes and rows end.
fn desk(
    reader: &Reader,
    journal: &OwnJournal,
    notifier: &Arc<Notifier>,
    uncounted: &BTreeSet<GrantId>,
) -> Result<Arc<Desk>, DaemonError> {
    let since = since(reader.latest()?, journal.now());
    let (ended, granted): (Vec<_>, Vec<_>) = reader
        .live_grants()?
        .into_iter()
        .partition(|one| (one.grant.bytes.is_some() || one.grant.rows.is_some()) && uncounted.contains(&one.grant.id));
    let mut broken = reader.broken(false, u32::MAX)?;
    broken.retain(|one| one.ended_at.is_none());
    granted.iter().for_each(|granted| notifier.remember_grant(&granted.grant));
    let mut denied = reader.denied_approvals(MOST_DENIED)?;
    let mut open = Vec::new();
    for approval in reader.open_approvals()? {
        let approval = reader.approval(&approval.to_string())?;
        notifier.remember(&approval.request);
        let outcome = outcome(&approval, &granted);
        open.push((approval.request.approval, outcome));
        if outcome == "denied" {
            denied.push(Approval { closed_at: Some(journal.now()), ..approval });
        }
    }
    let (journal, notifier) = (journal.clone(), Arc::clone(notifier));
    let record = move |what: What| {
        journal.record(what.clone())?;
        notifier.recorded(journal.now(), &what);
        Ok(())
    };
    for Granted { grant, .. } in ended {
        record(What::GrantEnded { grant: grant.id, reason: KILLED.into(), by: None })?;
    }
    for (approval, outcome) in open {
        record(What::ApprovalClosed { approval, outcome: outcome.into() })?;
    }
    let desk = Desk::new(Box::new(record), granted, broken, since);
    desk.remember_denied(denied, since);
    Ok(desk)
}

/// How an approval ended that a daemon left open: it may have been killed between what came of an answer and saying so.
fn outcome(approval: &Approval, granted: &[Granted]) -> &'static str {
    let id = approval.request.approval;
    let is_of_it = |one: &Granted| matches!(one.grant.origin, Origin::Approval { approval, .. } if approval == id);
    if approval.answers.iter().any(|answer| !answer.yes) {
        "denied"
    } else if granted.iter().any(is_of_it) {
        "granted"
    } else {
        "daemon-restarted"
    }
}

/// From when on what is left of grants counts. Behind a clock that was set back nobody knows how much time has passed: then
/// all is over.
fn since(latest: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let is_set_back = latest.is_some_and(|latest| latest.duration_since(now) > STEP);
    if is_set_back { Timestamp::MAX } else { now }
}

/// Ends what is over, when it is: nothing lasts for less than the time between two ticks, so at one of them each end to come
/// is known. The ticks are for a clock that was set, too, and for what couldn't be recorded.
async fn expire(desk: Arc<Desk>, logins: Arc<Logins>, journal: OwnJournal) {
    let mut ticks = tokio::time::interval(EXPIRY);
    let mut next = None;
    loop {
        let ends = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = ticks.tick() => logins.expire(&journal),
            () = ends => {}
        }
        next = desk.expire(journal.now());
    }
}

/// Waits for SIGTERM or SIGINT; SIGHUP loads settings and policies again.
async fn until_told_to_stop(loader: &Loader) -> std::io::Result<&'static str> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            _ = interrupt.recv() => return Ok("SIGINT"),
            _ = hangup.recv() => match loader.reload(None) {
                Ok(loaded) => tracing::info!(generation = loaded.now.generation, "settings and policies were loaded again"),
                Err(refused) => tracing::error!("refused; the last good settings and policies stay:\n{refused}"),
            },
        }
    }
}

async fn until(mut flag: watch::Receiver<bool>) {
    // A sender that is gone says the same.
    let _ = flag.wait_for(|stopped| *stopped).await;
}

/// Lets what is under way finish, then cuts the rest.
async fn drain(registry: &Registry, patience: Duration) {
    registry.tell_all(Order::Drain);
    let empty = async {
        while !registry.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(patience, empty).await.is_err() {
        registry.tell_all(Order::Cut("daemon-stopped"));
        tokio::time::sleep(CUT_PATIENCE).await;
    }
}

/// The grants that operations used whose ends aren't recorded.
fn grants_of(reader: &Reader, left: &Unfinished) -> Result<BTreeSet<GrantId>, QueryError> {
    let mut grants = BTreeSet::new();
    for operation in &left.operations {
        grants.extend(reader.operation(&operation.to_string())?.basis.grant);
    }
    Ok(grants)
}

/// Records the end of what was under way when an earlier daemon was killed. How far it came is known to nobody.
fn conclude(journal: &OwnJournal, left: Unfinished) {
    for operation in left.operations {
        journal.note(What::OperationFinished {
            operation,
            outcome: KILLED.into(),
            policies: Vec::new(),
            status: None,
            request: Payload::default(),
            response: Payload::default(),
            masked: BTreeMap::new(),
            spent: None,
            service_request: None,
            kept: None,
        });
    }
    for session in left.sessions {
        journal.note(What::SessionClosed { session, reason: KILLED.into(), policies: Vec::new() });
    }
}

fn make_folder(folder: &Path, mode: u32) -> Result<(), DaemonError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(folder);
    made.and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)))
        .map_err(|error| DaemonError::System { what: format!("the folder `{}`", folder.display()), error })
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> DaemonError {
    move |error| DaemonError::System { what: what.into(), error }
}

#[cfg(test)]
mod tests;
