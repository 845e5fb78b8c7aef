use super::Unheld;

#[test]
fn nothing_counts_as_known_before_it_was_seen_who_is_held() {
    let unheld = Unheld::default();
    assert!(!unheld.covers(1));
}

#[test]
fn what_was_missed_since_those_that_arent_held_were_refused_isnt_known() {
    let unheld = Unheld::default();
    unheld.settle(2);
    assert!(unheld.covers(1) && unheld.covers(2));
    assert!(!unheld.covers(3), "it may be one of theirs");
    unheld.settle(u64::MAX);
    assert!(unheld.covers(3), "all are held");
    unheld.settle(0);
    assert!(!unheld.covers(1), "something of theirs can't be refused");
}
