//! Which token was issued to which workload. A token is remembered by its keyed digest, never by itself, so that what is
//! stored is of no use to whoever reads it. The record keeps every entry ([`Recorded`]); this is what is looked up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::verify::LEEWAY;
use crate::ids::{ClientId, PrincipalId, WorkloadName};
use crate::policy::{Authentic, Bound, PrincipalKind};

mod digest;

pub use crate::ids::Digest;
pub use digest::DigestKey;

/// The most tokens of one workload that are remembered.
pub const TOKENS_PER_WORKLOAD: usize = 4096;

/// A token that was issued to a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The workload.
    pub workload: WorkloadName,
    /// Whom it names.
    pub principal: PrincipalId,
    /// The application that it was issued to.
    pub client: Option<ClientId>,
    /// Whom it is for.
    pub audiences: Vec<String>,
    /// What kind of principal it names.
    pub kind: PrincipalKind,
    /// Its groups, `<tenant>/<id>`; none if the token doesn't tell them all.
    pub groups: Option<Vec<String>>,
    /// Its app roles, `<tenant>/<audience>/<value>`.
    pub roles: Vec<String>,
    /// Its own id, by which Entra's sign-in logs know it.
    pub uti: Option<String>,
    /// When it ends.
    pub expiry: Timestamp,
    /// How it came to the workload.
    pub bound: Bound,
    /// What vouches for it.
    pub authentic: Authentic,
}

impl Issued {
    /// `token` with the groups and roles of this one, which was issued later.
    pub fn in_the_words_of(self: Arc<Self>, token: Arc<Issued>) -> Arc<Issued> {
        if self.groups == token.groups && self.roles == token.roles {
            return token;
        }
        Arc::new(Issued { groups: self.groups.clone(), roles: self.roles.clone(), ..(*token).clone() })
    }
}

/// Why a token is no longer accepted before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Death {
    /// A service answered it with a claims challenge. If the issuer gives it out again, it lives again.
    Challenged,
    /// An operator revoked it. It stays dead, whoever gives it out.
    Revoked,
}

/// What the record keeps of provenance, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Recorded {
    /// A token was issued.
    Issued {
        /// Its digest.
        digest: Digest,
        /// The rest.
        issued: Issued,
    },
    /// A token died.
    Dead {
        /// Its digest.
        digest: Digest,
        /// Why.
        death: Death,
    },
}

/// What is known of a token that a workload presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It was issued to this workload, and lives.
    Live(Arc<Issued>),
    /// It was issued to this workload, and is dead.
    Dead(Arc<Issued>, Death),
    /// It was issued to this workload, and has ended.
    Expired(Arc<Issued>),
    /// It was issued to others only; one of them.
    OfAnother(Arc<Issued>),
    /// Nobody saw it, or it was forgotten.
    Unknown,
}

/// What an issuer said last of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The token that says it.
    pub issued: Arc<Issued>,
    /// How many tokens had come before it, to all workloads, when it came for the first time ([`Provenance::issued`]).
    pub place: u64,
}

/// A workload has no room for another token: all that are remembered are revoked and haven't ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("workload `{0}` has {TOKENS_PER_WORKLOAD} revoked tokens that haven't expired; wait until one has")]
pub struct Full(pub WorkloadName);

/// The tokens that were issued, by digest. One token can belong to several workloads: a host endpoint gives out the same
/// one until it is about to end.
#[derive(Debug, Default)]
pub struct Provenance {
    store: RwLock<Store>,
    /// Counts what changes.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Store {
    tokens: HashMap<Digest, Vec<Entry>>,
    shelves: HashMap<WorkloadName, Shelf>,
    /// Numbers entries in the order in which they came.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    issued: Arc<Issued>,
    death: Option<Death>,
    number: u64,
    /// The number that it had when it came for the first time.
    first: u64,
}

/// The tokens of one workload, in the two orders in which they are forgotten.
#[derive(Debug, Default)]
struct Shelf {
    by_end: BTreeSet<(Timestamp, u64, Digest)>,
    /// Without revoked ones: those are forgotten when they have ended, or a flood of new tokens would bring them back.
    by_age: BTreeMap<u64, (Timestamp, Digest)>,
}

impl Provenance {
    /// A store that knows what was recorded, in the order in which it was. What has ended by `now` is left out.
    pub fn restore(recorded: impl IntoIterator<Item = Recorded>, now: Timestamp) -> Self {
        let mut store = Store::default();
        for entry in recorded {
            match entry {
                Recorded::Issued { digest, issued } if !is_over(&issued, now) => {
                    // What there was no room for then has none now.
                    let _ = store.insert(digest, issued, now);
                }
                Recorded::Issued { .. } => {}
                Recorded::Dead { digest, death } => {
                    store.kill(&digest, death);
                }
            }
        }
        Provenance { store: RwLock::new(store), changes: watch::Sender::default() }
    }

    /// Remembers that a token was issued. If its workload has too many, one that has ended is forgotten, else the
    /// oldest.
    ///
    /// # Errors
    /// [`Full`]: the token mustn't be released to the workload.
    pub fn insert(&self, digest: Digest, issued: Issued, now: Timestamp) -> Result<(), Full> {
        self.store.write().unwrap_or_else(PoisonError::into_inner).insert(digest, issued, now)?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// What is known of a token that `workload` presents.
    pub fn find(&self, digest: &Digest, workload: &WorkloadName, now: Timestamp) -> Known {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = store.tokens.get(digest) else { return Known::Unknown };
        match entries.iter().find(|entry| entry.issued.workload == *workload) {
            Some(Entry { issued, .. }) if is_over(issued, now) => Known::Expired(issued.clone()),
            Some(Entry { issued, death: Some(death), .. }) => Known::Dead(issued.clone(), *death),
            Some(Entry { issued, .. }) => Known::Live(issued.clone()),
            None => entries.first().map_or(Known::Unknown, |entry| Known::OfAnother(entry.issued.clone())),
        }
    }

    /// Marks a token dead for everybody. False if nobody has it, or if it already was.
    pub fn kill(&self, digest: &Digest, death: Death) -> bool {
        let killed = self.store.write().unwrap_or_else(PoisonError::into_inner).kill(digest, death);
        if killed {
            self.changes.send_modify(|count| *count += 1);
        }
        killed
    }

    /// Counts the tokens that were issued and killed, to be watched.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How many tokens have come so far, to all workloads.
    pub fn issued(&self) -> u64 {
        self.store.read().unwrap_or_else(PoisonError::into_inner).next
    }

    /// The newest token that was issued to the same workload, for the same principal and application, for the same
    /// audiences: what the issuer said of them last. It may be this one; also where this one was challenged, if none has
    /// come since.
    pub fn latest(&self, issued: &Arc<Issued>) -> Arc<Issued> {
        self.newest(issued).issued
    }

    /// As [`Provenance::latest`], with its place among all tokens.
    pub fn newest(&self, issued: &Arc<Issued>) -> Newest {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let is_alike = |one: &Issued| {
            one.workload == issued.workload
                && one.client == issued.client
                && one.principal == issued.principal
                && one.audiences == issued.audiences
        };
        let newest = store.shelves.get(&issued.workload).and_then(|shelf| {
            shelf.by_age.iter().rev().find_map(|(number, (_, digest))| {
                let entry = store.tokens.get(digest)?.iter().find(|entry| entry.number == *number)?;
                let says = Arc::ptr_eq(&entry.issued, issued) || (entry.death.is_none() && is_alike(&entry.issued));
                says.then(|| Newest { issued: Arc::clone(&entry.issued), place: entry.first })
            })
        });
        newest.unwrap_or_else(|| Newest { issued: Arc::clone(issued), place: 0 })
    }

    /// How many tokens of a workload are remembered.
    pub fn count(&self, workload: &WorkloadName) -> usize {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.shelves.get(workload).map_or(0, |shelf| shelf.by_end.len())
    }
}

/// Ended, with the leeway that verification gives.
fn is_over(issued: &Issued, now: Timestamp) -> bool {
    now.duration_since(issued.expiry) >= LEEWAY
}

impl Store {
    fn insert(&mut self, digest: Digest, issued: Issued, now: Timestamp) -> Result<(), Full> {
        let others = self.tokens.get(&digest);
        let own = others.and_then(|entries| entries.iter().find(|entry| entry.issued.workload == issued.workload));
        // A revocation holds for the token, so also for a workload that gets it later.
        let revoked = others.is_some_and(|entries| entries.iter().any(|entry| entry.death == Some(Death::Revoked)));
        let known = own.map(|entry| (entry.issued.expiry, entry.number, entry.first));
        if let Some((end, number, _)) = known {
            self.forget(&issued.workload, (end, number, digest));
        } else {
            self.make_room(&issued.workload, now)?;
        }
        let number = self.next;
        self.next += 1;
        let shelf = self.shelves.entry(issued.workload.clone()).or_default();
        shelf.by_end.insert((issued.expiry, number, digest));
        if !revoked {
            shelf.by_age.insert(number, (issued.expiry, digest));
        }
        let death = revoked.then_some(Death::Revoked);
        let first = known.map_or(number, |(.., first)| first);
        self.tokens.entry(digest).or_default().push(Entry { issued: Arc::new(issued), death, number, first });
        Ok(())
    }

    fn make_room(&mut self, workload: &WorkloadName, now: Timestamp) -> Result<(), Full> {
        let Some(shelf) = self.shelves.get(workload) else { return Ok(()) };
        if shelf.by_end.len() < TOKENS_PER_WORKLOAD {
            return Ok(());
        }
        let ended = shelf.by_end.first().filter(|(end, ..)| now.duration_since(*end) >= LEEWAY).copied();
        let oldest = || shelf.by_age.first_key_value().map(|(number, (end, digest))| (*end, *number, *digest));
        let place = ended.or_else(oldest).ok_or_else(|| Full(workload.clone()))?;
        self.forget(workload, place);
        Ok(())
    }

    fn forget(&mut self, workload: &WorkloadName, place: (Timestamp, u64, Digest)) {
        let (_, number, digest) = place;
        if let Some(shelf) = self.shelves.get_mut(workload) {
            shelf.by_end.remove(&place);
            shelf.by_age.remove(&number);
        }
        if let Some(entries) = self.tokens.get_mut(&digest) {
            entries.retain(|entry| entry.number != number);
            if entries.is_empty() {
                self.tokens.remove(&digest);
            }
        }
    }

    fn kill(&mut self, digest: &Digest, death: Death) -> bool {
        let mut changed = false;
        for entry in self.tokens.get_mut(digest).into_iter().flatten() {
            if entry.death == Some(Death::Revoked) || entry.death == Some(death) {
                continue;
            }
            entry.death = Some(death);
            changed = true;
            if death == Death::Revoked
                && let Some(shelf) = self.shelves.get_mut(&entry.issued.workload)
            {
                shelf.by_age.remove(&entry.number);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests;
