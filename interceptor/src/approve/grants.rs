//! The grants on the desk: how much is left of them, and how they end.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Desk, in_seconds};
use crate::ids::GrantId;
use crate::policy::{Grant, Grants};
use crate::record::RecordError;
use crate::record::approval::Granted;
use crate::record::event::What;

/// A grant that lets something through, and what it has let through.
pub(super) struct Live {
    pub(super) grant: Arc<Grant>,
    used: u64,
    /// Bytes and rows of answers that it let through.
    spent: (u64, u64),
    pub(super) ends: Instant,
    /// Who revoked it, where that isn't recorded yet.
    pub(super) revoked_by: Option<u32>,
}

impl Live {
    pub(super) fn new(grant: Grant, ends: Instant) -> Self {
        Self { grant: Arc::new(grant), used: 0, spent: (0, 0), ends, revoked_by: None }
    }

    /// One of an earlier desk. `since` as [`Desk::new`] has it.
    pub(super) fn again(one: Granted, since: Timestamp) -> Self {
        let left = one.grant.until.duration_since(since).as_secs();
        let left = if one.issued_at > since { 0 } else { u64::try_from(left).unwrap_or(0) };
        let spent = (one.spent_bytes, one.spent_rows);
        Self { grant: Arc::new(one.grant), used: one.used, spent, ends: in_seconds(left), revoked_by: None }
    }

    /// The grant, with what is left of it.
    pub(super) fn left(&self) -> Arc<Grant> {
        let less = |most: Option<u64>, taken: u64| most.map(|most| most.saturating_sub(taken));
        let Grant { uses, bytes, rows, .. } = *self.grant;
        if uses.or(bytes).or(rows).is_none() {
            return Arc::clone(&self.grant);
        }
        let (uses, bytes, rows) = (less(uses, self.used), less(bytes, self.spent.0), less(rows, self.spent.1));
        Arc::new(Grant { uses, bytes, rows, ..(*self.grant).clone() })
    }
}

impl Desk {
    /// The grants of the moment.
    pub fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.grants.borrow())
    }

    /// The grants, to be watched.
    pub fn watch(&self) -> watch::Receiver<Arc<Grants>> {
        self.grants.subscribe()
    }

    /// Takes one use of a grant; none if it has none left. Of any number of takers at once, as many get one as there are.
    pub fn take(self: &Arc<Self>, grant: GrantId) -> Option<Use> {
        let mut state = self.state();
        let live = state.grants.get_mut(&grant).filter(|live| Instant::now() < live.ends)?;
        if live.grant.uses.is_some_and(|uses| live.used >= uses) {
            return None;
        }
        live.used += 1;
        self.publish(&state);
        Some(Use { desk: Arc::clone(self), grant, kept: false })
    }

    /// Whether a live grant is limited in bytes, and in rows.
    pub fn limits(&self, grant: GrantId) -> Option<(bool, bool)> {
        let state = self.state();
        let grant = &state.grants.get(&grant)?.grant;
        Some((grant.bytes.is_some(), grant.rows.is_some()))
    }

    /// Takes so many bytes and rows of a grant. False, and nothing is taken, if it hasn't so many left: then it ends.
    pub fn spend(&self, grant: GrantId, bytes: u64, rows: u64) -> bool {
        let mut state = self.state();
        let Some(live) = state.grants.get_mut(&grant).filter(|live| Instant::now() < live.ends) else { return false };
        let spent = (live.spent.0.saturating_add(bytes), live.spent.1.saturating_add(rows));
        let is_within = |most: Option<u64>, spent: u64| most.is_none_or(|most| spent <= most);
        let fits = is_within(live.grant.bytes, spent.0) && is_within(live.grant.rows, spent.1);
        if fits {
            live.spent = spent;
            // Who begins now finds nothing left.
            if live.grant.bytes == Some(spent.0) || live.grant.rows == Some(spent.1) {
                self.publish(&state);
            }
            return true;
        }
        if (self.record)(What::GrantEnded { grant, reason: "used-up".into(), by: None }).is_ok() {
            state.grants.remove(&grant);
        } else if let Some(live) = state.grants.get_mut(&grant) {
            // Its end is recorded when that can be done again; it lets nothing through any more.
            live.ends = Instant::now();
        }
        self.publish(&state);
        false
    }

    /// Issues a grant as an operator, for so many seconds.
    ///
    /// # Errors
    /// It can't be recorded.
    pub fn issue(&self, grant: Grant, time: u64, by: u32) -> Result<(), RecordError> {
        let mut state = self.state();
        (self.record)(What::GrantIssued { grant: Box::new(grant.clone()), by: Some(by) })?;
        state.grants.insert(grant.id, Live::new(grant, in_seconds(time)));
        self.publish(&state);
        Ok(())
    }

    /// Ends a grant before its time; false if it isn't live.
    ///
    /// # Errors
    /// It can't be recorded.
    pub fn revoke(&self, grant: GrantId, by: u32) -> Result<bool, RecordError> {
        let mut state = self.state();
        let Some(live) = state.grants.get_mut(&grant) else { return Ok(false) };
        // It ends first: a record that is full mustn't keep it alive. What can't be recorded is tried again.
        (live.ends, live.revoked_by) = (Instant::now(), Some(by));
        self.publish(&state);
        (self.record)(What::GrantEnded { grant, reason: "revoked".into(), by: Some(by) })?;
        state.grants.remove(&grant);
        Ok(true)
    }
}

/// One use of a grant, taken. It is given back if what it was taken for isn't done.
#[derive(Debug)]
pub struct Use {
    desk: Arc<Desk>,
    grant: GrantId,
    kept: bool,
}

impl Use {
    /// It was used, and that is in the record.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut state = self.desk.state();
        if let Some(live) = state.grants.get_mut(&self.grant) {
            live.used = live.used.saturating_sub(1);
            self.desk.publish(&state);
        }
    }
}

#[cfg(test)]
mod tests;
