//! What waits in the journals beside a database, as somebody sees it who isn't its writer. While a daemon runs it waits for
//! moments; what a killed one left comes into the database when the next one starts.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::OptionalExtension;

use super::query::{QueryError, Reader};
use super::segment::{self, HEADER};

/// The database that the journals beside it belong to. One that was moved aside has all that it was to have.
const DATABASE: &str = "record.db";

/// How far the segments of the journals were written at some moment.
#[derive(Debug)]
pub struct Waiting(Vec<Written>);

#[derive(Debug)]
struct Written {
    path: PathBuf,
    /// What the database calls the segment.
    name: String,
    end: u64,
}

impl Waiting {
    /// How far they are written now: whatever was recorded before is among that, or in the database.
    ///
    /// # Errors
    /// They can't be read.
    pub fn beside(database: &Path) -> io::Result<Self> {
        let mut all = Vec::new();
        if database.file_name().is_none_or(|name| name != DATABASE) {
            return Ok(Self(all));
        }
        let listing = match fs::read_dir(database.with_file_name("journal")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(all)),
            listing => listing?,
        };
        for item in listing {
            let path = item?.path();
            if path.extension().is_some_and(|extension| extension == "seg") {
                all.extend(written(path)?);
            }
        }
        Ok(Self(all))
    }

    /// Whether all of that is in the database by now.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn is_in(&self, reader: &Reader) -> Result<bool, QueryError> {
        let mut position = reader.db.prepare_cached("SELECT moved FROM journal WHERE segment = ?1")?;
        for Written { path, name, end } in &self.0 {
            let moved: Option<i64> = position.query_row([name], |row| row.get(0)).optional()?;
            // A segment that is in is deleted, and its position with it at the next start.
            if moved.map_or(HEADER, i64::cast_unsigned) < *end && path.exists() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How far a segment is written; none if nothing can come of it.
fn written(path: PathBuf) -> io::Result<Option<Written>> {
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut header = [0; HEADER as usize];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let Some(id) = segment::read_header(&header) else { return Ok(None) };
    let (mut at, mut end) = (HEADER, HEADER);
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = match file.read(&mut bytes) {
            Ok(0) => return Ok(Some(Written { path, name: id.to_string(), end })),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // Behind what was written are zeros.
        if let Some(last) = bytes[..count].iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += count as u64;
    }
}

#[cfg(test)]
mod tests;
