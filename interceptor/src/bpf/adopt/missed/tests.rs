use super::Missed;

/// The ids of cgroups that are above others.
fn id_of(path: &str) -> Option<u64> {
    match path {
        "" => Some(1),
        "/a" => Some(7),
        "/b" => Some(8),
        "/a/new" => Some(100),
        "/a/old" => Some(99),
        "/b/new" => Some(101),
        _ => None,
    }
}

#[test]
fn what_was_made_since_in_the_same_place_is_refused_until_all_are_known() {
    let missed = Missed { count: 3, known: 1, since: 100, parent: 7, level: 2 };
    assert!(missed.is_open());
    assert!(missed.refuses("/a/new", 100, id_of) && missed.refuses("/a/newer", 101, id_of));
    assert!(!missed.refuses("/a/old", 99, id_of), "it was there before");
    assert!(!missed.refuses("/b/new", 101, id_of), "it is elsewhere");
    let anywhere = Missed { level: 0, ..missed };
    assert!(anywhere.refuses("/b/new", 101, id_of) && !anywhere.refuses("/b/old", 99, id_of));
    let known = Missed { known: 3, ..anywhere };
    assert!(!known.is_open() && !known.refuses("/a/newer", 101, id_of));
}

#[test]
fn what_is_below_what_was_made_since_is_refused_with_it() {
    let missed = Missed { count: 3, known: 1, since: 100, parent: 7, level: 2 };
    assert!(missed.refuses("/a/new/inner", 102, id_of) && missed.refuses("/a/new/inner/innermost", 103, id_of));
    assert!(!missed.refuses("/a/old/inner", 102, id_of), "what it is in was there before");
    assert!(!missed.refuses("/b/new/inner", 102, id_of), "it is elsewhere");
    assert!(!missed.refuses("/a/gone/inner", 102, id_of), "nobody knows what it is in");
    assert!(!missed.refuses("/c", 102, id_of), "it isn't as deep");
    let top = Missed { parent: 1, level: 1, ..missed };
    assert!(top.refuses("/c", 102, id_of) && !top.refuses("/a/new", 102, id_of));
}
