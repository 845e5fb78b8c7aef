use std::time::{Duration, Instant};

use super::Nobodys;
use crate::daemon::adoptions::TICK;

#[test]
fn what_one_look_doesnt_find_isnt_let_go_of() {
    let (mut nobodys, start) = (Nobodys::default(), Instant::now());
    let mut look = |ids: &[u64], after: Duration| nobodys.settled(ids.iter().copied(), start + after);
    assert!(look(&[1, 2], Duration::ZERO).is_empty(), "it may not be visible yet");
    // A reload looks in between.
    assert!(look(&[1, 2, 3], TICK / 2).is_empty());
    // One of them was found.
    assert_eq!(look(&[1, 3], TICK), [1]);
    assert_eq!(look(&[2, 3], TICK * 2), [3], "it was found in between");
    assert_eq!(look(&[2], TICK * 3), [2]);
}

#[test]
fn what_was_counted_since_the_look_before_isnt_known() {
    let (mut nobodys, start) = (Nobodys::default(), Instant::now());
    let mut look = |missed, after: Duration| nobodys.is_settled(missed, start + after);
    assert!(!look(1, Duration::ZERO) && !look(1, TICK / 2));
    assert!(look(1, TICK));
    assert!(!look(2, TICK * 2), "one more may not be visible yet");
    assert!(look(2, TICK * 3));
}
