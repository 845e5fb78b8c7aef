//! The adopted workloads as the daemon holds them. A thread looks several times a second which cgroups they are, in which
//! network namespaces they need the daemon's sockets, what their processes may, and what they have that reaches past us.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::look::Gaze;
use self::marks::Marks;
use self::room::Unheld;
use super::engage::EngageError;
use super::launches::Parts;
use super::ledger::Recorded;
use super::watchdog::Standing;
use crate::adopt::{Cgroup, DESCRIPTORS, Engines, Hole, Sockets, Tree};
use crate::bpf::adopt::{Adopter, Doors, Number, State};
use crate::bpf::{BpfError, FilterReader, cgroup2, netns_cookie};
use crate::config::{Level, Settings, WorkloadSettings};
use crate::control::protocol::{AdoptedCgroup, Launched};
use crate::ids::{LaunchId, WorkloadName};
use crate::pipeline::{CurrentLookup, Lookups, Order};
use crate::record::event::{Adoption, Change, What};
use crate::transport::accept::Adopted;
use crate::transport::namespace::{self, Sockets as Opened};
use crate::transport::resolver::Resolver;
use crate::transport::taken::Taken;
use crate::who::{NOBODY, Workload};

mod account;
mod follow;
mod look;
mod marks;
mod room;
mod still;

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(100);

/// How often it looks at what changes rarely.
const SLOWLY: Duration = Duration::from_secs(1);

/// How often it tries again what couldn't be adopted.
const AGAIN: Duration = Duration::from_secs(10);

/// The file that says which adoption of a workload it is.
const ID: &str = "id";

/// Behind the id, once it is recorded that the adoption began.
const BEGUN: &str = "\nbegun\n";

/// The adopted workloads.
pub(super) struct Adoptions {
    parts: Arc<Parts>,
    counted: Arc<Recorded>,
    resolving: Handle,
    tree: Tree,
    adopter: OnceLock<Arc<Adopter>>,
    gaze: Arc<Gaze>,
    held: Mutex<BTreeMap<Number, Held>>,
    /// Why not all is adopted that is to be. Held for the whole of [`follow`](Self::follow): one at a time.
    unmet: Mutex<Option<String>>,
    /// How it is with the workloads that are to be held and aren't.
    unheld: Unheld,
    /// What stands still.
    marks: Marks,
    /// Whether something may stand still that is given up, because who has it now couldn't be found out.
    are_still: AtomicBool,
}

/// One adopted workload.
struct Held {
    workload: Arc<Workload>,
    number: Number,
    /// Which of the configuration's it is.
    place: usize,
    resolver: Arc<Resolver>,
    live: Arc<AtomicUsize>,
    /// How many of its connections were taken.
    taken: Arc<Taken>,
    started: jiff::Timestamp,
    /// The network namespaces in which the daemon has sockets for it, by inode.
    places: BTreeMap<u64, Place>,
    cgroups: BTreeMap<u64, Cgroup>,
    /// Whether they couldn't be looked for the last time.
    is_unfound: bool,
    /// The containers that may be its, of which that couldn't be read the last time, and since when.
    unknown: BTreeMap<u64, Instant>,
    pids: BTreeSet<u32>,
    /// Their network namespaces, by inode, as they were at the last slow look.
    networks: BTreeMap<u32, u64>,
    /// Whether there are processes that weren't judged yet.
    has_new: bool,
    /// Since when there have been processes, at each look, whose manager may not be done with them.
    unfinished: Option<Instant>,
    sockets: Sockets,
    holes: BTreeSet<Hole>,
    /// Sockets that can't be cut.
    open: BTreeSet<Hole>,
    /// What was found of that kind at the last slow look, and is over when it isn't found.
    passing: BTreeSet<Hole>,
    /// A cgroup of its that couldn't be governed the last time, and why.
    ungoverned: Option<String>,
    /// Whether there is such a one that the hooks don't refuse, either, or may be: it stands still.
    is_loose: bool,
    /// Their paths, as far as they were found.
    loose: BTreeSet<String>,
    /// Whether it is in more network namespaces than it may be.
    is_crowded: bool,
    refused: bool,
    /// What is wrong, if it stands still because of that.
    standing: Option<Standing>,
}

/// The daemon's sockets in a network namespace.
struct Place {
    cookie: u64,
    resolving: AbortHandle,
}

impl Held {
    fn level(&self) -> Level {
        let is_open = [&self.holes, &self.open, &self.passing].into_iter().any(|holes| !holes.is_empty());
        if is_open { Level::Steered } else { Level::Contained }
    }

    fn all_holes(&self) -> Vec<String> {
        self.holes.iter().chain(&self.open).chain(&self.passing).map(ToString::to_string).collect()
    }

    fn state(&self) -> State {
        if self.refused { State::Refused } else { State::Steered }
    }
}

impl Adoptions {
    pub(super) fn new(parts: Arc<Parts>, counted: Arc<Recorded>, resolving: Handle) -> Result<Self, EngageError> {
        let engines = Engines::new(parts.paths.docker.clone(), parts.paths.podman.clone());
        let tree = Tree::new(cgroup2()?, engines);
        let gaze = Arc::new(Gaze::new(tree.clone())?);
        let marks = Marks::new(tree.clone(), parts.paths.runtime.join("adopted"));
        Ok(Self {
            parts,
            counted,
            resolving,
            tree,
            adopter: OnceLock::new(),
            gaze,
            held: Mutex::default(),
            unmet: Mutex::default(),
            unheld: Unheld::default(),
            marks,
            are_still: AtomicBool::default(),
        })
    }

    /// The hooks, loaded at first need; from then on a thread looks.
    fn adopter(self: &Arc<Self>) -> Result<Arc<Adopter>, EngageError> {
        if let Some(adopter) = self.adopter.get() {
            return Ok(Arc::clone(adopter));
        }
        let adopter = Arc::new(Adopter::load(&self.parts.paths.pins)?);
        match FilterReader::load() {
            Ok(reader) => self.gaze.read_filters_by(reader),
            Err(error) => tracing::warn!(%error, "seccomp filters can't be read, so no workload counts as contained"),
        }
        if self.adopter.set(Arc::clone(&adopter)).is_ok() {
            let adoptions = Arc::downgrade(self);
            std::thread::Builder::new().name("adopt".into()).spawn(move || keep_looking(&adoptions))?;
        }
        Ok(adopter)
    }

    /// Takes a workload under control: its names, its resolver, and the daemon's sockets in its own network namespace.
    fn take(
        &self,
        settings: &Arc<WorkloadSettings>,
        all: &Settings,
        adopter: &Arc<Adopter>,
    ) -> Result<Held, EngageError> {
        let folder = self.marks.folder(&settings.name);
        fs::create_dir_all(&folder)?;
        // Until its cgroups were looked for, what stood still before may be what nothing refuses.
        let is_loose = self.marks.has(&settings.name);
        let number = number(&settings.name);
        let (id, is_begun) = match known(&folder)? {
            Some(known) => known,
            None => {
                // What was counted of an adoption that nobody let go of is another one's.
                adopter.forget_counts(number)?;
                Taken::begin(&folder);
                (new(&folder)?, false)
            }
        };
        let workload = Arc::new(Workload {
            id,
            settings: Arc::clone(settings),
            initiator: NOBODY,
            loginuid: None,
            uid: NOBODY,
            init: 0,
            cgroup: self.tree.folder(&crate::adopt::common(settings)),
            folder,
        });
        let pipeline = &self.parts.pipeline;
        let names = Arc::new(self.begin(&workload, is_begun, all.limits.names)?);
        let lookup = Arc::new(CurrentLookup::new(pipeline.worlds.clone()));
        let (gate, taken) = (Arc::clone(&self.parts.gate), self.parts.acceptor.taken(&workload));
        let resolver = Resolver::new(Arc::clone(&workload), Arc::clone(&names), gate, lookup, Arc::clone(&taken));
        pipeline.directory.enter(id, Lookups { names, resolver: Arc::clone(&resolver) });
        let mut held = Held {
            workload,
            taken,
            number,
            place: 0,
            resolver,
            live: Arc::default(),
            started: self.parts.journal.now(),
            places: BTreeMap::new(),
            cgroups: BTreeMap::new(),
            is_unfound: false,
            unknown: BTreeMap::new(),
            pids: BTreeSet::new(),
            networks: BTreeMap::new(),
            has_new: false,
            unfinished: None,
            sockets: Sockets::at_most(DESCRIPTORS),
            holes: BTreeSet::new(),
            open: BTreeSet::new(),
            passing: BTreeSet::new(),
            ungoverned: None,
            is_loose,
            loose: BTreeSet::new(),
            is_crowded: false,
            refused: false,
            standing: None,
        };
        let opened = adopter.allow_unix(number, &settings.unix).map_err(EngageError::from).and_then(|()| {
            // Connections may wait already at sockets that were kept: who makes them is looked at as they are accepted.
            self.gaze.introduce(number, Arc::clone(settings));
            let own = File::open("/proc/self/ns/net")?;
            self.settle(adopter, &mut held, &own)
        });
        if let Err(error) = opened {
            self.parts.acceptor.forget(id);
            pipeline.directory.leave(id);
            return Err(error);
        }
        Ok(held)
    }

    /// Opens the daemon's sockets for a workload in a network namespace.
    fn settle(&self, adopter: &Arc<Adopter>, held: &mut Held, netns: &File) -> Result<(), EngageError> {
        use std::os::unix::fs::MetadataExt;

        let inode = netns.metadata()?.ino();
        let name = kept_as(held.workload.id, inode);
        // Sockets that are kept keep their namespace, so its inode is no other's.
        let (sockets, diagnosis) = match self.parts.store.take(&name) {
            Some(sockets) => (sockets, namespace::diagnose(netns.as_fd())?),
            None => {
                let (sockets, diagnosis) = namespace::open_beside(netns.as_fd())?;
                self.parts.store.keep(&name, &sockets);
                (sockets, diagnosis)
            }
        };
        let Opened { tcp4, tcp6, dns4, dns6 } = sockets;
        let cookie = netns_cookie(tcp4.as_fd())?;
        let doors = Doors { tcp4: &tcp4, tcp6: &tcp6, dns4: &dns4, dns6: &dns6 };
        adopter.open_doors(held.number, cookie, &doors)?;
        let serving = Arc::clone(&held.resolver).serve_udp(vec![dns4, dns6]);
        let resolving = self.resolving.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "a workload's resolver ended");
            }
        });
        let seen = Arc::clone(&self.gaze);
        let adopted = Adopted {
            adopter: Arc::clone(adopter),
            number: held.number,
            live: Arc::clone(&held.live),
            diagnosis: Arc::new(diagnosis),
            admits: Arc::new(move |number, pid| seen.admits(number, pid)),
        };
        let most = self.parts.pipeline.worlds.borrow().snapshot.settings.limits.connections;
        self.parts.acceptor.add_adopted(Arc::clone(&held.workload), adopted, tcp4, tcp6, most)?;
        let place = Place { cookie, resolving: resolving.abort_handle() };
        if let Some(before) = held.places.insert(inode, place) {
            before.resolving.abort();
        }
        Ok(())
    }

    /// Lets a workload go. Its cgroups stay governed, and refused for want of sockets: it may be taken again at once, and must
    /// not be free in between.
    fn let_go(&self, adopter: &Adopter, held: Held, why: &str) {
        let launch = held.workload.id;
        let tell = |result: Result<(), BpfError>| {
            if let Err(error) = result {
                tracing::error!(%error, %launch, "an adopted workload can't be let go of");
            }
        };
        self.parts.acceptor.remove(launch);
        self.parts.pipeline.registry.tell_launch(launch, Order::Cut("workload-ended"));
        self.parts.pipeline.directory.leave(launch);
        held.places.iter().for_each(|(inode, place)| {
            place.resolving.abort();
            self.parts.store.let_go(&kept_as(launch, *inode));
            tell(adopter.close_doors(held.number, place.cookie));
        });
        self.close_account(adopter, &held);
        // After its counts are gone: this makes room for the next.
        tell(adopter.allow_unix(held.number, &[]));
        self.parts.journal.note(What::WorkloadEnded { launch, status: why.into() });
        // A new adoption of this name is another one. What stands still does until it is known whose it is by then.
        self.marks.clear(&held.workload.settings.name);
    }

    /// Removes from the kernel what belongs to no workload that there is: sockets of an earlier daemon, cgroups of what was
    /// released while none ran.
    fn sweep(&self, adopter: &Adopter, held: &BTreeMap<Number, Held>, wanted: &BTreeSet<Number>) {
        for (number, cookie) in adopter.places().unwrap_or_default() {
            let is_known = held.get(&number).is_some_and(|one| one.places.values().any(|place| place.cookie == cookie));
            if !is_known && let Err(error) = adopter.close_doors(number, cookie) {
                tracing::error!(%error, "what an earlier daemon opened can't be closed");
            }
        }
        for (id, (number, _)) in adopter.governed().unwrap_or_default() {
            // What is to be adopted and can't be stays refused.
            if !held.contains_key(&number)
                && !wanted.contains(&number)
                && let Err(error) = adopter.forget(id)
            {
                tracing::error!(%error, "a cgroup that isn't governed any more can't be let go of");
            }
        }
    }

    /// Closes the daemon's sockets: connects are refused until the next daemon. The hooks stay.
    pub(super) fn close(&self) {
        for held in self.held().values() {
            self.parts.acceptor.remove(held.workload.id);
            held.places.values().for_each(|place| place.resolving.abort());
        }
    }

    /// Whether this cgroup, as /proc/PID/cgroup shows it, is one of an adopted workload or below one.
    pub(super) fn governs(&self, cgroup: &Path) -> bool {
        self.gaze.governs(cgroup)
    }

    /// Whether a process of an adopted workload has this uid.
    pub(super) fn runs_as(&self, uid: u32) -> bool {
        self.gaze
            .pids()
            .into_iter()
            .any(|pid| crate::adopt::Process::read(pid).is_ok_and(|process| process.uids.contains(&uid)))
    }

    /// They, as they are listed.
    pub(super) fn list(&self) -> Vec<Launched> {
        self.held()
            .values()
            .map(|held| Launched {
                launch: held.workload.id,
                workload: held.workload.settings.name.clone(),
                initiator: NOBODY,
                uid: NOBODY,
                pid: 0,
                command: crate::adopt::told(&held.workload.settings),
                started: Some(held.started),
                connections: u32::try_from(self.parts.pipeline.registry.count(held.workload.id)).unwrap_or(u32::MAX),
                containment: held.told(),
                holes: held.all_holes(),
                adopted: Some(held.cgroups.values().map(AdoptedCgroup::from).collect()),
            })
            .collect()
    }

    /// Those that stand still because something can't be put right, with what that is.
    pub(super) fn stuck(&self) -> Vec<(WorkloadName, String)> {
        let held = self.held();
        let stuck = held.values().filter_map(|one| {
            let trouble = one.standing.as_ref()?.trouble()?;
            Some((one.workload.settings.name.clone(), trouble))
        });
        stuck.collect()
    }

    /// The programs of others that could lead connects elsewhere than the hooks do.
    pub(super) fn rewriters(&self) -> Vec<String> {
        self.adopter.get().map_or_else(Vec::new, |_| Adopter::others(&self.parts.paths.pins))
    }

    fn tell(&self, held: &Held, change: Change) {
        let (launch, workload) = (held.workload.id, held.workload.settings.name.clone());
        self.parts.journal.note(What::Adoption(Adoption { launch, workload, change }));
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Number, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the sockets of a workload in a network namespace are called where they are kept.
fn kept_as(launch: LaunchId, inode: u64) -> String {
    format!("{launch}.{inode}")
}

/// Looks until the daemon is gone.
fn keep_looking(adoptions: &Weak<Adoptions>) {
    let (mut before, mut tried) = (None::<Instant>, Instant::now());
    while let Some(adoptions) = adoptions.upgrade() {
        // By the clock, and rather too soon than too late: a look takes its time, and a reload holds it up.
        let slowly = before.is_none_or(|at| at.elapsed() + TICK > SLOWLY);
        if slowly {
            before = Some(Instant::now());
        }
        adoptions.look(slowly);
        if tried.elapsed() > AGAIN {
            tried = Instant::now();
            adoptions.try_again();
        }
        drop(adoptions);
        std::thread::sleep(TICK);
    }
}

/// The id of an adoption, which outlives the daemon but not the host's uptime, and whether it is known to be recorded that it
/// began: an earlier daemon may have been killed before. None: there is no adoption.
fn known(folder: &Path) -> std::io::Result<Option<(LaunchId, bool)>> {
    let text = match fs::read_to_string(folder.join(ID)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let id = text.lines().next().and_then(|id| id.parse().ok());
    Ok(id.map(|id| (id, text.ends_with(BEGUN))))
}

/// Notes down the id of an adoption that is new.
fn new(folder: &Path) -> std::io::Result<LaunchId> {
    let id = LaunchId::new();
    fs::write(folder.join(ID), id.to_string())?;
    Ok(id)
}

/// Notes down that it is recorded that an adoption began.
fn note_begun(folder: &Path) -> std::io::Result<()> {
    File::options().append(true).open(folder.join(ID))?.write_all(BEGUN.as_bytes())
}

/// What the kernel calls a workload: the same number for a name over restarts.
fn number(name: &WorkloadName) -> Number {
    let hash = blake3::hash(name.as_str().as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    Number::from_le_bytes([a, b, c, d])
}

/// Whether a workload may go on as it is under new settings.
fn same(before: &WorkloadSettings, now: &WorkloadSettings) -> bool {
    before.adopt == now.adopt
        && before.containment == now.containment
        && before.unix == now.unix
        && before.classes == now.classes
        && before.identity == now.identity
}

impl From<&Cgroup> for AdoptedCgroup {
    fn from(cgroup: &Cgroup) -> Self {
        Self { cgroup: cgroup.path.clone(), image: cgroup.image.clone() }
    }
}
