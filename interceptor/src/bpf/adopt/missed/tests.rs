use super::Missed;

#[test]
fn what_was_made_since_in_the_same_place_is_refused_until_all_are_known() {
    let missed = Missed { count: 3, known: 1, since: 100, parent: 7, is_anywhere: false };
    assert!(missed.is_open());
    assert!(missed.refuses(100, 7) && missed.refuses(101, 7));
    assert!(!missed.refuses(99, 7), "it was there before");
    assert!(!missed.refuses(101, 8), "it is elsewhere");
    let anywhere = Missed { is_anywhere: true, ..missed };
    assert!(anywhere.refuses(101, 8) && !anywhere.refuses(99, 8));
    let known = Missed { known: 3, ..anywhere };
    assert!(!known.is_open() && !known.refuses(101, 7));
}
