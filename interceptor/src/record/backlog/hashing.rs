//! The hash of the file of the database before: a thread computes it, the writer enters it, and who asked for the new database
//! waits for it.

use std::sync::PoisonError;
use std::time::Duration;

use super::super::event::Hashed;
use super::Backlog;

/// How far it is.
#[derive(Debug, Default)]
pub(super) enum Hash {
    /// Nobody asked for one.
    #[default]
    Unasked,
    /// This file is read.
    Reads(String),
    /// It was read, and what came of it isn't in the database yet.
    Read(Hashed),
    /// It is.
    Entered(Hashed),
}

impl Backlog {
    /// This file is read now; none is where that can't be begun.
    pub(in crate::record) fn hashing(&self, previous: Option<String>) {
        self.state().hash = previous.map_or(Hash::Unasked, Hash::Reads);
        self.flushed.notify_all();
    }

    /// A file was read. Nothing where it isn't the one that is waited for any more.
    pub(in crate::record) fn hashed(&self, hashed: Hashed) {
        let mut state = self.state();
        if matches!(&state.hash, Hash::Reads(previous) if *previous == hashed.previous) {
            state.hash = Hash::Read(hashed);
            state.tidy = true;
            self.work.notify_one();
            self.flushed.notify_all();
        }
    }

    /// What the writer is to enter, if there is anything.
    pub(in crate::record) fn hash_to_enter(&self) -> Option<Hashed> {
        let state = self.state();
        match &state.hash {
            Hash::Read(hashed) => Some(hashed.clone()),
            _ => None,
        }
    }

    /// It is entered.
    pub(in crate::record) fn hash_entered(&self) {
        let mut state = self.state();
        state.hash = match std::mem::take(&mut state.hash) {
            Hash::Read(hashed) => Hash::Entered(hashed),
            other => other,
        };
        self.flushed.notify_all();
    }

    /// The hash of this file. Blocks until it is in the database, at most for `within`; none where that takes longer, and where
    /// the file can't be read.
    pub(in crate::record) fn hash_of(&self, previous: &str, within: Duration) -> Option<String> {
        let is_awaited = |hash: &Hash| matches!(hash, Hash::Reads(_) | Hash::Read(_));
        let (state, _) = self
            .flushed
            .wait_timeout_while(self.state(), within, |state| is_awaited(&state.hash))
            .unwrap_or_else(PoisonError::into_inner);
        match &state.hash {
            Hash::Entered(hashed) if hashed.previous == previous => hashed.digest.clone(),
            _ => None,
        }
    }
}
