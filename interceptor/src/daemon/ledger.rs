//! The ledger: what the kernel counted of each workload, reconciled with what the proxy handled. Recorded every minute for
//! those of which something changed, and when a workload ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use interceptor_common::{Fate, Kind};

use super::launches::Launches;
use crate::bpf::adopt::Tally;
use crate::ids::LaunchId;
use crate::record::event::{Counts, Ledger, What};

/// How often what changed is recorded.
const EVERY: Duration = Duration::from_secs(60);

/// How often, and how long apart, what doesn't fit is looked at again: a connection that is there for one end may not be
/// for the other one yet.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// What was recorded last.
#[derive(Default)]
pub(super) struct Recorded(Mutex<BTreeMap<LaunchId, Ledger>>);

/// The kernel's counts of a launched workload's connects, and how many of them the proxy had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connects {
    pub(super) established: u64,
    pub(super) failed: u64,
    pub(super) allowed: u64,
    pub(super) taken: u64,
}

impl Connects {
    pub(super) fn kinds(self) -> BTreeMap<String, Counts> {
        let Self { established, failed, allowed, taken } = self;
        let tcp = Counts {
            attempted: established + failed + allowed,
            mediated: taken,
            refused: failed,
            allowed,
            unexplained: established.saturating_sub(taken),
            ..Counts::default()
        };
        kept([("tcp", tcp)])
    }
}

/// The counts of an adopted workload. `waiting`: connects that were noted down and not handed over yet.
pub(super) fn adopted(tallies: &[Tally], waiting: u64) -> BTreeMap<String, Counts> {
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
        mediated: arrived,
        refused: turned_away + failed,
        dropped: lost,
        // Counted where the kernel changes a socket's state, by nobody who steers.
        unexplained: established.saturating_sub(arrived + lost + waiting),
        ..Counts::default()
    };
    let asked = count(Kind::Dns, Fate::Steered);
    let dns = refused(Kind::Dns);
    let dns = Counts { attempted: dns.attempted + asked, mediated: asked, ..dns };
    let packets = count(Kind::Packet, Fate::Dropped);
    let packet = Counts { attempted: packets, dropped: packets, ..Counts::default() };
    kept([
        ("tcp", tcp),
        ("dns", dns),
        ("udp", refused(Kind::Udp)),
        ("raw", refused(Kind::Raw)),
        ("unix", refused(Kind::Unix)),
        ("packet", packet),
        ("other", refused(Kind::Other)),
    ])
}

/// What happened at all.
fn kept<const N: usize>(kinds: [(&str, Counts); N]) -> BTreeMap<String, Counts> {
    let kinds = kinds.into_iter().filter(|(_, counts)| *counts != Counts::default());
    kinds.map(|(kind, counts)| (kind.to_owned(), counts)).collect()
}

/// Counts until they fit, or until they can't be in between any more.
pub(super) fn settled(count: impl Fn() -> Ledger) -> Ledger {
    let mut ledger = count();
    for _ in 0..LOOKS {
        if ledger.unexplained() == 0 {
            break;
        }
        std::thread::sleep(PAUSE);
        ledger = count();
    }
    ledger
}

impl Recorded {
    /// Whether these counts are news; from now on they aren't.
    fn is_new(&self, ledger: &Ledger) -> bool {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.insert(ledger.launch, ledger.clone()).as_ref() != Some(ledger)
    }

    /// Forgets a workload that has ended.
    pub(super) fn forget(&self, launch: LaunchId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&launch);
    }
}

impl Launches {
    /// Records the counts of a workload, if they changed.
    pub(super) fn note_ledger(&self, ledger: Ledger) {
        if ledger.kinds.is_empty() || !self.recorded_counts().is_new(&ledger) {
            return;
        }
        let unexplained = ledger.unexplained();
        if unexplained > 0 {
            tracing::error!(workload = %ledger.workload, unexplained, "connections got an answer, and not from the proxy");
        }
        self.journal().note(What::Ledger(ledger));
    }
}

/// Records what changed, as time goes on.
pub(super) async fn keep(launches: Arc<Launches>) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let launches = Arc::clone(&launches);
        // Counts that don't fit at once are waited for.
        let noted = tokio::task::spawn_blocking(move || {
            for ledger in launches.ledger() {
                launches.note_ledger(ledger);
            }
        });
        if let Err(error) = noted.await {
            tracing::error!(%error, "the ledger can't be recorded");
        }
    }
}

#[cfg(test)]
mod tests;
