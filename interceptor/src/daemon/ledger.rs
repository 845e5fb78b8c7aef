//! The ledger: what the kernel counted of each workload, reconciled with what the proxy handled. Recorded when sessions end, every
//! minute for those of which something changed, and when a workload ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use interceptor_common::{Fate, Kind};
use jiff::Timestamp;

use super::launches::Launches;
use super::reload::OwnJournal;
use crate::bpf::adopt::Tally;
use crate::bpf::{BpfError, Kernel};
use crate::ids::{LaunchId, WorkloadName};
use crate::launch::Refused;
use crate::pipeline::Registry;
use crate::record::event::{Counts, Handled, Ledger, What};
use crate::transport::taken::Taken;

/// How often what changed is recorded.
const EVERY: Duration = Duration::from_secs(60);

/// How long after the end of a session the counts of its workload are recorded at most: once for all that end meanwhile.
const SOON: Duration = Duration::from_secs(1);

/// How often, and how long apart, what doesn't fit is looked at again: a connection that is there for one end may not be
/// for the other one yet.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// What was recorded last.
#[derive(Default)]
pub(super) struct Recorded(Mutex<BTreeMap<LaunchId, Ledger>>);

/// What the proxy had of a workload's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Had {
    /// How many were taken.
    pub(super) taken: u64,
    /// How many of those were reset at once.
    pub(super) reset: u64,
    /// How many came to a daemon that ended before it took them.
    pub(super) lost: u64,
    /// How many questions over UDP its resolver had.
    pub(super) asked: u64,
}

impl From<&Taken> for Had {
    fn from(taken: &Taken) -> Self {
        // First: one that is taken and reset meanwhile must not be missing among those that were kept.
        let reset = taken.reset();
        Self { taken: taken.taken(), reset, lost: taken.lost(), asked: taken.asked() }
    }
}

/// What the proxy says of the record, read before connections are counted, so that there are never more in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entered {
    at: Timestamp,
    recorded: u64,
    unrecorded: u64,
    last: bool,
    /// Whether the proxy has counted since the workload began. Else what it says is of no use: the record may have more.
    whole: bool,
}

impl Entered {
    /// What it says now; whether the counts that follow are a workload's last.
    pub(super) fn now(journal: &OwnJournal, taken: &Taken, last: bool) -> Self {
        // What is opened later may not be counted yet.
        Self::at(journal.now(), taken, last)
    }

    fn at(at: Timestamp, taken: &Taken, last: bool) -> Self {
        let (recorded, unrecorded) = (taken.recorded(), taken.unrecorded());
        Self { at, recorded, unrecorded, last, whole: taken.is_whole() }
    }

    /// With what was counted then.
    pub(super) fn ledger(self, launch: LaunchId, workload: WorkloadName, kinds: BTreeMap<String, Counts>) -> Ledger {
        let Self { at, recorded, unrecorded, last, whole } = self;
        let mut ledger = Ledger { launch, workload, kinds, handled: None };
        let unsure = ledger.mediated().saturating_sub(recorded + unrecorded);
        ledger.handled = whole.then_some(Handled { at, unrecorded, unsure, last });
        ledger
    }
}

/// The kernel's counts of what a launched workload tried, and what the proxy had of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Connects {
    pub(super) established: u64,
    pub(super) failed: u64,
    pub(super) allowed: u64,
    /// Calls to unix sockets that no rule allows, and those that one does.
    pub(super) unix: [u64; 2],
    /// Datagrams that nobody in the namespace took, and those that somebody did.
    pub(super) udp: [u64; 2],
    /// Questions over UDP that no resolver took.
    pub(super) unheard: u64,
    /// Sockets of IP that are neither TCP nor UDP, and what of theirs stayed in the namespace.
    pub(super) raw: u64,
    pub(super) packets: u64,
    /// Sockets that its filter on system calls refuses.
    pub(super) refused: Refused,
    /// Datagrams, questions over UDP and packets of other sockets that left the namespace: somebody laid a way out.
    pub(super) left: [u64; 3],
    pub(super) had: Had,
}

impl Connects {
    /// Those of a launch, whose own folder this is.
    ///
    /// # Errors
    /// The kernel's, or those of its process 1, can't be read.
    pub(super) fn of(kernel: &Kernel, launch: LaunchId, folder: &Path, taken: &Taken) -> Result<Self, BpfError> {
        // First: what is answered meanwhile is waited for, and what is taken meanwhile would hide something.
        let had = Had::from(taken);
        let count = |kind, fate| kernel.attempts(launch, kind, fate);
        let unread = |source| BpfError::Io { what: "reading what its process 1 refused".into(), source };
        Ok(Self {
            established: count(Kind::Tcp, Fate::Established)?,
            failed: count(Kind::Tcp, Fate::Failed)?,
            allowed: count(Kind::Tcp, Fate::Allowed)?,
            unix: [count(Kind::Unix, Fate::Refused)?, count(Kind::Unix, Fate::Allowed)?],
            udp: [count(Kind::Udp, Fate::Refused)?, count(Kind::Udp, Fate::Allowed)?],
            unheard: count(Kind::Dns, Fate::Refused)?,
            raw: count(Kind::Raw, Fate::Allowed)?,
            packets: count(Kind::Packet, Fate::Allowed)?,
            refused: Refused::read(folder).map_err(unread)?,
            left: [count(Kind::Udp, Fate::Left)?, count(Kind::Dns, Fate::Left)?, count(Kind::Packet, Fate::Left)?],
            had,
        })
    }

    pub(super) fn kinds(self) -> BTreeMap<String, Counts> {
        let Self { established, failed, allowed, unix, udp, unheard, raw, packets, refused, left, had } = self;
        let [udp_left, dns_left, packets_left] = left;
        let Had { taken, reset, lost, asked } = had;
        let tcp = Counts {
            attempted: established + failed + allowed,
            mediated: taken.saturating_sub(reset),
            refused: failed + reset,
            dropped: lost,
            allowed,
            unexplained: established.saturating_sub(taken + lost),
        };
        let dns = Counts {
            attempted: asked + unheard + dns_left,
            mediated: asked,
            refused: unheard,
            unexplained: dns_left,
            ..Counts::default()
        };
        let judged = |[refused, allowed]: [u64; 2], unexplained: u64| Counts {
            attempted: refused + allowed + unexplained,
            refused,
            allowed,
            unexplained,
            ..Counts::default()
        };
        kept([
            ("tcp", tcp),
            ("dns", dns),
            ("udp", judged(udp, udp_left)),
            ("raw", judged([refused.raw, raw], 0)),
            ("unix", judged(unix, 0)),
            ("packet", judged([refused.packet, packets], packets_left)),
            ("other", judged([refused.other, 0], 0)),
        ])
    }
}

/// The counts of an adopted workload. `waiting`: connects that were noted down and not handed over yet.
pub(super) fn adopted(tallies: &[Tally], waiting: u64, had: Had) -> BTreeMap<String, Counts> {
    let count = |kind: Kind, fate: Fate| {
        let of = tallies.iter().filter(|one| one.kind == kind as u32 && one.fate == fate as u32);
        of.map(|one| one.count).sum::<u64>()
    };
    let refused = |kind| {
        let refused = count(kind, Fate::Refused);
        Counts { attempted: refused, refused, ..Counts::default() }
    };
    let (arrived, lost) = (count(Kind::Tcp, Fate::Arrived), count(Kind::Tcp, Fate::Lost));
    let (turned_away, failed) = (count(Kind::Tcp, Fate::Refused), count(Kind::Tcp, Fate::Failed));
    let established = count(Kind::Tcp, Fate::Established);
    let tcp = Counts {
        attempted: turned_away + failed + established,
        mediated: had.taken.saturating_sub(had.reset),
        refused: turned_away + failed + had.reset,
        // What arrived and wasn't taken came to the listener of a daemon that ended, or waits there still.
        dropped: lost + arrived.saturating_sub(had.taken),
        // Counted where the kernel changes a socket's state, by nobody who steers.
        unexplained: established.saturating_sub(arrived + lost + waiting),
        ..Counts::default()
    };
    let steered = count(Kind::Dns, Fate::Steered);
    let dns = refused(Kind::Dns);
    let dns = Counts {
        // A socket that was connected to the resolver is steered once, and asks as often as it likes.
        attempted: dns.attempted + steered.max(had.asked),
        mediated: had.asked,
        dropped: steered.saturating_sub(had.asked),
        ..dns
    };
    let allowed = count(Kind::Unix, Fate::Allowed);
    let unix = refused(Kind::Unix);
    let unix = Counts { attempted: unix.attempted + allowed, allowed, ..unix };
    let packets = count(Kind::Packet, Fate::Dropped);
    let packet = Counts { attempted: packets, dropped: packets, ..Counts::default() };
    kept([
        ("tcp", tcp),
        ("dns", dns),
        ("udp", refused(Kind::Udp)),
        ("raw", refused(Kind::Raw)),
        ("unix", unix),
        ("packet", packet),
        ("other", refused(Kind::Other)),
    ])
}

/// What happened at all.
fn kept<const N: usize>(kinds: [(&str, Counts); N]) -> BTreeMap<String, Counts> {
    let kinds = kinds.into_iter().filter(|(_, counts)| *counts != Counts::default());
    kinds.map(|(kind, counts)| (kind.to_owned(), counts)).collect()
}

/// Counts until they fit, or until they can't be in between any more. What is unexplained is then what the best look found: what
/// was in between at another one isn't.
///
/// # Errors
/// As `count`.
pub(super) fn settled(count: impl Fn() -> Result<Ledger, BpfError>) -> Result<Ledger, BpfError> {
    let mut best = count()?;
    for _ in 0..LOOKS {
        // What left by a wire stays so, and is only waited for in vain.
        if best.unexplained_connections() == 0 {
            break;
        }
        std::thread::sleep(PAUSE);
        let ledger = count()?;
        if ledger.unexplained_connections() <= best.unexplained_connections() {
            best = ledger;
        }
    }
    Ok(best)
}

/// As [`settled`], for counts that are a workload's last: once what was taken is in the record, as far as it comes there.
///
/// # Errors
/// As `count`.
pub(super) fn last(taken: &Taken, count: impl Fn() -> Result<Ledger, BpfError>) -> Result<Ledger, BpfError> {
    let ledger = settled(&count)?;
    if ledger.handled.is_none_or(|handled| handled.unsure == 0) {
        return Ok(ledger);
    }
    for _ in 0..LOOKS {
        if taken.under_way() == 0 {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    settled(count)
}

impl Recorded {
    /// Whether these counts are news; from now on they aren't. That they are the last always is.
    fn is_new(&self, ledger: &Ledger) -> bool {
        let told = |one: &Ledger| one.handled.map(|handled| (handled.unrecorded, handled.last));
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = recorded.insert(ledger.launch, ledger.clone());
        before.is_none_or(|before| before.kinds != ledger.kinds || told(&before) != told(ledger))
    }

    /// Records the counts of a workload, if they changed, or if one of its sessions ended.
    pub(super) fn note(&self, journal: &OwnJournal, ledger: Ledger, session_ended: bool) {
        let is_new = self.is_new(&ledger);
        if ledger.kinds.is_empty() || !(is_new || session_ended) {
            return;
        }
        let unexplained = ledger.unexplained();
        if is_new && unexplained > 0 {
            tracing::error!(workload = %ledger.workload, unexplained, "connections or datagrams got past the proxy");
        }
        journal.note(What::Ledger(ledger));
    }

    /// Forgets a workload that has ended.
    pub(super) fn forget(&self, launch: LaunchId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&launch);
    }
}

/// Records what changed, as time goes on.
pub(super) async fn keep(launches: Arc<Launches>, registry: Arc<Registry>) {
    let (mut ticks, mut minutes) = (tokio::time::interval(SOON), tokio::time::interval(EVERY));
    loop {
        let of_all = tokio::select! {
            _ = minutes.tick() => true,
            _ = ticks.tick() => false,
        };
        let ended = registry.left();
        if of_all || !ended.is_empty() {
            record(&launches, ended, of_all).await;
        }
    }
}

/// Records the counts of workloads of which a session has ended; of all others those that changed, if these are wanted.
pub(super) async fn record(launches: &Arc<Launches>, ended: BTreeSet<LaunchId>, of_all: bool) {
    let launches = Arc::clone(launches);
    // Counts that don't fit at once are waited for.
    let noted =
        tokio::task::spawn_blocking(move || match launches.ledger(|launch| of_all || ended.contains(&launch)) {
            Ok(ledgers) => {
                for ledger in ledgers {
                    let session_ended = ended.contains(&ledger.launch);
                    launches.note_ledger(ledger, session_ended);
                }
            }
            Err(error) => tracing::error!(%error, "the ledger can't be read"),
        });
    if let Err(error) = noted.await {
        tracing::error!(%error, "the ledger can't be recorded");
    }
}

#[cfg(test)]
mod tests;
