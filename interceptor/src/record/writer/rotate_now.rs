//! The writer's part of a rotation: seal, close, begin anew, and go on where the journals are.

use std::time::{Duration, Instant};

use super::super::event::{Event, What};
use super::super::rotate::{self, Asker, Carried, Rotated};
use super::super::store::{Entry, Store};
use super::{RecordError, Signer, Writer};

/// How long others may hold the old database open.
const READERS: Duration = Duration::from_secs(5);

impl Writer {
    /// Seals the database and begins a new one, in which what is still under way is told again. One that is damaged is
    /// moved aside as it is.
    pub(in crate::record) fn rotate(&mut self, by: Asker) -> Result<Rotated, RecordError> {
        let sealed = match self.seal(by) {
            Ok(carried) => Some(carried),
            Err(error) if rotate::is_damage(&error) => {
                tracing::warn!(%error, "the old database can't be sealed");
                None
            }
            Err(error) => return Err(error),
        };
        let is_sealed = sealed.is_some();
        let carried = sealed.unwrap_or_else(|| Carried {
            end: self.saved,
            entries: Vec::new(),
            positions: self.sources.iter().map(|source| (source.segment.id.to_string(), source.offset)).collect(),
        });
        (self.store, self.left) = (None, None);
        self.leave_hash();
        let rotated = rotate::begin(&self.database, self.durability, self.clock.now(), by, carried, is_sealed)?;
        // The sources stay where they are: the new database has their positions.
        let store = Store::open(&self.database, self.durability)?;
        self.positions = store.positions()?;
        let head = store.head();
        self.store = Some(store);
        self.saved = None;
        (self.signer, _) = Signer::open(&self.database, self.patience)?;
        self.backlog.renewed(head.seq, self.clock.now());
        self.save_head()?;
        // It was begun all the same: what fails here fails again in the pass that follows.
        let _signed = self.checkpoint(true);
        tracing::info!(previous = rotated.previous, sealed = is_sealed, "a new database was begun");
        Ok(rotated)
    }

    /// Moves what waits, appends the last event, signs it, and brings all of it into the file.
    fn seal(&mut self, by: Asker) -> Result<Carried, RecordError> {
        self.pass()?;
        let at = self.clock.now();
        let Some(store) = self.store.as_mut() else { return Ok(Carried::default()) };
        let entries = store.under_way(at)?;
        store.append(&[Entry::of(&Event { at, what: What::RecordRotated { uid: by.uid, pid: by.pid } })?], &[], &[])?;
        let (end, positions) = (store.head(), store.positions()?);
        self.save_head()?;
        self.checkpoint(true)?;
        let began = Instant::now();
        while let Some(store) = self.store.as_mut()
            && !(store.truncate()? && store.leave_log()?)
        {
            if began.elapsed() > READERS {
                return Err(RecordError::InTheWay);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Carried { end: Some(end), entries, positions: positions.into_iter().collect() })
    }
}
