//! Events with their place in the chain, as they leave the host: body, number, hash, and the hash before, from which
//! whoever has them can compute the chain. What the fields of a body mean is in [`super::event`].

use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::chain::Head;

use super::projection::integer;
use super::query::{QueryError, Reader};

/// One event of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its number.
    pub seq: u64,
    /// The hash of the event before, in hex; zeros before the first.
    pub previous: String,
    /// Its hash, in hex.
    pub hash: String,
    /// Its body, byte for byte what the hash is of.
    pub body: String,
}

/// An event of the chain, and which chain that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The event.
    #[serde(flatten)]
    pub link: Link,
    /// The hash of the chain's first event, in hex: what tells it from the chains of other hosts, and of databases that were
    /// moved aside.
    pub chain: String,
}

impl Link {
    /// Whether its hash follows from its body and the hash before.
    pub fn holds(&self) -> bool {
        let Ok(previous) = blake3::Hash::from_hex(&self.previous) else { return false };
        let Some(before) = self.seq.checked_sub(1) else { return false };
        Head { seq: before, hash: *previous.as_bytes() }.next(self.body.as_bytes()).hex() == self.hash
    }
}

impl Reader {
    /// The event that an operation's verdict is in; `operation` is a whole id.
    ///
    /// # Errors
    /// When there is no such operation, or the database fails.
    pub fn link_of(&self, operation: &str) -> Result<Placed, QueryError> {
        let sql = "SELECT e.seq, e.hash, e.body, (SELECT hash FROM events p WHERE p.seq = e.seq - 1),
                       (SELECT hash FROM events WHERE seq = 1)
                   FROM operations o JOIN events e ON e.seq = o.seq WHERE o.operation = ?1";
        let placed = |row: &Row<'_>| Ok(Placed { link: link(row)?, chain: hex(row.get(4)?) });
        let placed = self.db.prepare_cached(sql)?.query_row([operation], placed).optional()?;
        placed.ok_or_else(|| QueryError::Unknown(operation.to_owned()))
    }

    /// The events after number `after`, in order: as many as fit into `bytes`, at most `count`, but at least one if there
    /// is one.
    ///
    /// # Errors
    /// When the database fails.
    pub fn links(&self, after: u64, count: u32, bytes: usize) -> Result<Vec<Link>, QueryError> {
        let sql = "SELECT seq, hash, body, (SELECT hash FROM events p WHERE p.seq = e.seq - 1)
                   FROM events e WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query((integer(after), count))?;
        let (mut links, mut taken) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let link = link(row)?;
            taken += link.body.len();
            if taken > bytes && !links.is_empty() {
                break;
            }
            links.push(link);
        }
        Ok(links)
    }

    /// Whether the chain has this link; before the first event is one in every chain.
    ///
    /// # Errors
    /// When the database fails.
    pub fn has_link(&self, seq: u64, hash: &str) -> Result<bool, QueryError> {
        let there: Option<[u8; 32]> =
            self.db.query_row("SELECT hash FROM events WHERE seq = ?1", [integer(seq)], |row| row.get(0)).optional()?;
        Ok(seq == 0 || there.is_some_and(|there| blake3::Hash::from_bytes(there).to_hex().as_str() == hash))
    }

    /// Whether the chain can be followed from the first event to this one. Reads them all.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) fn leads_to(&self, end: Head) -> Result<bool, QueryError> {
        let mut statement = self.db.prepare("SELECT hash, body FROM events WHERE seq <= ?1 ORDER BY seq")?;
        let mut rows = statement.query([integer(end.seq)])?;
        let mut head = Head::default();
        while let Some(row) = rows.next()? {
            head = head.next(row.get::<_, String>(1)?.as_bytes());
            if row.get::<_, [u8; 32]>(0)? != head.hash {
                return Ok(false);
            }
        }
        Ok(head == end)
    }

    /// The number of the last event; 0 if there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub fn last_seq(&self) -> Result<u64, QueryError> {
        let last: Option<i64> = self.db.query_row("SELECT max(seq) FROM events", [], |row| row.get(0))?;
        Ok(last.unwrap_or(0).unsigned_abs())
    }
}

fn hex(hash: [u8; 32]) -> String {
    blake3::Hash::from_bytes(hash).to_hex().to_string()
}

fn link(row: &Row<'_>) -> rusqlite::Result<Link> {
    Ok(Link {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        hash: hex(row.get(1)?),
        body: row.get(2)?,
        previous: hex(row.get::<_, Option<[u8; 32]>>(3)?.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests;
