//! The ledger's counts of adopted workloads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::ledger::{self, Entered, Had};
use super::super::reload::OwnJournal;
use super::{Adoptions, Held};
use crate::bpf::BpfError;
use crate::bpf::adopt::{Adopter, Number};
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
    /// The counts, as far as they settle, and whether they are the last.
    fn settle(&self, adopter: &Adopter, journal: &OwnJournal, last: bool) -> Result<Ledger, BpfError> {
        let count = || -> Result<Ledger, BpfError> {
            let entered = Entered::now(journal, &self.taken, last);
            let had = Had::from(&*self.taken);
            let mut tallies = adopter.tallies()?;
            tallies.retain(|one| one.workload == self.number);
            let kinds = ledger::adopted(&tallies, adopter.waiting(self.number), had);
            Ok(entered.ledger(self.launch, self.workload.clone(), kinds))
        };
        let settled = if last { ledger::last(&self.taken, count) } else { ledger::settled(count) }?;
        self.taken.note_unexplained(settled.unexplained_connections());
        Ok(settled)
    }
}

impl Adoptions {
    /// The counts of all, as far as they settle.
    ///
    /// # Errors
    /// The kernel's can't be read.
    pub(in super::super) fn ledger(&self) -> Result<Vec<Ledger>, BpfError> {
        let Some(adopter) = self.adopter.get() else { return Ok(Vec::new()) };
        let accounts: Vec<Account> = self.held().values().map(Account::from).collect();
        accounts.iter().map(|one| one.settle(adopter, &self.parts.journal, false)).collect()
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
            Ok(ledger) => self.counted.note(&self.parts.journal, ledger),
            Err(error) => tracing::error!(%error, %launch, "the last counts of a workload can't be read"),
        }
        self.counted.forget(launch);
        self.parts.acceptor.forget(launch);
        if let Err(error) = adopter.forget_counts(held.number) {
            tracing::error!(%error, %launch, "the counts of a workload that was let go of can't be removed");
        }
    }
}
