use proptest::prelude::*;

use super::*;

#[test]
fn no_literal_is_longer_than_the_pieces_overlap_or_begins_with_another() {
    let literals = HINTS.map(|(literal, _)| literal);
    assert_eq!(literals.iter().map(|literal| literal.len()).max(), Some(LONGEST));
    for one in literals {
        assert!(literals.iter().all(|other| one == *other || !one.starts_with(other)), "{one}");
    }
    assert!(SWIFT.is_some() || !cfg!(target_arch = "x86_64"));
}

proptest! {
    /// Literals in any case, across the pieces' edges and within each other, and what is nearly one.
    #[test]
    fn long_texts_are_searched_as_short_ones_are(
        literals in prop::collection::vec((0..HINTS.len(), 0..3_usize, any::<bool>(), 0..9_000_usize), 0..5),
        length in LONG..3 * PIECE,
    ) {
        let mut text = vec![b'k'; length];
        for (literal, cut, upper, at) in literals {
            let literal = if upper { HINTS[literal].0.to_uppercase() } else { HINTS[literal].0.to_owned() };
            let literal = &literal.as_bytes()[..literal.len() - cut.min(2)];
            // Near the edge of the first piece, or anywhere.
            let at = if at < 4_000 { PIECE - 16 + at % 24 } else { at };
            if let Some(place) = text.get_mut(at..at + literal.len()) {
                place.copy_from_slice(literal);
            }
        }
        prop_assert_eq!(worth_trying(&text), one_by_one(&text));
    }
}
