//! Gives memory back to the system. glibc keeps what is freed between what isn't; once a burst of connections is over, or
//! hundreds of them rest, that can be most of the heap.

use std::sync::Arc;
use std::time::Duration;

use crate::heap;
use crate::pipeline::Registry;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How many connections' worth makes it worth while: some megabytes. It takes milliseconds, in which others that allocate
/// may wait; so it also waits until fewer than that are freed between two looks. Where no connection lives nobody waits, and
/// any is enough.
const ENOUGH: usize = 64;

/// Gives back what connections that rest or ended have freed, as long as the daemon runs.
pub(super) async fn give_back(registry: Arc<Registry>) {
    let mut ticks = tokio::time::interval(EVERY);
    // The start frees much as well.
    let (mut given, mut seen) = (registry.freed().wrapping_sub(ENOUGH), 0);
    loop {
        ticks.tick().await;
        let freed = registry.freed();
        let is_calm = freed.wrapping_sub(seen) < ENOUGH;
        seen = freed;
        if !is_calm || !is_enough(freed.wrapping_sub(given), registry.is_empty()) {
            continue;
        }
        given = freed;
        if let Err(error) = tokio::task::spawn_blocking(heap::give_back).await {
            tracing::error!(%error, "memory can't be given back");
        }
    }
}

/// Whether as many connections' worth makes it worth while.
fn is_enough(freed: usize, none_lives: bool) -> bool {
    freed >= if none_lives { 1 } else { ENOUGH }
}

#[cfg(test)]
mod tests;
