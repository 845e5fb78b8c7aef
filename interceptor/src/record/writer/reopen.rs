//! Opening the database again after a failure, and noticing that another one has taken its place: by its name, or in the very
//! file.

use std::io;

use super::super::chain::Head;
use super::super::query::{QueryError, Reader};
use super::super::rotate;
use super::super::segment::HEADER;
use super::super::store::{FileId, Store};
use super::{RecordError, Writer};

/// The database as it was when it was closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    end: Head,
    /// Whether somebody else wrote into its file: then it may be a mixture, in which the end alone says nothing.
    overwritten: bool,
}

impl Writer {
    /// Sees that the database is open, and is the one that it was.
    pub(super) fn reopen(&mut self) -> Result<(), RecordError> {
        if let Some(store) = &mut self.store {
            let is_there = FileId::of(&self.database).ok() == Some(store.file());
            if is_there && !store.is_overwritten() {
                return Ok(());
            }
            if !is_there {
                // By its name its write-ahead log would be taken for that of the other file.
                store.empty_log()?;
            }
            self.leave();
        }
        // A rotation may have failed between two steps.
        rotate::settle(&self.database)?;
        if let Some(left) = self.left {
            self.compare_with(left)?;
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
        (self.store, self.left) = (Some(store), None);
        Ok(())
    }

    /// Closes the database, and keeps in mind what has to be in it when it is opened again.
    pub(super) fn leave(&mut self) {
        if let Some(store) = self.store.take() {
            let (end, overwritten) = store.close();
            self.left = Some(Left { end, overwritten });
        }
    }

    /// Refuses a database that lacks what was recorded: it isn't even opened for writing. A copy that has all of it will do.
    fn compare_with(&self, left: Left) -> Result<(), RecordError> {
        let Left { end, overwritten } = left;
        let compared = Reader::open(&self.database)
            .and_then(|reader| Ok(reader.has_link(end.seq, &end.hex())? && (!overwritten || reader.leads_to(end)?)));
        match compared.map_err(unread) {
            Ok(true) => Ok(()),
            Err(error) if !is_another(&error) => Err(error),
            _ => Err(RecordError::Replaced { path: self.database.clone() }),
        }
    }
}

/// Whether an error says that what is there isn't the record, and not that it can't be read at the moment.
fn is_another(error: &RecordError) -> bool {
    let is_gone = matches!(error, RecordError::File { source, .. } if source.kind() == io::ErrorKind::NotFound);
    is_gone || rotate::is_damage(error)
}

fn unread(error: QueryError) -> RecordError {
    match error {
        QueryError::Record(error) => error,
        QueryError::Database(error) => RecordError::Database(error),
        other => RecordError::Failed(io::Error::other(other)),
    }
}
