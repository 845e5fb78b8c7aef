//! The live connections. A connection is here before it is decided, so that whatever must end it can reach it.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::ids::{LaunchId, SessionId};

/// What is asked of a live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Live,
    /// Finish what is under way, take nothing new.
    Drain,
    /// End now.
    Cut(&'static str),
}

/// All live connections of the daemon.
#[derive(Debug, Default)]
pub struct Registry {
    live: Mutex<HashMap<SessionId, Entry>>,
    busy: Mutex<HashMap<LaunchId, usize>>,
    left: Mutex<BTreeSet<LaunchId>>,
    freed: AtomicUsize,
}

/// A place among the operations of one launch that are under way; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    registry: Arc<Registry>,
    launch: LaunchId,
}

#[derive(Debug)]
struct Entry {
    launch: LaunchId,
    order: watch::Sender<Order>,
}

impl Registry {
    /// Enters a connection; what is asked of it is seen through the receiver.
    pub fn enter(&self, session: SessionId, launch: LaunchId) -> watch::Receiver<Order> {
        let (order, receiver) = watch::channel(Order::Live);
        self.entries().insert(session, Entry { launch, order });
        receiver
    }

    /// Takes a connection out, when it has ended.
    pub fn leave(&self, session: SessionId) {
        if let Some(Entry { launch, .. }) = self.entries().remove(&session) {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(launch);
        }
        self.free();
    }

    /// The workloads of which a connection has ended since this was last asked.
    pub fn left(&self) -> BTreeSet<LaunchId> {
        mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection has freed most of its memory: it rests, or is gone.
    pub fn free(&self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a connection has freed most of its memory; wraps around.
    pub fn freed(&self) -> usize {
        self.freed.load(Ordering::Relaxed)
    }

    /// The live connections whose ids begin like this.
    pub fn find(&self, id: &str) -> Vec<SessionId> {
        self.entries().keys().filter(|session| session.to_string().starts_with(id)).copied().collect()
    }

    /// Asks something of one connection.
    pub fn tell(&self, session: SessionId, order: Order) {
        if let Some(entry) = self.entries().get(&session) {
            entry.order.send_replace(order);
        }
    }

    /// Asks something of every connection.
    pub fn tell_all(&self, order: Order) {
        for entry in self.entries().values() {
            entry.order.send_replace(order);
        }
    }

    /// Asks something of one workload's connections.
    pub fn tell_launch(&self, launch: LaunchId, order: Order) {
        for entry in self.entries().values().filter(|entry| entry.launch == launch) {
            entry.order.send_replace(order);
        }
    }

    /// Takes a place for one more operation of a launch; none where `most` are under way.
    pub fn seat(self: &Arc<Self>, launch: LaunchId, most: usize) -> Option<Seat> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let count = busy.entry(launch).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Seat { registry: Arc::clone(self), launch })
    }

    /// How many connections of one workload live.
    pub fn count(&self, launch: LaunchId) -> usize {
        self.entries().values().filter(|entry| entry.launch == launch).count()
    }

    /// How many connections live.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Entry>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut busy = self.registry.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = busy.get_mut(&self.launch) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.launch);
            }
        }
    }
}

#[cfg(test)]
mod tests;
