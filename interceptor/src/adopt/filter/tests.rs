use super::{Call, Filters, Instruction};

const NATIVE: u32 = 0xc000_003e;

fn instruction(code: u16, if_true: u8, if_false: u8, k: u32) -> Instruction {
    Instruction { code, if_true, if_false, k }
}

/// Allows `socket` with one family, and nothing else.
fn only(family: u32) -> Vec<Instruction> {
    vec![
        instruction(0x20, 0, 0, 4),
        instruction(0x15, 0, 5, NATIVE),
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 3, 41),
        instruction(0x20, 0, 0, 16),
        instruction(0x15, 0, 1, family),
        instruction(0x06, 0, 0, 0x7fff_0000),
        instruction(0x06, 0, 0, 0x0005_0001),
    ]
}

fn socket(family: u32) -> Call {
    Call { number: 41, architecture: NATIVE, family: Some(family) }
}

const ALLOW: Instruction = Instruction { code: 0x06, if_true: 0, if_false: 0, k: 0x7fff_0000 };
const REFUSE: Instruction = Instruction { code: 0x06, if_true: 0, if_false: 0, k: 0x0005_0001 };

fn load(offset: u32) -> Instruction {
    instruction(0x20, 0, 0, offset)
}

/// Refuses one family, unless the word at `offset` is `unless`.
fn but_for(family: u32, offset: u32, unless: u32) -> Filters {
    let equal = |k, if_true, if_false| instruction(0x15, if_true, if_false, k);
    Filters(vec![vec![load(16), equal(family, 0, 2), load(offset), equal(unless, 0, 1), ALLOW, REFUSE]])
}

#[test]
fn a_filter_is_run_as_the_kernel_would() {
    let filters = Filters(vec![only(2)]);
    assert!(filters.allow(&socket(2)));
    assert!(!filters.allow(&socket(40)));
    assert!(!filters.allow(&Call { number: 42, ..socket(2) }));
    assert!(!filters.allow(&Call { architecture: 0x4000_0003, ..socket(2) }));
}

#[test]
fn every_filter_has_to_let_a_call_through() {
    assert!(Filters::default().allow(&socket(40)));
    assert!(!Filters(vec![only(2), only(10)]).allow(&socket(2)));
    assert!(Filters(vec![only(2), only(2)]).allow(&socket(2)));
}

/// The kernel reads no more of a family than its low half, nothing of arguments that a call doesn't have, and lets everybody call
/// from where he likes.
#[test]
fn what_the_kernel_doesnt_read_keeps_nothing_out() {
    for (what, offset, word) in [
        ("the high half of the family", 20, 7),
        ("the fourth argument", 40, 0x5ec1_2e75),
        ("the last one's high half", 60, 1),
        ("where it is called from", 8, 0x0040_1000),
    ] {
        assert!(but_for(40, offset, word).allow(&socket(40)), "{what}");
    }
    assert!(!but_for(40, 0, 42).allow(&socket(40)), "the number is what it is");
    assert!(!but_for(40, 16, 41).allow(&socket(40)), "and so is the family");
}

#[test]
fn who_decides_in_place_of_a_filter_may_be_a_friend() {
    for (action, lets_through) in [(0x7fc0_0000, true), (0x7ff0_0000, true), (0x7ffc_0000, true), (0x0003_0000, false)]
    {
        let filters = Filters(vec![vec![instruction(0x06, 0, 0, action)]]);
        assert_eq!(filters.allow(&socket(40)), lets_through, "{action:#x}");
    }
}

#[test]
fn any_argument_counts_where_none_is_told() {
    let ring = Call { number: 425, architecture: NATIVE, family: None };
    let entries =
        Filters(vec![vec![load(0), instruction(0x15, 0, 2, 425), load(16), instruction(0x15, 0, 1, 9), ALLOW, REFUSE]]);
    assert!(entries.allow(&ring), "a ring of nine entries");
    let none = Filters(vec![vec![load(0), instruction(0x15, 1, 0, 425), ALLOW, REFUSE]]);
    assert!(!none.allow(&ring));
}

/// As libseccomp writes `RestrictAddressFamilies=`: both halves of the family are compared, more than once, and only what goes one
/// way through all of it is let through.
#[test]
fn comparisons_of_both_halves_of_a_family_are_seen_through() {
    let list = |families: &[u32]| {
        let (last, mut program) =
            (*families.last().expect("one"), vec![load(4), instruction(0x15, 1, 0, NATIVE), REFUSE]);
        // Greater than the last one: the high half first, then the low one.
        program.extend([load(20), instruction(0x25, 3, 0, 0), load(16), instruction(0x25, 1, 0, last)]);
        program.extend([instruction(0x05, 0, 0, 1), REFUSE]);
        for family in (0..last).filter(|family| !families.contains(family)) {
            program.extend([load(20), instruction(0x15, 0, 3, 0), load(16), instruction(0x15, 0, 1, family), REFUSE]);
        }
        program.push(ALLOW);
        Filters(vec![program])
    };
    let filters = list(&[1, 2, 10, 16]);
    for family in 0..46 {
        assert_eq!(filters.allow(&socket(family)), [1, 2, 10, 16].contains(&family), "{family}");
    }
    // In two filters it is no less.
    let both = Filters([list(&[1, 2, 10, 16]).0, list(&[1, 16]).0].concat());
    assert!(both.allow(&socket(16)) && !both.allow(&socket(2)) && !both.allow(&socket(40)));
}

/// Nobody keeps the daemon at it by a filter with ways without number; such a one filters nothing.
#[test]
fn ways_without_number_are_given_up() {
    let mut program: Vec<Instruction> = (0..2_000).flat_map(|at| [load(40), instruction(0x15, 0, 0, at)]).collect();
    program.push(REFUSE);
    assert!(Filters(vec![program]).allow(&socket(40)));
}

#[test]
fn a_filter_that_makes_no_sense_filters_nothing() {
    for program in [vec![], vec![instruction(0xffff, 0, 0, 0)], vec![instruction(0x05, 0, 0, u32::MAX)]] {
        assert!(Filters(vec![program]).allow(&socket(2)));
    }
}
