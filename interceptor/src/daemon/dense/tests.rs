use std::fs;
use std::hint::black_box;
use std::time::Instant;

use nix::sys::prctl::set_thp_disable;
use tokio::time::sleep;

use super::*;

/// What of this process's memory lies on huge pages, in KiB.
fn huge() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find(|line| line.starts_with("AnonHugePages:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn memory_is_moved_while_there_is_much_to_do() {
    if HugePages::new().unwrap().is_none() {
        println!("skipped: this system has no huge pages");
        return;
    }
    // A system that uses huge pages everywhere isn't to do so here by itself.
    set_thp_disable(true).unwrap();
    let memory = vec![1_u8; 16 << 20];
    set_thp_disable(false).unwrap();
    let before = huge();
    let keeping = tokio::spawn(keep());
    sleep(2 * EVERY + EVERY / 2).await;
    assert_eq!(huge(), before, "there was nothing to do");
    let burning = spawn_blocking(|| {
        let start = Instant::now();
        while start.elapsed() < 3 * EVERY {
            black_box(spent().unwrap());
        }
    });
    burning.await.unwrap();
    assert!(huge() >= 12 << 10, "{} KiB", huge());
    assert!(black_box(memory).iter().all(|&byte| byte == 1));
    assert!(!keeping.is_finished());
}
