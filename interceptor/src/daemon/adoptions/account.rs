//! The ledger's counts of adopted workloads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::ledger::{self, Entered, Had};
use super::super::reload::OwnJournal;
use super::{Adoptions, Held};
use crate::bpf::BpfError;
use crate::bpf::adopt::{Adopter, Number, Tally};
use crate::ids::{LaunchId, WorkloadName};
use crate::record::event::Ledger;
use crate::transport::taken::Taken;

/// How long what is on its way to a workload's sockets is waited for once they are closed.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// What is counted of a workload.
struct Account {
    number: Number,
    launch: LaunchId,
    workload: WorkloadName,
    taken: Arc<Taken>,
}

impl From<&Held> for Account {
    fn from(held: &Held) -> Self {
        let (number, launch) = (held.number, held.workload.id);
        Self { number, launch, workload: held.workload.settings.name.clone(), taken: Arc::clone(&held.taken) }
    }
}

impl Account {
    /// What the proxy says of it, read before the kernel's counts are.
    fn begin(&self, journal: &OwnJournal, last: bool) -> (Entered, Had) {
        (Entered::now(journal, &self.taken, last), Had::from(&*self.taken))
    }

    /// The counts, by what the proxy said before and the kernel's of all workloads.
    fn ledger(&self, (entered, had): (Entered, Had), tallies: &[Tally], adopter: &Adopter) -> Ledger {
        let own: Vec<Tally> = tallies.iter().filter(|one| one.workload == self.number).copied().collect();
        let kinds = ledger::adopted(&own, adopter.waiting(self.number), had);
        entered.ledger(self.launch, self.workload.clone(), kinds)
    }

    /// The counts, as far as they settle, and whether they are the last.
    fn settle(&self, adopter: &Adopter, journal: &OwnJournal, last: bool) -> Result<Ledger, BpfError> {
        let count = || -> Result<Ledger, BpfError> {
            let begun = self.begin(journal, last);
            Ok(self.ledger(begun, &adopter.tallies()?, adopter))
        };
        let settled = if last { ledger::last(&self.taken, count) } else { ledger::settled(count) }?;
        self.taken.note_unexplained(settled.unexplained_connections());
        Ok(settled)
    }
}

impl Adoptions {
    /// The counts of those that are `wanted`, as far as they settle.
    ///
    /// # Errors
    /// The kernel's can't be read.
    pub(in super::super) fn ledger(&self, wanted: impl Fn(LaunchId) -> bool) -> Result<Vec<Ledger>, BpfError> {
        let Some(adopter) = self.adopter.get() else { return Ok(Vec::new()) };
        let journal = &self.parts.journal;
        let accounts: Vec<Account> = self.held().values().map(Account::from).filter(|one| wanted(one.launch)).collect();
        if accounts.is_empty() {
            return Ok(Vec::new());
        }
        // The kernel gives the counts of all workloads at once.
        let begun: Vec<(Entered, Had)> = accounts.iter().map(|one| one.begin(journal, false)).collect();
        let tallies = adopter.tallies()?;
        let look = |(one, begun): (&Account, (Entered, Had))| {
            let ledger = one.ledger(begun, &tallies, adopter);
            if ledger.unexplained_connections() > 0 {
                // What doesn't fit at once may only be in between.
                return one.settle(adopter, journal, false);
            }
            one.taken.note_unexplained(0);
            Ok(ledger)
        };
        accounts.iter().zip(begun).map(look).collect()
    }

    /// Records the last counts of a workload that is let go of, and forgets them: the next of this name begins with nothing.
    pub(super) fn close_account(&self, adopter: &Adopter, held: &Held) {
        // What was on its way to the sockets comes to nothing now that they are closed.
        let deadline = Instant::now() + ON_ITS_WAY;
        while adopter.waiting(held.number) > 0 && Instant::now() < deadline {
            std::thread::sleep(ON_ITS_WAY / 20);
        }
        let (launch, account) = (held.workload.id, Account::from(held));
        match account.settle(adopter, &self.parts.journal, true) {
            Ok(ledger) => self.counted.note(&self.parts.journal, ledger, false),
            Err(error) => tracing::error!(%error, %launch, "the last counts of a workload can't be read"),
        }
        self.counted.forget(launch);
        self.parts.acceptor.forget(launch);
        if let Err(error) = adopter.forget_counts(held.number) {
            tracing::error!(%error, %launch, "the counts of a workload that was let go of can't be removed");
        }
    }
}
