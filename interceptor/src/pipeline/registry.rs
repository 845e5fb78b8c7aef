//! The live connections. A connection is here before it is decided, so that whatever must end it can reach it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

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
        self.entries().remove(&session);
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
