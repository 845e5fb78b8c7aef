//! The broken glass: who begins it, how it ends. What it lets through is `policy`'s to say.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Desk, State, in_seconds};
use crate::ids::{BreakGlassId, WorkloadName};
use crate::policy::BreakGlass;
use crate::record::RecordError;
use crate::record::break_glass::Broken;
use crate::record::event::What;

/// One that lasts.
pub(super) struct Glass {
    pub(super) broken: Arc<BreakGlass>,
    ends: Instant,
    /// Who stopped it, where that isn't recorded yet.
    stopped_by: Option<u32>,
}

impl Glass {
    /// One of an earlier desk. `since` as [`Desk::new`] has it.
    pub(super) fn again(one: Broken, since: Timestamp) -> Self {
        let left = one.broken.until.duration_since(since).as_secs();
        let left = if one.started_at > since { 0 } else { u64::try_from(left).unwrap_or(0) };
        Self { broken: Arc::new(one.broken), ends: in_seconds(left), stopped_by: None }
    }

    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    pub(super) fn lasts(&self) -> bool {
        Instant::now() < self.ends
    }
}

impl Desk {
    /// Breaks the glass for a workload, for so many seconds. False if it is broken for it already.
    ///
    /// # Errors
    /// It can't be recorded.
    pub fn break_glass(&self, broken: BreakGlass, time: u64, by: u32) -> Result<bool, RecordError> {
        let mut state = self.state();
        if state.glass(&broken.workload).is_some() {
            return Ok(false);
        }
        (self.record)(What::BreakGlassStarted { broken: Box::new(broken.clone()), by })?;
        state.broken.insert(broken.id, Glass { broken: Arc::new(broken), ends: in_seconds(time), stopped_by: None });
        self.publish(&state);
        Ok(true)
    }

    /// Ends it before its time; false if it doesn't last any more.
    ///
    /// # Errors
    /// It can't be recorded.
    pub fn mend_glass(&self, id: BreakGlassId, by: u32) -> Result<bool, RecordError> {
        let mut state = self.state();
        let Some(glass) = state.broken.get_mut(&id) else { return Ok(false) };
        // As a grant that is revoked.
        (glass.ends, glass.stopped_by) = (Instant::now(), Some(by));
        self.publish(&state);
        (self.record)(What::BreakGlassEnded { id, reason: "stopped".into(), by: Some(by) })?;
        state.broken.remove(&id);
        Ok(true)
    }

    /// An auditor has seen what was done.
    ///
    /// # Errors
    /// It can't be recorded.
    pub fn close_glass(&self, id: BreakGlassId, by: u32, note: String) -> Result<(), RecordError> {
        (self.record)(What::BreakGlassClosed { id, by, note })
    }

    /// Ends what is over at `at`. Gives whether something was.
    pub(super) fn expire_glass(&self, state: &mut State, at: Timestamp) -> bool {
        let over = state.broken.values().filter(|glass| !glass.lasts() || glass.broken.until <= at);
        let over: Vec<(BreakGlassId, Option<u32>)> = over.map(|glass| (glass.broken.id, glass.stopped_by)).collect();
        for (id, by) in &over {
            let reason = if by.is_some() { "stopped" } else { "expired" };
            // It lets nothing through any more; what can't be recorded is tried again.
            if (self.record)(What::BreakGlassEnded { id: *id, reason: reason.into(), by: *by }).is_ok() {
                state.broken.remove(id);
            }
        }
        !over.is_empty()
    }
}

impl State {
    /// The glass that is broken for a workload.
    fn glass(&self, workload: &WorkloadName) -> Option<&Glass> {
        self.broken.values().find(|glass| glass.broken.workload == *workload && glass.lasts())
    }
}

#[cfg(test)]
mod tests;
