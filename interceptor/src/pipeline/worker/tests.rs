use tokio::time::{Instant, sleep};

use super::*;
use crate::heap::turn_over;

/// Until nothing is kept.
async fn nothing_is_kept() {
    let start = Instant::now();
    while heap::keeps() {
        assert!(start.elapsed() < 10 * SETTLES, "it is still kept");
        sleep(SETTLES / 20).await;
    }
}

#[test]
fn what_a_worker_keeps_is_given_back_whenever_it_came() {
    let (runtime, keeps) = runtime().unwrap();
    let mut keeping = heap::keep();
    let comes_and_goes = async {
        for pause in [Duration::ZERO, SETTLES / 2, 3 * SETTLES] {
            sleep(pause).await;
            turn_over(5_000);
            assert!(heap::keeps());
            nothing_is_kept().await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = comes_and_goes => {}
            never = settle(&mut keeping, &keeps) => match never {},
        }
    });
}

#[test]
fn a_worker_that_keeps_nothing_sleeps() {
    let (runtime, keeps) = runtime().unwrap();
    let slept = || runtime.metrics().worker_park_count(0);
    let mut keeping = heap::keep();
    let idles = async {
        turn_over(5_000);
        nothing_is_kept().await;
        // What was notified meanwhile turns out to be nothing.
        sleep(2 * SETTLES).await;
        let before = slept();
        sleep(8 * SETTLES).await;
        let woke = slept() - before;
        // tokio looks at a timer that is far off once or twice on the way.
        assert!(woke <= 4, "it woke {woke} times");
    };
    runtime.block_on(async {
        tokio::select! {
            () = idles => {}
            never = settle(&mut keeping, &keeps) => match never {},
        }
    });
}
