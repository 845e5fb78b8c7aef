//! The writer's part of the hash of the file of the database before: it has it computed beside, and enters it once it is known.

use std::sync::Arc;

use super::super::event::{Event, What};
use super::super::rotate::Hashing;
use super::super::store::Entry;
use super::{RecordError, Writer};

impl Writer {
    /// Has the file of the database before hashed, where this one doesn't have its hash yet.
    pub(in crate::record) fn hash_before(&mut self) {
        self.leave_hash();
        let Some(store) = &self.store else { return };
        self.hash_due = false;
        let unhashed = store.unhashed().unwrap_or_else(|error| {
            tracing::warn!(%error, "whether a database is to be hashed can't be read");
            None
        });
        let Some(previous) = unhashed else { return };
        let aside = self.database.with_file_name(&previous);
        self.backlog.hashing(Some(previous.clone()));
        match Hashing::start(aside, previous, Arc::clone(&self.hasher), Arc::clone(&self.backlog)) {
            Ok(hashing) => self.hashing = Some(hashing),
            Err(error) => {
                tracing::warn!(%error, "the database before can't be hashed; it is tried again at the next start");
                self.backlog.hashing(None);
            }
        }
    }

    /// Leaves what is read, or was, for a database that isn't the one any more: it doesn't belong into the next.
    pub(super) fn leave_hash(&mut self) {
        self.hashing = None;
        self.backlog.hashing(None);
        self.hash_due = true;
    }

    /// Enters what came of it, and signs it.
    pub(super) fn enter_hash(&mut self) -> Result<(), RecordError> {
        if self.hash_due {
            // A rotation failed when the new database was begun already.
            self.hash_before();
        }
        if let Some(store) = self.store.as_mut()
            && let Some(hashed) = self.backlog.hash_to_enter()
        {
            let at = self.clock.now();
            store.append(&[Entry::of(&Event { at, what: What::RecordHashed(hashed) })?], &[], &[])?;
            self.backlog.moved(0, store.head().seq, 0);
            self.backlog.unanchored(at);
            // What proves the most of the one before isn't left without a signature.
            let signed = self.checkpoint(true);
            self.backlog.hash_entered();
            signed?;
        }
        Ok(())
    }
}
