//! Reading signed checkpoints as they are appended, to send them elsewhere. They are taken as they stand in the file:
//! whether they are sound is for who has them to check.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use super::Checkpoint;

/// A checkpoint as a line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The line, without its end: what the next one names the digest of.
    pub line: String,
    /// Where the line behind it begins in the file.
    pub end: u64,
}

/// The most bytes of one line; a checkpoint has less than 512.
const LINE: u64 = 4096;

/// The checkpoints beside `database` from byte `from` of their file on, at most `count`. Lines that aren't checkpoints are
/// left out; so is a last one that isn't whole. Where the file is shorter than that, it is another one: it is read from its
/// beginning.
///
/// # Errors
/// When the file can't be read; one that isn't there has none.
pub fn follow(database: &Path, from: u64, count: usize) -> io::Result<Vec<Signed>> {
    let mut file = match File::open(super::file(database)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut end = if file.metadata()?.len() < from { 0 } else { from };
    file.seek(SeekFrom::Start(end))?;
    let mut reader = BufReader::new(file);
    let mut found = Vec::new();
    let mut line = Vec::new();
    while found.len() < count {
        line.clear();
        let read = io::Read::take(&mut reader, LINE).read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') && (read as u64) < LINE {
            break;
        }
        end += read as u64;
        let text = std::str::from_utf8(line.trim_ascii_end()).ok();
        if let Some((text, checkpoint)) = text.and_then(|text| Some((text, serde_json::from_str(text).ok()?))) {
            found.push(Signed { checkpoint, line: text.to_owned(), end });
        }
    }
    Ok(found)
}
