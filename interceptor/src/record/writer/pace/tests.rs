use rustix::process::getpriority_process;

use super::*;

#[test]
fn a_thread_gives_way_and_comes_back_if_it_may() {
    // Of its own: who may not come back stays where he is.
    let thread = std::thread::spawn(|| {
        let mut pace = Pace::new();
        let free = pace.free;
        for (urgency, nice) in [
            (Urgency::Later, LOW),
            (Urgency::Later, LOW),
            (Urgency::Late, HIGH),
            (Urgency::Awaited, NORMAL),
            (Urgency::Later, LOW),
            (Urgency::Awaited, NORMAL),
        ] {
            pace.set(urgency);
            assert_eq!(getpriority_process(None).unwrap(), if free { nice } else { TRIED });
        }
    });
    thread.join().unwrap();
}
