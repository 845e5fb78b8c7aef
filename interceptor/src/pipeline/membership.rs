//! Groups that no token tells, of those whose operations go on: they are looked up again when what was told of them isn't
//! believed any more, and when the workload is issued a newer token of theirs. Whether they still permit what goes on is
//! decided in [`super::operation`].

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, timeout};

use super::authenticate::Identified;
use crate::identity::LookedUp;
use crate::identity::provenance::Newest;
use crate::policy::Principal;

/// How long groups are believed at most, whatever becomes of the clock meanwhile.
const LIFE: Duration = Duration::from_mins(5);

/// How long a look-up may take, of all pages: meanwhile groups count that aren't believed any more.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is known of the groups of somebody whose token doesn't tell them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Membership {
    /// Until when they are believed.
    until: Timestamp,
    /// The same, by a clock that nobody sets; none where they weren't looked up yet.
    by: Option<Instant>,
    /// How many tokens had been issued when they were looked up.
    seen: u64,
    /// How many have to have been: a newer token may be there because they are others.
    wanted: u64,
}

impl Membership {
    /// How long it is until they have to be looked up again.
    fn left(&self, now: Timestamp) -> Duration {
        if self.wanted > self.seen {
            return Duration::ZERO;
        }
        let by = self.by.map(|by| by.saturating_duration_since(Instant::now())).unwrap_or_default();
        let left: Duration = self.until.duration_since(now).try_into().unwrap_or_default();
        left.min(by)
    }
}

impl Identified {
    /// For how many tokens its groups have to be looked up again; none if they needn't be now.
    pub(super) fn due(&self, now: Timestamp) -> Option<u64> {
        self.membership.filter(|known| known.left(now).is_zero()).map(|known| known.wanted)
    }

    /// Takes over the groups that were looked up; none leaves them unknown. Gives whether they are others than before.
    pub(super) fn regroup(&mut self, found: Option<LookedUp>) -> bool {
        // It may have got another token meanwhile.
        let wanted = self.membership.map_or(0, |membership| membership.wanted);
        let (groups, membership) = match found {
            Some(LookedUp { groups, until, seen }) => {
                let by = Instant::now().checked_add(LIFE);
                (Some(groups), Some(Membership { until, by, seen, wanted }))
            }
            None => (None, None),
        };
        self.membership = membership;
        let changed = groups != self.principal.groups;
        if changed {
            Arc::make_mut(&mut self.principal).groups = groups;
        }
        changed
    }

    /// Takes over what the issuer said last. Gives whether that is something else. Groups that it doesn't tell have to be
    /// looked up again where they are known, also where an older token told them; until then they stay.
    pub(super) fn renew(&mut self, newest: &Newest) -> bool {
        let Newest { issued, place } = newest;
        let groups = issued.groups.as_ref().or(self.principal.groups.as_ref());
        self.membership = match &issued.groups {
            Some(_) => None,
            None => groups.map(|_| {
                let known = self.membership.unwrap_or_default();
                Membership { wanted: known.wanted.max(place + 1), ..known }
            }),
        };
        let changed = groups != self.principal.groups.as_ref() || issued.roles != self.principal.roles;
        if changed {
            let (groups, roles) = (groups.cloned(), issued.roles.clone());
            let principal = Arc::make_mut(&mut self.principal);
            (principal.groups, principal.roles) = (groups, roles);
        }
        changed
    }
}

/// The next look-up for an operation that goes on, once it is under way. Whatever else happens meanwhile doesn't begin it
/// anew: a workload could get itself tokens without end.
#[derive(Default)]
pub(super) struct Again(Option<Looking>);

/// A look-up, given up when this is dropped. It has a task of its own: others may wait for the same answer, while the
/// operation is busy with something else.
struct Looking(JoinHandle<Option<LookedUp>>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Again {
    /// Waits until the groups of `who` were looked up again and are others, or can't be known any more; gives the code of
    /// what ends if policy wants them. For ever where they weren't looked up. `ask` looks up a principal's, as
    /// [`Judge::groups`](crate::identity::Judge::groups) does; what it doesn't find in time is unknown. What was waited for
    /// isn't lost if this is dropped.
    pub(super) async fn look<F>(
        &mut self,
        who: Option<&mut Identified>,
        now: impl Fn() -> Timestamp,
        ask: impl Fn(Arc<Principal>, u64) -> F,
    ) -> &'static str
    where
        F: Future<Output = Option<LookedUp>> + 'static,
    {
        let Some(who) = who else { return pending().await };
        while let Some(membership) = who.membership {
            if self.0.is_none() {
                tokio::time::sleep(membership.left(now())).await;
            }
            let looking = || {
                let found = timeout(PATIENCE, ask(Arc::clone(&who.principal), membership.wanted));
                Looking(spawn_local(Box::pin(async move { found.await.ok().flatten() })))
            };
            // One that broke off tells nothing.
            let found = (&mut self.0.get_or_insert_with(looking).0).await.ok().flatten();
            self.0 = None;
            if who.regroup(found) {
                return if who.principal.groups.is_some() { "groups-changed" } else { "groups-unknown" };
            }
        }
        self.0 = None;
        pending().await
    }
}

#[cfg(test)]
mod tests;
