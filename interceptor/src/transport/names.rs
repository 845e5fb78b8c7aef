//! Synthetic addresses: one pair (IPv4, IPv6) for each name that a launched workload looked up, so that the address it
//! connects to says exactly which name it means. Handing them out over DNS is `resolver`'s.
//!
//! Two pools, so that a server's own guard against forged requests (SSRF) comes to the same verdict as without us: one
//! whose addresses look public, one whose addresses look private. A pair is for the life of the workload and is never
//! reused; it is in the workload's folder before it is answered, so that it means the same after a restart of the daemon.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Hostname;

mod log;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The workload looked up as many names as it may.
    #[error("this workload has looked up {0} names, which is its limit; raise `limits.names`")]
    Full(usize),
    /// The file couldn't be read or written.
    #[error("couldn't use the names in `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file says something that was never written.
    #[error("`{}` line {line}: {problem}; end the workload, its names are lost", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

/// What the addresses of a name look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pool {
    /// Globally reachable, for names whose real addresses are.
    Public,
    /// Private (RFC 1918, RFC 4193), for all others.
    Private,
}

/// The names of one launched workload.
#[derive(Debug)]
pub struct Names {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    log: log::Log,
    /// In the order of assignment; a slot's place in its pool is in `slots` and `by_slot`.
    by_name: HashMap<Hostname, (Pool, u32)>,
    by_slot: HashMap<(Pool, u32), Hostname>,
    /// The next slot of each pool.
    next: [u32; 2],
}

/// The bits of an address that tell the names of a pool apart.
const SLOT_BITS: u32 = 16;
/// 55.160.0.0/16: assigned to the US Department of Defense and in nobody's use as a service; public to every guard.
const PUBLIC_V4: u32 = u32::from_be_bytes([55, 160, 0, 0]);
/// 10.213.0.0/16.
const PRIVATE_V4: u32 = u32::from_be_bytes([10, 213, 0, 0]);
/// `2d49:6e74:6572::/48`: global unicast that no registry has been given; "Inter" in ASCII.
const PUBLIC_V6: u128 = 0x2d49_6e74_6572 << 80;
/// `fd49:6e74:6572::/48`.
const PRIVATE_V6: u128 = 0xfd49_6e74_6572 << 80;

impl Names {
    /// Reads the names of the workload whose folder this is; there are none yet if it has no file `names`. At most
    /// `limit` names are assigned (and never more than 65,535 in one pool).
    pub fn open(folder: &Path, limit: usize) -> Result<Names, NamesError> {
        let (log, entries) = log::Log::open(folder.join("names"))?;
        let mut table = Table { log, by_name: HashMap::new(), by_slot: HashMap::new(), next: [1, 1] };
        for (pool, slot, name) in entries {
            table.insert(pool, slot, name);
        }
        Ok(Names { limit, table: Mutex::new(table) })
    }

    /// The pair of a name: the one it has, or a new one from this pool, stored before it is returned.
    pub fn assign(&self, name: &Hostname, pool: Pool) -> Result<(Ipv4Addr, Ipv6Addr), NamesError> {
        let mut table = self.table();
        if let Some(&(pool, slot)) = table.by_name.get(name) {
            return Ok(pair(pool, slot));
        }
        let slot = table.next[pool as usize];
        if table.by_name.len() >= self.limit || slot >> SLOT_BITS != 0 {
            return Err(NamesError::Full(table.by_name.len()));
        }
        table.log.append(pool, slot, name)?;
        table.insert(pool, slot, name.clone());
        Ok(pair(pool, slot))
    }

    /// The pair that a name has already.
    pub fn pair_of(&self, name: &Hostname) -> Option<(Ipv4Addr, Ipv6Addr)> {
        self.table().by_name.get(name).map(|&(pool, slot)| pair(pool, slot))
    }

    /// The name behind an address; none if it isn't synthetic, or was never assigned.
    pub fn name_of(&self, address: IpAddr) -> Option<Hostname> {
        let slot = slot(address)?;
        self.table().by_slot.get(&slot).cloned()
    }

    /// Whether an address is in one of the pools, assigned or not. Such an address is never dialled.
    pub fn is_synthetic(address: IpAddr) -> bool {
        slot(address).is_some()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // INVARIANT: nothing panics between two changes of the table, so a poisoned one is whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, pool: Pool, slot: u32, name: Hostname) {
        let next = &mut self.next[pool as usize];
        *next = (*next).max(slot + 1);
        self.by_slot.insert((pool, slot), name.clone());
        self.by_name.insert(name, (pool, slot));
    }
}

fn pair(pool: Pool, slot: u32) -> (Ipv4Addr, Ipv6Addr) {
    let (v4, v6) = match pool {
        Pool::Public => (PUBLIC_V4, PUBLIC_V6),
        Pool::Private => (PRIVATE_V4, PRIVATE_V6),
    };
    ((v4 | slot).into(), (v6 | u128::from(slot)).into())
}

/// The slot that an address stands for. All of an IPv6 pool is synthetic; what lies beyond the slots is slot 0, which no
/// name has.
fn slot(address: IpAddr) -> Option<(Pool, u32)> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            let slot = bits & ((1 << SLOT_BITS) - 1);
            match bits - slot {
                PUBLIC_V4 => Some((Pool::Public, slot)),
                PRIVATE_V4 => Some((Pool::Private, slot)),
                _ => None,
            }
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            let rest = bits & ((1 << 80) - 1);
            let slot = u32::try_from(rest).unwrap_or(0);
            match bits - rest {
                PUBLIC_V6 => Some((Pool::Public, slot)),
                PRIVATE_V6 => Some((Pool::Private, slot)),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
