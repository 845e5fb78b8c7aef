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

fn socket(family: u64) -> Call {
    Call { number: 41, architecture: NATIVE, arguments: [family, 1, 0, 0, 0, 0] }
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

#[test]
fn both_halves_of_an_argument_are_seen() {
    let high = Filters(vec![vec![
        instruction(0x20, 0, 0, 20),
        instruction(0x15, 0, 1, 1),
        instruction(0x06, 0, 0, 0x7fff_0000),
        instruction(0x06, 0, 0, 0),
    ]]);
    assert!(high.allow(&socket(1 << 32)));
    assert!(!high.allow(&socket(1)));
}

#[test]
fn a_filter_that_makes_no_sense_filters_nothing() {
    for program in [vec![], vec![instruction(0xffff, 0, 0, 0)], vec![instruction(0x05, 0, 0, u32::MAX)]] {
        assert!(Filters(vec![program]).allow(&socket(2)));
    }
}
