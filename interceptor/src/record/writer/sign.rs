//! The writer's checkpoints: when the chain is signed, and what follows where it can't be.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::super::chain::Head;
use super::super::checkpoint;
use super::super::store::Store;
use super::{RecordError, Writer};

/// How long the writer waits before it tries again to sign a checkpoint.
const SIGN_AGAIN: Duration = Duration::from_secs(5);

/// How many checkpoints are written at once: more are due where their file is gone.
const AT_ONCE: usize = 1_000;

impl Writer {
    /// Signs the chain if it is time, or `now`: its end, and before that each thousandth event that has no checkpoint behind
    /// it. When that fails, it is tried again; meanwhile the record goes on, and `status` tells how old the last checkpoint
    /// is.
    ///
    /// # Errors
    /// When the disk says that it lost what it took (EIO). That is no matter of checkpoints alone: the writer has failed.
    pub(super) fn checkpoint(&mut self, now: bool) -> Result<(), RecordError> {
        let Some(head) = self.store.as_ref().map(Store::head) else { return Ok(()) };
        let instant = Instant::now();
        let Some((since, due)) = self.signer.due(head, instant) else {
            self.backlog.uncovered(None);
            return Ok(());
        };
        let due = self.sign_at.map_or(due, |again| again.max(due));
        if !now && !self.lost && due > instant {
            self.backlog.uncovered(Some((since, due)));
            return Ok(());
        }
        let signed = self.sign(head);
        self.lost = signed.as_ref().is_err_and(is_lost);
        self.sign_at = signed.is_err().then_some(instant + SIGN_AGAIN);
        self.backlog.uncovered(self.sign_at.map(|again| (since, again)));
        match signed {
            Err(error) if !self.lost => {
                let reason = error.source().map(|source| source.to_string()).unwrap_or_default();
                tracing::error!(%error, reason, "a checkpoint of the record can't be written; it is tried again");
                Ok(())
            }
            other => other,
        }
    }

    fn sign(&mut self, head: Head) -> Result<(), RecordError> {
        // In this order: a checkpoint that knows more than the disk would accuse a host that lost its power.
        checkpoint::settle(&self.database).map_err(writing(&self.database))?;
        while let Some(store) = &self.store
            && self.signer.seq() < head.seq
        {
            let links = store.links(self.signer.seq(), checkpoint::EVENTS, AT_ONCE)?;
            let file = checkpoint::file(&self.database);
            self.signer.sign(&links, self.clock.now()).map_err(writing(&file))?;
        }
        Ok(())
    }
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    move |source| RecordError::File { doing: "write", path: path.to_owned(), source }
}

/// Whether the disk says that it lost what it took before. The kernel says so once. The writer then closes the database,
/// which brings what it wrote ahead into the file from memory, and opens it again.
fn is_lost(error: &RecordError) -> bool {
    match error {
        RecordError::File { source, .. } | RecordError::Failed(source) => {
            source.raw_os_error() == Some(Errno::EIO as i32)
        }
        RecordError::Database(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure),
        _ => false,
    }
}
