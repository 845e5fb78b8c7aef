//! What the thread looks at, and what the acceptor asks before it hands over a connection of a process that the thread
//! hasn't seen yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use self::nobodys::Nobodys;
use super::{Adoptions, Held};
use crate::adopt::{Cgroup, Found, Hole, Process, Survey, Tree, is_gone, is_shortage};
use crate::bpf::adopt::{Adopter, Number, State};
use crate::bpf::{FilterReader, UnixSockets};
use crate::config::{Level, WorkloadSettings};
use crate::pipeline::Order;
use crate::record::event::Change;

mod nobodys;

/// For how long a process may be more than it will be: who starts it (systemd, runc) puts it into its cgroup as root, and
/// takes its privileges afterwards. Its connections are refused until that is done; the workload's others go on.
const YOUTH: Duration = Duration::from_secs(1);

/// In as many network namespaces besides its own the daemon has sockets for a workload; in others its connects are refused.
const MOST_PLACES: usize = 64;

/// Who has been looked at.
pub(super) struct Gaze {
    tree: Tree,
    survey: Mutex<Survey>,
    /// What is known of each workload.
    known: RwLock<BTreeMap<Number, Known>>,
    /// The uids of processes that belong to no workload.
    outside: RwLock<BTreeSet<u32>>,
    nobodys: Mutex<Nobodys>,
}

struct Known {
    settings: Arc<WorkloadSettings>,
    /// Its processes that have been looked at.
    pids: BTreeSet<u32>,
    refused: bool,
}

impl Gaze {
    pub(super) fn new(tree: Tree) -> std::io::Result<Self> {
        Ok(Self {
            tree,
            survey: Mutex::new(Survey::new()?),
            known: RwLock::default(),
            outside: RwLock::default(),
            nobodys: Mutex::default(),
        })
    }

    pub(super) fn read_filters_by(&self, reader: FilterReader) {
        self.survey.lock().unwrap_or_else(PoisonError::into_inner).read_filters_by(reader);
    }

    /// Forgets a workload: no connection of it is handed over any more.
    pub(super) fn forget(&self, number: Number) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Whether a connection of this process may be handed over: one that nobody has looked at yet is looked at now.
    pub(super) fn admits(&self, number: Number, pid: u32) -> bool {
        let path = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let Some(known) = known.get(&number) else { return false };
            if known.refused {
                return false;
            }
            if known.settings.containment == Level::Steered || known.pids.contains(&pid) {
                return true;
            }
            let of = self.tree.of_process(pid).unwrap_or_default();
            // By its name: the cgroup may have been made since the thread has looked.
            let Ok(own) = self.tree.own(&known.settings, Path::new(&of)) else { return false };
            own.map(str::to_owned)
        };
        // A process that is gone did what it did under the hooks; one elsewhere was told the socket by one inside.
        let Some(path) = path else { return true };
        self.holes(&path, &[pid]).is_empty()
    }

    /// Whether this cgroup, as /proc/PID/cgroup shows it, is one of an adopted workload or below one. One of which that
    /// can't be known now is.
    pub(super) fn governs(&self, cgroup: &Path) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().any(|one| self.tree.own(&one.settings, cgroup).map_or(true, |own| own.is_some()))
    }

    /// The processes that have been looked at.
    pub(super) fn pids(&self) -> Vec<u32> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().flat_map(|one| one.pids.iter().copied()).collect()
    }

    /// Says which workload there is, before any of its processes was looked at.
    pub(super) fn introduce(&self, number: Number, settings: Arc<WorkloadSettings>) {
        let known = Known { settings, pids: BTreeSet::new(), refused: false };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(number, known);
    }

    /// Notes down who there is that belongs to none of these workloads. As long as that can't be found out, what was found
    /// before stays.
    pub(super) fn look_outside<'a>(&self, workloads: impl Iterator<Item = &'a WorkloadSettings> + Clone) {
        let users = match self.tree.users() {
            Ok(users) => users,
            Err(error) => return tracing::error!(%error, "who else there is can't be looked at"),
        };
        // By the cgroup's name: one that has just been made, or removed, isn't outside of its workload.
        let is_inside = |of: &str| {
            let mut workloads = workloads.clone();
            workloads.any(|one| self.tree.own(one, Path::new(of)).map_or(true, |own| own.is_some()))
        };
        let outside = users.into_iter().filter(|(_, of)| !is_inside(of)).map(|(uid, _)| uid).collect();
        *self.outside.write().unwrap_or_else(PoisonError::into_inner) = outside;
    }

    fn holes(&self, path: &str, pids: &[u32]) -> BTreeSet<Hole> {
        let outside = self.outside.read().unwrap_or_else(PoisonError::into_inner);
        self.survey.lock().unwrap_or_else(PoisonError::into_inner).look(&self.tree, path, pids, &outside)
    }
}

/// How long an engine may be at its files before what only that tells is refused.
const WRITING: Duration = Duration::from_secs(3);

impl Adoptions {
    /// Looks once, `slowly` also at what changes rarely.
    pub(super) fn look(&self, slowly: bool) {
        let Some(adopter) = self.adopter.get() else { return };
        let mut held = self.held();
        if slowly {
            self.watch_over(adopter, &mut held);
        }
        let mut claimed = BTreeSet::new();
        let missed = adopter.missed().ok();
        let governed = adopter.governed().unwrap_or_default();
        let now = Instant::now();
        let mut all = BTreeSet::new();
        let mut are_all_found = true;
        // The first workload of the configuration that fits has a cgroup.
        let mut order: Vec<&mut Held> = held.values_mut().collect();
        order.sort_by_key(|one| one.place);
        for one in order {
            let found = self.find(adopter, one, &governed, &mut claimed);
            // Several times a second, so it is said once.
            if let Err(error) = &found
                && !one.is_unfound
            {
                tracing::warn!(%error, workload = %one.workload.settings.name, "its cgroups can't be looked for");
            }
            one.is_unfound = found.is_err();
            are_all_found &= found.is_ok();
            self.keep_still(one);
            self.people(adopter, one, slowly);
            all.extend(one.pids.iter().copied());
        }
        // What only began right and is nobody's, and what is gone. Of a workload that isn't held nothing is known here: it
        // stays refused. So does everything as long as not all could be looked for.
        if are_all_found {
            let mut nobodys = self.gaze.nobodys.lock().unwrap_or_else(PoisonError::into_inner);
            let known = governed.iter().filter(|(_, (number, _))| held.contains_key(number)).map(|(id, _)| *id);
            for id in nobodys.settled(known.filter(|id| !claimed.contains(id)), now) {
                if let Err(error) = adopter.forget(id) {
                    tracing::error!(%error, "a cgroup can't be let go of");
                }
            }
            let missed = missed.filter(|missed| nobodys.is_settled(missed.count(), now));
            self.catch_up(adopter, missed.as_ref(), &governed, &held);
        }
        if slowly {
            self.gaze.look_outside(held.values().map(|one| &*one.workload.settings));
            self.gaze.survey.lock().unwrap_or_else(PoisonError::into_inner).keep(&all);
        }
        for one in held.values_mut() {
            self.judge(adopter, one, slowly);
        }
    }

    /// Sees that the hooks are there. Where one isn't, the workloads stand still until it is again.
    fn watch_over(&self, adopter: &Adopter, held: &mut BTreeMap<Number, Held>) {
        let missing = adopter.missing();
        if missing.is_empty() {
            // Frozen by a repair that didn't say that it was done, or by an earlier daemon.
            let is_frozen = |one: &Held| one.standing.is_some() || self.marks.has(&one.workload.settings.name);
            let free = held.values_mut().filter(|one| !one.is_loose && is_frozen(one));
            return free.for_each(|one| self.go_on(one));
        }
        tracing::error!(?missing, "hooks are gone; the adopted workloads are frozen until they are back");
        let what = format!("the hooks {} were gone", missing.join(", "));
        for one in held.values_mut() {
            self.freeze(one);
            if one.standing.get_or_insert_default().add(&what) {
                self.tell(one, Change::Detached { what: what.clone() });
            }
        }
        let Err(error) = adopter.repair() else {
            return held.values_mut().filter(|one| !one.is_loose).for_each(|one| self.go_on(one));
        };
        tracing::error!(%error, "the hooks can't be attached; the adopted workloads stay frozen");
        let why = error.to_string();
        for one in held.values_mut() {
            if one.standing.as_mut().is_some_and(|standing| standing.is_newly_stuck(&why)) {
                self.tell(one, Change::Broken { what: format!("{what}: {why}") });
            }
        }
    }

    /// Lets a workload go on that stood still, and records what was put right.
    fn go_on(&self, one: &mut Held) {
        if let Some(standing) = one.standing.take() {
            self.tell(one, Change::Repaired { what: standing.into_what() });
        }
        self.thaw(one);
    }

    /// Governs the cgroups that a workload is now.
    fn find(
        &self,
        adopter: &Adopter,
        one: &mut Held,
        governed: &BTreeMap<u64, (Number, State)>,
        claimed: &mut BTreeSet<u64>,
    ) -> std::io::Result<()> {
        let Found { cgroups, unknown } =
            self.tree.of(&one.workload.settings).inspect_err(|_| claimed.extend(one.cgroups.keys()))?;
        let found = cgroups.into_iter().filter(|cgroup| claimed.insert(cgroup.id)).map(|cgroup| (cgroup.id, cgroup));
        let mut found: BTreeMap<u64, Cgroup> = found.collect();
        // Several times a second, so it is said once.
        let was_ungoverned = one.ungoverned.take().is_some();
        let was_loose = std::mem::take(&mut one.is_loose);
        one.loose.clear();
        let before = std::mem::take(&mut one.unknown);
        for (cgroup, error) in unknown {
            let Cgroup { path, id, .. } = cgroup;
            // It stays what it is, refused or governed, and becomes nobody else's.
            if !claimed.insert(id) {
                continue;
            }
            found.extend(one.cgroups.get(&id).map(|cgroup| (id, cgroup.clone())));
            let since = before.get(&id).copied().unwrap_or_else(Instant::now);
            one.unknown.insert(id, since);
            let patience = if error.kind() == std::io::ErrorKind::WouldBlock { WRITING } else { Duration::ZERO };
            // As long as it is let be, it may be what stands still.
            let is_let_be = !before.contains_key(&id) || since.elapsed() <= patience;
            one.is_loose |= was_loose && is_let_be && !governed.contains_key(&id);
            if !before.contains_key(&id) {
                // Several times a second, so it is said once.
                let workload = &one.workload.settings.name;
                tracing::warn!(%error, %workload, cgroup = %path, "whose a container is isn't known yet");
            } else if !governed.contains_key(&id) && since.elapsed() > patience {
                // It was there before the hooks were.
                if let Err(error) = adopter.govern(&path, id, one.number, State::Refused) {
                    tracing::error!(%error, cgroup = %path, "a cgroup can't be refused");
                    self.note_ungoverned(adopter, one, &path, id, &error);
                }
            }
        }
        for (id, cgroup) in &found {
            if governed.get(id) != Some(&(one.number, one.state()))
                && let Err(error) = adopter.govern(&cgroup.path, *id, one.number, one.state())
            {
                if !was_ungoverned {
                    tracing::error!(%error, cgroup = %cgroup.path, "a cgroup can't be governed");
                }
                self.note_ungoverned(adopter, one, &cgroup.path, *id, &error);
            }
            if !one.cgroups.contains_key(id) {
                let processes = self.tree.processes(&cgroup.path).map_or(0, |pids| pids.len());
                let (cgroup, image) = (cgroup.path.clone(), cgroup.image.clone());
                let processes = u32::try_from(processes).unwrap_or(u32::MAX);
                self.tell(one, Change::Adopted { cgroup, image, processes });
            }
        }
        let gone: Vec<Cgroup> =
            one.cgroups.iter().filter(|(id, _)| !found.contains_key(id)).map(|(_, cgroup)| cgroup.clone()).collect();
        for cgroup in gone {
            self.tell(one, Change::Gone { cgroup: cgroup.path });
        }
        one.cgroups = found;
        Ok(())
    }

    /// The processes in these cgroups, or why they can't be known; none if they can't be looked for now.
    fn processes(&self, cgroups: &BTreeMap<u64, Cgroup>) -> Option<BTreeMap<u64, Result<Vec<u32>, std::io::Error>>> {
        let read = |(id, cgroup): (&u64, &Cgroup)| match self.tree.processes(&cgroup.path) {
            Err(error) if is_shortage(&error) => {
                tracing::error!(%error, cgroup = %cgroup.path, "its processes can't be looked for");
                None
            }
            Err(error) if is_gone(&error) => Some((*id, Ok(Vec::new()))),
            other => Some((*id, other)),
        };
        cgroups.iter().map(read).collect()
    }

    /// Its processes: the daemon's sockets where they are, and no others of theirs that reach out.
    fn people(&self, adopter: &Arc<Adopter>, one: &mut Held, slowly: bool) {
        let Some(pids) = self.processes(&one.cgroups) else { return };
        let pids: BTreeSet<u32> = pids.into_values().flatten().flatten().collect();
        let new: Vec<u32> = pids.difference(&one.pids).copied().collect();
        one.networks.retain(|pid, _| pids.contains(pid));
        for pid in pids.iter().filter(|pid| slowly || new.contains(pid)) {
            if let Ok(process) = Process::read(*pid) {
                one.networks.insert(*pid, process.namespaces.net);
            }
        }
        let namespaces: BTreeMap<u64, u32> = one.networks.iter().map(|(pid, inode)| (*inode, *pid)).collect();
        one.is_crowded = false;
        for (inode, pid) in &namespaces {
            if one.places.contains_key(inode) {
                continue;
            }
            // Each takes sockets and threads of ours.
            if one.places.len() > MOST_PLACES {
                one.is_crowded = true;
                continue;
            }
            let netns = Process::read(*pid).and_then(|process| File::open(process.folder().join("ns/net")));
            // It may have ended; its connects are refused until there are sockets.
            if let Ok(netns) = netns
                && let Err(error) = self.settle(adopter, one, &netns)
            {
                tracing::error!(%error, pid, "a workload's network namespace can't be served; its connects are refused");
            }
        }
        let own = File::open("/proc/self/ns/net").and_then(|file| file.metadata());
        let own = own.map(|found| std::os::unix::fs::MetadataExt::ino(&found)).unwrap_or_default();
        let empty: Vec<u64> =
            one.places.keys().copied().filter(|inode| *inode != own && !namespaces.contains_key(inode)).collect();
        if slowly {
            for (inode, place) in empty.iter().filter_map(|inode| Some((*inode, one.places.remove(inode)?))) {
                place.resolving.abort();
                self.parts.store.let_go(&super::kept_as(one.workload.id, inode));
                self.parts.acceptor.remove_in(one.workload.id, place.cookie);
                if let Err(error) = adopter.close_doors(one.number, place.cookie) {
                    tracing::error!(%error, "what was opened in a network namespace can't be closed");
                }
            }
        }
        one.pids = pids;
        one.has_new |= !new.is_empty();
        if slowly || !new.is_empty() {
            let looked: Vec<u32> = if slowly { one.pids.iter().copied().collect() } else { new };
            let before = if slowly { std::mem::take(&mut one.passing) } else { BTreeSet::new() };
            for stray in one.sockets.cut(adopter, &looked, &one.workload.settings.unix) {
                let hole =
                    Hole { what: format!("process {} has {}", stray.pid, stray.what), mend: "restart it".into() };
                // It is found each time, and told once.
                let is_known = match (stray.cut, stray.passes) {
                    (true, _) => false,
                    (false, true) => before.contains(&hole) | !one.passing.insert(hole),
                    (false, false) => !one.open.insert(hole),
                };
                if !is_known {
                    self.tell(one, Change::SocketCut { pid: stray.pid, what: stray.what, cut: stray.cut });
                }
            }
        }
    }

    /// How well it is contained, and whether that is enough.
    fn judge(&self, adopter: &Adopter, one: &mut Held, slowly: bool) {
        let before = (one.level(), one.refused, one.all_holes());
        if slowly || std::mem::take(&mut one.has_new) {
            let Some(processes) = self.processes(&one.cgroups) else {
                one.has_new = true;
                return;
            };
            let mut holes: BTreeSet<Hole> = self.kernel_holes(adopter);
            holes.extend(one.ungoverned.as_ref().map(|why| Hole {
                what: format!("a cgroup of its can't be governed: {why}"),
                mend: "adopt fewer cgroups, or see what the kernel has against it".into(),
            }));
            holes.extend(one.is_crowded.then(|| Hole {
                what: format!("its processes are in more than {MOST_PLACES} network namespaces"),
                mend: "set `RestrictNamespaces=yes`, or make more workloads of them".into(),
            }));
            let mut unfinished = BTreeMap::new();
            for (cgroup, pids) in one.cgroups.values().zip(processes.into_values()) {
                let pids = match pids {
                    Ok(pids) => pids,
                    Err(error) => {
                        holes.insert(Hole {
                            what: format!("which processes are in `{}` can't be known ({error})", cgroup.path),
                            mend: "remove that cgroup, and what is below it, with its processes".into(),
                        });
                        continue;
                    }
                };
                let (young, old): (Vec<u32>, Vec<u32>) = pids.into_iter().partition(|pid| is_young(*pid));
                holes.extend(self.gaze.holes(&cgroup.path, &old));
                for pid in young {
                    unfinished.insert(pid, self.gaze.holes(&cgroup.path, &[pid]));
                }
            }
            unfinished.retain(|_, found| !found.is_empty());
            if unfinished.is_empty() {
                one.unfinished = None;
            } else if one.unfinished.get_or_insert_with(Instant::now).elapsed() < YOUTH {
                // Not known yet, so that each of their connections is looked at; and looked at again at the next tick.
                one.pids.retain(|pid| !unfinished.contains_key(pid));
            } else {
                holes.extend(unfinished.into_values().flatten());
            }
            one.holes = holes;
        }
        if one.pids.is_empty() {
            one.open.clear();
        }
        one.refused = one.level() < one.workload.settings.containment;
        {
            let mut known = self.gaze.known.write().unwrap_or_else(PoisonError::into_inner);
            let settings = Arc::clone(&one.workload.settings);
            known.insert(one.number, Known { settings, pids: one.pids.clone(), refused: one.refused });
        }
        if before == (one.level(), one.refused, one.all_holes()) {
            return;
        }
        if one.refused != before.1 {
            for cgroup in one.cgroups.values() {
                if let Err(error) = adopter.govern(&cgroup.path, cgroup.id, one.number, one.state()) {
                    tracing::error!(%error, cgroup = %cgroup.path, "a cgroup can't be governed");
                }
            }
        }
        if one.refused {
            self.parts.pipeline.registry.tell_launch(one.workload.id, Order::Cut("not-contained"));
        }
        let holes = one.all_holes();
        let containment =
            if holes.is_empty() { one.level().to_string() } else { format!("{}: {}", one.level(), holes.join(" | ")) };
        self.tell(one, Change::Contained { containment, refused: one.refused });
    }

    /// What the kernel leaves open under every adopted workload.
    fn kernel_holes(&self, adopter: &Adopter) -> BTreeSet<Hole> {
        let open = adopter.unix_sockets() == UnixSockets::Open;
        let hole = open.then(|| Hole {
            what: "this kernel can't refuse unix sockets".into(),
            mend: "use Linux 6.7 or newer".into(),
        });
        hole.into_iter().collect()
    }
}

/// Whether its manager may not be done with it. One that is gone is nobody's.
fn is_young(pid: u32) -> bool {
    Process::age_of(pid).is_ok_and(|age| age < YOUTH)
}
