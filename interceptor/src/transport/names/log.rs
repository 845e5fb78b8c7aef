//! The file behind the names: a line for each, appended and never changed. It lives in the page cache: it must survive
//! the daemon, and ends with the host, as the workload does.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{NamesError, Pool, SLOT_BITS};
use crate::config::Hostname;

/// More than all slots of both pools with the longest names.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Where the last whole line ends.
    end: u64,
}

type Entry = (Pool, u32, Hostname);

impl Log {
    /// Opens or makes the file (mode 0600) and reads its lines. A last line without its end was never answered: it is
    /// cut off.
    pub(super) fn open(path: PathBuf) -> Result<(Log, Vec<Entry>), NamesError> {
        let (file, text) = read(&path).map_err(|source| NamesError::Io { path: path.clone(), source })?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let entries = parse(&text[..whole]).map_err(|(line, problem)| NamesError::Malformed {
            path: path.clone(),
            line,
            problem,
        })?;
        let mut log = Log { path, file, end: whole as u64 };
        log.cut().map_err(|source| NamesError::Io { path: log.path.clone(), source })?;
        Ok((log, entries))
    }

    /// Appends a line, whole or not at all.
    pub(super) fn append(&mut self, pool: Pool, slot: u32, name: &Hostname) -> Result<(), NamesError> {
        let line = format!("{} {slot} {name}\n", word(pool));
        // Whatever an earlier failure left behind goes first; if it can't be cut off, nothing is appended to it.
        let appended = self.cut().and_then(|()| self.file.write_all(line.as_bytes()));
        appended.map_err(|source| NamesError::Io { path: self.path.clone(), source })?;
        self.end += line.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        if self.file.seek(SeekFrom::End(0))? != self.end {
            self.file.set_len(self.end)?;
            self.file.seek(SeekFrom::Start(self.end))?;
        }
        Ok(())
    }
}

fn read(path: &PathBuf) -> io::Result<(File, String)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let mut text = String::new();
    (&file).take(MAX_BYTES).read_to_string(&mut text)?;
    Ok((file, text))
}

fn parse(text: &str) -> Result<Vec<Entry>, (usize, &'static str)> {
    let (mut names, mut slots) = (HashSet::new(), HashSet::new());
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = parse_line(line).ok_or((index + 1, "not `public|private SLOT NAME`"))?;
        if !names.insert(entry.2.clone()) || !slots.insert((entry.0, entry.1)) {
            return Err((index + 1, "the name or its slot is taken by a line above"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn parse_line(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let pool = [Pool::Public, Pool::Private].into_iter().find(|&pool| words.clone().next() == Some(word(pool)))?;
    let (_, slot, name, None) = (words.next()?, words.next()?, words.next()?, words.next()) else { return None };
    let slot = slot.parse().ok().filter(|&slot: &u32| slot != 0 && slot >> SLOT_BITS == 0)?;
    Some((pool, slot, name.parse().ok()?))
}

fn word(pool: Pool) -> &'static str {
    match pool {
        Pool::Public => "public",
        Pool::Private => "private",
    }
}
