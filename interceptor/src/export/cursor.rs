//! How far a sink is: a small file for each, replaced as a whole after the sink has acknowledged a batch.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ExportError;
use crate::config::ExportSettings;

/// What a sink has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// The last event.
    pub(super) seq: u64,
    /// Its hash, in hex: where the chain has another one there, it is another chain.
    pub(super) hash: String,
    /// The last event of which it has a checkpoint.
    pub(super) anchored: u64,
    /// How far the file of the checkpoints is sent, in bytes.
    pub(super) checkpoints: u64,
}

impl Default for Position {
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64), anchored: 0, checkpoints: 0 }
    }
}

/// A sink's position and the file that keeps it.
#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    at: Position,
}

impl Cursor {
    /// Opens the cursor of a sink in `folder`; a sink without one begins with the first event.
    ///
    /// # Errors
    /// When the folder can't be made, or the file not be read.
    pub(super) fn open(folder: &Path, settings: &ExportSettings) -> Result<Self, ExportError> {
        let path = folder.join(settings.to_string());
        let failed = |source| ExportError::Cursor { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let at = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Position::default(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path, at })
    }

    /// Where it is.
    pub(super) fn at(&self) -> &Position {
        &self.at
    }

    /// Moves it, on the disk first.
    ///
    /// # Errors
    /// When the file can't be written; then it hasn't moved.
    pub(super) fn advance(&mut self, at: Position) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
        serde_json::to_writer(&mut file, &at)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
        self.at = at;
        Ok(())
    }
}
