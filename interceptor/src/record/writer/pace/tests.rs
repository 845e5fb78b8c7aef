use rustix::process::getpriority_process;

use super::*;

#[test]
fn a_thread_gives_way_and_comes_back_if_it_may() {
    // Of its own: who may not come back stays where he is.
    let thread = std::thread::spawn(|| {
        let mut pace = Pace::new();
        let now = || getpriority_process(None).unwrap();
        let [low, normal] = if pace.free { [LOW, NORMAL] } else { [TRIED, TRIED] };
        for (yielding, expected) in [(true, low), (true, low), (false, normal), (true, low), (false, normal)] {
            pace.yielding(yielding);
            assert_eq!(now(), expected);
        }
    });
    thread.join().unwrap();
}
