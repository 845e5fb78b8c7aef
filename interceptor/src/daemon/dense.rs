//! Moves the heap of a daemon that has much to do onto huge pages. One that has little gains nothing by it.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use crate::heap::HugePages;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How much CPU time all threads took since the last look where there is much to do: a quarter of a processor.
const MUCH: Duration = Duration::from_millis(250);

/// Keeps what is in use on huge pages as long as the daemon runs, unless the system has none or is told never to use them.
pub(super) async fn keep() {
    match HugePages::new() {
        Ok(None) => tracing::debug!("this system uses no huge pages"),
        Ok(Some(pages)) => {
            let Err(error) = gather(pages).await;
            tracing::debug!(%error, "memory isn't moved onto huge pages any more");
        }
        Err(error) => tracing::debug!(%error, "memory isn't moved onto huge pages"),
    }
}

/// Until it can't be done.
async fn gather(mut pages: HugePages) -> io::Result<Infallible> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = spent()?;
    loop {
        ticks.tick().await;
        let now = spent()?;
        let is_busy = now.saturating_sub(before) >= MUCH;
        before = now;
        if is_busy {
            let look = move || pages.gather().map(|moved| (pages, moved));
            let (same, moved) = spawn_blocking(look).await.map_err(io::Error::other)??;
            pages = same;
            tracing::trace!(moved, "memory lies on huge pages");
        }
    }
}

/// The CPU time of all threads since the start.
fn spent() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = |value: TimeVal| {
        let micros = value.tv_sec().checked_mul(1_000_000)?.checked_add(value.tv_usec())?;
        u64::try_from(micros).ok().map(Duration::from_micros)
    };
    time(usage.user_time() + usage.system_time()).ok_or_else(|| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests;
