//! Opening the database again after a failure, and noticing that another file has taken its place.

use super::super::query::Reader;
use super::super::rotate;
use super::super::segment::HEADER;
use super::super::store::{FileId, Store};
use super::{RecordError, Writer};

impl Writer {
    /// Sees that the database is open, and is the one that it was.
    pub(super) fn reopen(&mut self) -> Result<(), RecordError> {
        let there = FileId::of(&self.database).ok();
        if let Some(store) = &self.store {
            if there == Some(store.file()) {
                return Ok(());
            }
            // By its name its write-ahead log would be taken for that of the other file.
            store.truncate()?;
            (self.saved, self.file) = (Some(store.head()), Some(store.file()));
            self.store = None;
        }
        // A rotation may have failed between two steps.
        rotate::settle(&self.database)?;
        let end = self.saved.unwrap_or_default();
        let has_all = || Reader::open(&self.database).and_then(|reader| reader.has_link(end.seq, &end.hex()));
        // A copy of it will do; one that lacks what was recorded isn't even opened for writing.
        if self.file.is_some() && self.file != there && !has_all().unwrap_or(false) {
            return Err(RecordError::Replaced { path: self.database.clone() });
        }
        let store = Store::open(&self.database, self.durability)?;
        self.positions = store.positions()?;
        for source in &mut self.sources {
            let moved = self.positions.get(&source.segment.id.to_string()).copied().unwrap_or(HEADER);
            if !source.segment.left {
                self.backlog.moved(moved.saturating_sub(source.offset), store.head().seq, 0);
            }
            source.offset = moved;
        }
        self.store = Some(store);
        Ok(())
    }
}
