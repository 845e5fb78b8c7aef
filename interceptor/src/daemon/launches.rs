//! The launched workloads as the daemon holds them: begun for a caller, found again after a restart, and cleaned up when
//! they end. Namespaces and process 1 are the launcher's; here they get their sockets, their steering and their
//! resolver.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use super::adoptions::Adoptions;
use super::engage::EngageError;
use super::ledger::Recorded;
use super::publish;
use super::reaper::Reaper;
use super::reload::OwnJournal;
use super::service::Store;
use super::watchdog;
use crate::bpf::{Kernel, Listeners, UnixSockets};
use crate::config::{Level, Paths, Settings};
use crate::control::protocol::Run;
use crate::ids::LaunchId;
use crate::launch::{self, Caller, Program, Revived, Running, Trust};
use crate::pipeline::{CurrentLookup, Lookups, Order, Pipeline};
use crate::record::event::What;
use crate::transport::accept::Acceptor;
use crate::transport::authority::Authority;
use crate::transport::names::Names;
use crate::transport::namespace;
use crate::transport::resolver::{Gate, Resolver};
use crate::transport::taken::Taken;
use crate::transport::trust::{self, Roots, TrustError};
use crate::who::Workload;

mod counts;

/// What launches need of the daemon.
pub(super) struct Parts {
    pub(super) kernel: Arc<Kernel>,
    pub(super) acceptor: Acceptor,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) gate: Arc<dyn Gate>,
    pub(super) journal: OwnJournal,
    pub(super) store: Store,
    /// The parent of the workloads' cgroups.
    pub(super) cgroup: PathBuf,
    pub(super) paths: Paths,
    pub(super) trust: Trust,
}

/// The launched workloads.
pub(super) struct Launches {
    parts: Arc<Parts>,
    adoptions: Arc<Adoptions>,
    counted: Arc<Recorded>,
    /// The resolver's own runtime: what the daemon looks up may block it for a moment.
    resolving: Handle,
    reaper: Reaper,
    live: Mutex<HashMap<LaunchId, Live>>,
    still: Mutex<watchdog::Still>,
    _stop_resolving: oneshot::Sender<()>,
}

struct Live {
    /// The listeners of its published ports.
    published: Vec<AbortHandle>,
    /// How many of its connections were taken.
    taken: Arc<Taken>,
    workload: Arc<Workload>,
    resolving: AbortHandle,
    about: About,
}

/// What is told of a launch besides its workload.
#[derive(Debug, Clone, Default)]
struct About {
    command: String,
    started: Option<jiff::Timestamp>,
}

/// Writes what workloads are to trust: the merged bundle, and our authority alone.
pub(super) fn write_trust(runtime: &Path, roots: &Roots, authority: &Authority) -> Result<Trust, TrustError> {
    let files = Trust { bundle: runtime.join("trust.pem"), authority: runtime.join("authority.pem") };
    roots.write_bundle(authority.certificate_pem(), &files.bundle)?;
    trust::write(authority.certificate_pem(), &files.authority)?;
    Ok(files)
}

impl Launches {
    pub(super) fn new(parts: Parts) -> Result<Arc<Self>, EngageError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let resolving = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name("resolver".into()).spawn(move || {
            // Either way it is the end: told so, or the daemon is gone.
            let _ = runtime.block_on(stopped);
        })?;
        let parts = Arc::new(parts);
        let counted = Arc::new(Recorded::default());
        let adoptions = Arc::new(Adoptions::new(Arc::clone(&parts), Arc::clone(&counted), resolving.clone())?);
        let reaper = Reaper::start()?;
        Ok(Arc::new(Self {
            parts,
            adoptions,
            counted,
            resolving,
            reaper,
            live: Mutex::default(),
            still: Mutex::default(),
            _stop_resolving: stop,
        }))
    }

    /// Launches a command for a caller. Blocks for milliseconds; the returned descriptor is the caller's channel to
    /// process 1.
    ///
    /// # Errors
    /// Why there was no launch; nothing is left of it then.
    pub(super) fn launch(
        self: &Arc<Self>,
        caller: Caller,
        run: Run,
        stdio: [OwnedFd; 3],
    ) -> Result<(LaunchId, OwnedFd), EngageError> {
        let settings = Arc::clone(&self.parts.pipeline.worlds.borrow().snapshot.settings);
        let chosen =
            launch::choose(&settings.workloads, &caller, run.workload.as_ref(), run.user.as_deref(), &run.argv)?;
        let (channel, client) = launch::channel::pair()?;
        let id = LaunchId::new();
        let command = run.argv.first().map(|file| String::from_utf8_lossy(file).into_owned()).unwrap_or_default();
        let about = About { command: command.clone(), started: Some(self.parts.journal.now()) };
        let paths = &self.parts.paths;
        let config = paths.config.parent().map(Path::to_owned);
        let prepared = launch::prepare(launch::Order {
            id,
            settings: chosen,
            caller,
            argv: run.argv,
            env: run.env,
            tty: run.tty,
            stdio,
            channel,
            workloads: self.parts.cgroup.clone(),
            folder: self.folder(id),
            trust: self.parts.trust.clone(),
            hidden: config
                .into_iter()
                .chain([paths.policy.clone(), paths.state.clone(), paths.runtime.clone()])
                .collect(),
            program: Program::Own,
        })?;
        if let (Some(workload), Some(netns)) = (prepared.workload(), prepared.netns()) {
            let (workload, holes) = (Arc::clone(workload), self.holes(workload));
            if !holes.is_empty() && workload.settings.containment == Level::Contained {
                return Err(EngageError::NotContained(holes.join("; ")));
            }
            Taken::begin(&workload.folder);
            self.engage(&workload, netns, about).inspect_err(|_| self.disengage(workload.id))?;
            let started = What::WorkloadStarted {
                launch: id,
                workload: workload.settings.name.clone(),
                initiator: workload.initiator,
                loginuid: workload.loginuid,
                uid: workload.uid,
                pid: workload.init,
                command,
                containment: with_holes(&holes),
            };
            self.parts.journal.record(started).inspect_err(|_| self.disengage(id))?;
        }
        let running = prepared.go().inspect_err(|_| self.disengage(id))?;
        self.await_end(running)?;
        Ok((id, client))
    }

    /// Finds again the workloads that outlived an earlier daemon, and records the end of those that didn't.
    pub(super) fn revive(self: &Arc<Self>) {
        let folders = std::fs::read_dir(self.parts.paths.runtime.join("workloads"));
        let found = folders.into_iter().flatten().flatten();
        let mut unreadable = BTreeSet::new();
        for id in found.filter_map(|entry| entry.file_name().to_str()?.parse::<LaunchId>().ok()) {
            // Ended or not, it is told from this what the ledger is about.
            let taken = Taken::left(&self.folder(id)).ok();
            if let Some(taken) = &taken {
                self.parts.kernel.know(id, taken.netns());
            }
            let running = match launch::revive(&self.folder(id)) {
                Revived::Lives(running) => running,
                Revived::Unreadable(why) if self.has_processes(id) => {
                    tracing::error!(why, launch = %id, "a workload lives of which this version can't read what it is; it can connect to nothing");
                    unreadable.insert(id);
                    continue;
                }
                Revived::Unreadable(_) => {
                    self.conclude(id, None, taken);
                    continue;
                }
                Revived::Ended(name) => {
                    self.conclude(id, name, taken);
                    continue;
                }
            };
            let workload = Arc::clone(running.workload());
            if let Err(error) = self.engage(&workload, running.netns(), About::default()) {
                tracing::error!(%error, launch = %id, "a workload that lives can't be served; it can connect to nothing");
            }
            // An earlier daemon may have ended while it stood still.
            watchdog::freeze(&workload, false);
            if let Err(error) = self.await_end(running) {
                tracing::error!(%error, launch = %id, "the end of a workload can't be awaited");
            }
        }
        self.sweep();
        match self.parts.kernel.launches() {
            Ok(pinned) => pinned
                .into_iter()
                .filter(|id| !self.lives(*id) && !unreadable.contains(id))
                .for_each(|id| self.release(id)),
            Err(error) => tracing::warn!(%error, "the pins of earlier launches can't be read"),
        }
        if let Err(error) = self.parts.kernel.sweep() {
            tracing::warn!(%error, "what the kernel holds for earlier launches can't be removed");
        }
    }

    /// Lets go of the sockets that a service manager kept for workloads that have ended.
    pub(super) fn let_go_of_the_rest(&self) {
        self.parts.store.let_go_of_the_rest();
    }

    /// Removes the cgroups, and ends what is in them, of launches that have no folder: a daemon was killed between making
    /// the one and the other.
    fn sweep(&self) {
        let cgroups = std::fs::read_dir(&self.parts.cgroup).into_iter().flatten().flatten();
        for id in cgroups.filter_map(|entry| entry.file_name().to_str()?.parse::<LaunchId>().ok()) {
            if !self.lives(id) && !self.folder(id).exists() {
                launch::discard(&self.parts.cgroup.join(id.to_string()), &self.folder(id));
            }
        }
    }

    /// The workloads that are adopted.
    pub(super) fn adoptions(&self) -> &Arc<Adoptions> {
        &self.adoptions
    }

    /// Brings new settings to live workloads: the loopback ports that targets name, and what is adopted.
    ///
    /// # Errors
    /// Not all can be adopted.
    pub(super) fn follow(&self, settings: &Settings) -> Result<(), EngageError> {
        let adopted = self.adoptions.follow(settings);
        let adopted = adopted.inspect_err(|error| tracing::error!(%error, "workloads can't be adopted"));
        self.follow_ports(settings);
        adopted
    }

    fn follow_ports(&self, settings: &Settings) {
        let ports: Vec<u16> = settings.targets.loopback_ports().collect();
        let launches: Vec<LaunchId> = self.live().keys().copied().collect();
        for launch in launches {
            if let Err(error) = self.parts.kernel.set_loopback_ports(launch, &ports) {
                tracing::error!(%error, %launch, "the loopback ports of a workload can't be set");
            }
        }
    }

    /// Closes the listeners and resolvers of all workloads; the workloads live on.
    pub(super) fn close(&self) {
        for (launch, live) in self.live().iter() {
            self.parts.acceptor.remove(*launch);
            live.resolving.abort();
            live.published.iter().for_each(AbortHandle::abort);
        }
        self.adoptions.close();
    }

    /// The launched workloads.
    pub(super) fn workloads(&self) -> Vec<Arc<Workload>> {
        self.live().values().map(|live| Arc::clone(&live.workload)).collect()
    }

    pub(super) fn kernel(&self) -> &Kernel {
        &self.parts.kernel
    }

    /// The parent of the launched workloads' cgroups.
    pub(super) fn parent(&self) -> &Path {
        &self.parts.cgroup
    }

    /// Those that stand still.
    pub(super) fn still(&self) -> std::sync::MutexGuard<'_, watchdog::Still> {
        self.still.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what isn't a connection's is recorded.
    pub(super) fn journal(&self) -> &OwnJournal {
        &self.parts.journal
    }

    /// The programs of others that rewrite connects of the whole host, where something is adopted.
    pub(super) fn rewriters(&self) -> Vec<String> {
        self.adoptions.rewriters()
    }

    /// What the kernel leaves open under every workload.
    pub(super) fn kernel_holes(&self) -> Vec<&'static str> {
        match self.parts.kernel.unix_sockets() {
            UnixSockets::Filtered | UnixSockets::Denied => Vec::new(),
            UnixSockets::Open => vec![
                "this kernel can't refuse pathname unix sockets (Linux 6.7 can); the filesystem view hides the usual ones",
            ],
        }
    }

    fn holes(&self, workload: &Workload) -> Vec<&'static str> {
        let mut holes = workload.settings.holes();
        holes.extend(self.kernel_holes());
        holes
    }

    /// Opens a workload's sockets, steers its connections to them, and answers its look-ups.
    fn engage(&self, workload: &Arc<Workload>, netns: BorrowedFd<'_>, about: About) -> Result<(), EngageError> {
        let Parts { kernel, acceptor, pipeline, gate, .. } = &*self.parts;
        let world = Arc::clone(&pipeline.worlds.borrow());
        let settings = &world.snapshot.settings;
        // While there is no launched workload nobody watches the hooks.
        let missing = kernel.missing();
        if !missing.is_empty() {
            tracing::error!(?missing, "hooks are gone; they are put back before a workload is served");
            kernel.repair(&self.parts.cgroup)?;
        }
        let name = workload.id.to_string();
        let sockets = match self.parts.store.take(&name) {
            Some(sockets) => sockets,
            None => {
                let sockets = namespace::open(netns)?;
                self.parts.store.keep(&name, &sockets);
                sockets
            }
        };
        let listeners = Listeners { v4: &sockets.tcp4, v6: &sockets.tcp6 };
        let ports: Vec<u16> = settings.targets.loopback_ports().collect();
        let cookie = kernel.steer(workload.id, netns, &listeners, &ports)?;
        kernel.allow_unix(cookie, &workload.settings.unix)?;
        let taken = acceptor.taken(workload);
        taken.note_netns(cookie);
        let (established, waiting) = self.answered(workload.id, &sockets)?;
        taken.resume(established, waiting);

        let names = Arc::new(Names::open(&workload.folder, settings.limits.names)?);
        let lookup = Arc::new(CurrentLookup::new(pipeline.worlds.clone()));
        let resolver =
            Resolver::new(Arc::clone(workload), Arc::clone(&names), Arc::clone(gate), lookup, Arc::clone(&taken));
        pipeline.directory.enter(workload.id, Lookups { names, resolver: Arc::clone(&resolver) });
        let serving = resolver.serve_udp(vec![sockets.dns4, sockets.dns6]);
        let resolving = self.resolving.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "a workload's resolver ended");
            }
        });
        let published = self.publish(workload, netns)?;
        let live =
            Live { published, taken, workload: Arc::clone(workload), resolving: resolving.abort_handle(), about };
        self.live().insert(workload.id, live);
        // A load that came in between didn't see this launch.
        let now = Arc::clone(&pipeline.worlds.borrow());
        if now.snapshot.generation != world.snapshot.generation {
            self.follow_ports(&now.snapshot.settings);
        }
        acceptor.add(Arc::clone(workload), sockets.tcp4, sockets.tcp6, settings.limits.connections)?;
        Ok(())
    }

    /// Opens the published ports of a workload to callers.
    fn publish(&self, workload: &Arc<Workload>, netns: BorrowedFd<'_>) -> Result<Vec<AbortHandle>, EngageError> {
        let mut listeners = Vec::new();
        for publish in &workload.settings.publish {
            let listener = publish::listen(publish).map_err(|error| EngageError::Publish(publish.outside, error))?;
            listeners.push((listener, *publish));
        }
        if listeners.is_empty() {
            return Ok(Vec::new());
        }
        let published = Arc::new(publish::Published {
            workload: Arc::clone(workload),
            netns: Arc::new(netns.try_clone_to_owned()?),
            registry: Arc::clone(&self.parts.pipeline.registry),
            callers: Arc::clone(&self.parts.pipeline.callers),
            journal: self.parts.journal.clone(),
            calls: Arc::new(Semaphore::new(self.parts.pipeline.worlds.borrow().snapshot.settings.limits.connections)),
        });
        let serving = listeners.into_iter().map(|(listener, publish)| {
            self.resolving.spawn(publish::serve(listener, publish, Arc::clone(&published))).abort_handle()
        });
        Ok(serving.collect())
    }

    /// Undoes [`engage`](Self::engage).
    fn disengage(&self, launch: LaunchId) {
        self.parts.acceptor.remove(launch);
        self.parts.pipeline.registry.tell_launch(launch, Order::Cut("workload-ended"));
        self.parts.pipeline.directory.leave(launch);
        if let Some(live) = self.live().remove(&launch) {
            live.resolving.abort();
            live.published.iter().for_each(AbortHandle::abort);
        }
        self.parts.acceptor.forget(launch);
        self.parts.store.let_go(&launch.to_string());
        self.release(launch);
    }

    fn release(&self, launch: LaunchId) {
        if let Err(error) = self.parts.kernel.release(launch) {
            tracing::warn!(%error, %launch, "what was pinned for a workload can't be removed");
        }
    }

    /// Once the workload has ended, records that and cleans up.
    fn await_end(self: &Arc<Self>, running: Running) -> Result<(), EngageError> {
        let launches = Arc::clone(self);
        let pidfd = running.pidfd().try_clone_to_owned()?;
        self.reaper.once_ended(pidfd, move || {
            let launch = running.workload().id;
            launches.note_last(launch);
            launches.parts.journal.note(What::WorkloadEnded { launch, status: status(&running) });
            launches.disengage(launch);
            running.clean_up();
        })?;
        Ok(())
    }

    /// Whether a launch is served.
    pub(super) fn lives(&self, launch: LaunchId) -> bool {
        self.live().contains_key(&launch)
    }

    fn folder(&self, launch: LaunchId) -> PathBuf {
        self.parts.paths.runtime.join("workloads").join(launch.to_string())
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<LaunchId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The level for the record, with what lowers it.
fn with_holes(holes: &[&'static str]) -> String {
    match holes {
        [] => containment(holes).into(),
        holes => format!("{}: {}", containment(holes), holes.join("; ")),
    }
}

fn containment(holes: &[&'static str]) -> &'static str {
    if holes.is_empty() { "contained" } else { "steered" }
}

/// How process 1 ended, as far as we are its parent: after a restart of the daemon nobody is.
fn status(running: &Running) -> String {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::PIDFd(running.pidfd().as_fd()), flags) {
        Ok(WaitStatus::Exited(_, code)) => format!("exit {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("signal {}", signal as i32),
        _ => "unknown".into(),
    }
}
