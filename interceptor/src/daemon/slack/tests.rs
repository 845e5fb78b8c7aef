use super::{ENOUGH, is_enough};

#[test]
fn little_is_given_back_only_where_nobody_waits_for_it() {
    assert!(is_enough(1, true) && is_enough(ENOUGH, false));
    assert!(!is_enough(0, true) && !is_enough(ENOUGH - 1, false));
}
