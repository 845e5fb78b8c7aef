//! What a service manager is told (sd_notify(3)): that the daemon serves, that it lives, that it stops. Without one nothing is
//! told.

use std::time::Duration;

use sd_notify::NotifyState;

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
