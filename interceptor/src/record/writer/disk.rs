//! The writer's part of a full disk and of other outages: it tells them, and takes the reserve again. And
//! what it writes beside the database.

use std::time::{Duration, Instant};

use super::super::event::Event;
use super::super::store::{Entry, Store};
use super::{RecordError, Writer};

/// How often it is looked whether a full disk has room again.
const LOOK: Duration = Duration::from_secs(1);

impl Writer {
    /// Takes the reserve again if there is room, and tells of an outage that has begun or is over.
    pub(super) fn look_after_disk(&mut self) -> Result<(), RecordError> {
        let now = Instant::now();
        let is_due = self.room_at.is_none_or(|at| at <= now);
        // The beginning is told before it can be over.
        self.tell_outage()?;
        if is_due {
            self.room_at = self.backlog.retake().then(|| now + LOOK);
            self.tell_outage()?;
        }
        Ok(())
    }

    /// Writes the end of the chain down beside the database.
    pub(super) fn save_head(&mut self) -> Result<(), RecordError> {
        let head = self.store.as_ref().map(Store::head);
        if let Some(head) = head
            && self.saved != Some(head)
        {
            head.save(&self.head_file).map_err(|source| RecordError::File {
                doing: "write",
                path: self.head_file.clone(),
                source,
            })?;
            self.saved = Some(head);
        }
        Ok(())
    }

    fn tell_outage(&mut self) -> Result<(), RecordError> {
        let at = self.clock.now();
        while let Some(store) = self.store.as_mut()
            && let Some(what) = self.backlog.outage(at)
        {
            store.append(&[Entry::of(&Event { at, what })?], &[], &[])?;
            self.backlog.moved(0, store.head().seq, 0);
            self.backlog.unanchored(at);
            self.backlog.outage_told();
        }
        Ok(())
    }
}
