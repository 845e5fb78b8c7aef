//! What a service manager is told (sd_notify(3)): that the daemon serves, that it lives, that it stops. And what it keeps while
//! no daemon runs: the sockets in the workloads' namespaces, at which connections wait then instead of being refused. Without
//! a manager nothing is told, and nothing kept.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::transport::namespace::{self, Sockets};

/// Tells that the daemon serves; from then on that it lives, as often as the manager wants to know.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
    let mut patience = 0;
    if sd_notify::watchdog_enabled(false, &mut patience) {
        tokio::spawn(async move {
            // The runtime that answers operators: if it stands still, nothing is told.
            let mut ticks = tokio::time::interval(Duration::from_micros(patience / 2));
            loop {
                ticks.tick().await;
                tell(&[NotifyState::Watchdog]);
            }
        });
    }
}

/// Tells that the daemon stops, which takes as long as its drain.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

/// The sockets that the manager keeps.
pub(super) struct Store(Mutex<HashMap<String, OwnedFd>>);

impl Store {
    /// What it kept for this daemon.
    pub(super) fn inherited() -> Self {
        let kept = namespace::inherited().unwrap_or_else(|error| {
            tracing::warn!(%error, "what the service manager kept can't be used");
            Vec::new()
        });
        Self(Mutex::new(kept.into_iter().collect()))
    }

    /// The sockets that were kept under this name, once.
    pub(super) fn take(&self, name: &str) -> Option<Sockets> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Sockets::kept(|part| kept.remove(&part_of(name, part)))
    }

    /// Has the manager keep these sockets from now on.
    pub(super) fn keep(&self, name: &str, sockets: &Sockets) {
        for (part, socket) in sockets.parts() {
            let name = part_of(name, part);
            let states = [NotifyState::FdStore, NotifyState::FdName(&name)];
            if let Err(error) = sd_notify::notify_with_fds(false, &states, &[socket]) {
                tracing::warn!(%error, "the service manager can't keep a socket; its connections are refused while no daemon runs");
            }
        }
    }

    /// Lets go of what was kept for workloads that there aren't any more.
    pub(super) fn let_go_of_the_rest(&self) {
        let kept = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for name in kept.keys() {
            tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
        }
    }

    /// Has the manager let go of them.
    pub(super) fn let_go(&self, name: &str) {
        for part in namespace::PARTS {
            tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(&part_of(name, part))]);
        }
    }
}

/// Letters, digits, `_`, `.` and `-` only, as names of descriptors have to be.
fn part_of(name: &str, part: &str) -> String {
    format!("{name}.{part}")
}
