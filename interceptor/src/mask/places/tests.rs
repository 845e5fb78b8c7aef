use super::*;

fn place(start: u32, length: u32) -> Place {
    Place { start, length, strategy: Strategy::Redact }
}

fn places(of: &[(u32, u32)]) -> Places {
    Places { places: of.iter().map(|(start, length)| place(*start, *length)).collect(), more: None }
}

#[test]
fn what_goes_out_in_pieces_is_noted_from_the_beginning_of_the_body() {
    let (mut noted, mut given, mut all) = (Places::default(), 0, Vec::new());
    for piece in ["ab", "cde"] {
        // What was there before belongs to somebody else.
        let mut out = b"before".to_vec();
        let mut sink = Noting::new(&mut out, &mut noted, given);
        sink.keep(piece.as_bytes());
        sink.skip(9);
        sink.put(b"***", Strategy::Partial);
        sink.put(b"", Strategy::Drop);
        given = sink.given();
        all.extend_from_slice(&out[6..]);
    }
    assert_eq!(all, b"ab***cde***");
    let (partial, drop) = (Strategy::Partial, Strategy::Drop);
    let expected = [(2, 3, partial), (5, 0, drop), (8, 3, partial), (11, 0, drop)].map(Place::from);
    assert_eq!(noted, Places { places: expected.into(), more: None });
}

#[test]
fn so_many_are_noted_and_of_the_rest_where_it_begins() {
    let mut noted = Places::default();
    for at in 0..MOST as u64 + 9 {
        noted.note(2 * at, 1, Strategy::Redact);
    }
    assert_eq!((noted.places.len(), noted.more), (MOST, Some(2 * MOST as u32)));
    assert_eq!(noted.places.last(), Some(&place(2 * MOST as u32 - 2, 1)));
    let mut far = Places::default();
    far.note(1 << 40, 1, Strategy::Redact);
    assert_eq!((far.places.len(), far.more), (0, Some(u32::MAX)));
}

#[test]
fn what_was_held_is_noted_where_it_is_given() {
    let mut held = Held::default();
    held.put(b"", Strategy::Drop);
    held.keep(b"abc");
    held.put(b"***", Strategy::Partial);
    held.keep(b"d");
    let (mut out, mut noted) = (Vec::new(), Places::default());
    held.give(&mut Noting::new(&mut out, &mut noted, 10));
    assert_eq!(out, b"abc***d");
    let expected = [(10, 0, Strategy::Drop), (13, 3, Strategy::Partial)].map(Place::from);
    assert_eq!(noted, Places { places: expected.into(), more: None });
    let mut held = Held::default();
    for _ in 0..=MOST {
        held.put(b"*", Strategy::Partial);
        held.keep(b"-");
    }
    let (mut out, mut noted) = (Vec::new(), Places::default());
    held.give(&mut Noting::new(&mut out, &mut noted, 0));
    assert_eq!(out, b"*-".repeat(MOST + 1));
    assert_eq!((noted.places.len(), noted.more), (MOST, Some(2 * MOST as u32)));
}

#[test]
fn of_a_body_that_is_cut_the_places_in_it_stay() {
    let all = Places { more: Some(20), ..places(&[(0, 2), (4, 4), (6, 0), (8, 0), (8, 3)]) };
    // What begins where it is cut isn't there, but what was dropped just before was.
    assert_eq!(all.clone().within(8), places(&[(0, 2), (4, 4), (6, 0), (8, 0)]));
    assert_eq!(all.clone().within(5), places(&[(0, 2), (4, 1)]));
    assert_eq!(all.clone().within(20), all);
}

#[test]
fn places_move_with_what_is_replaced_around_them() {
    // The first six bytes become eight, three others one.
    let replaced = [(0..6, 8), (20..23, 1)];
    for (before, after) in [
        ((8, 3), (10, 3)),
        ((6, 0), (8, 0)),
        ((18, 2), (20, 2)),
        ((23, 4), (23, 4)),
        ((30, 0), (30, 0)),
        // In what is replaced, around it, across its ends.
        ((2, 2), (0, 8)),
        ((0, 6), (0, 8)),
        ((21, 0), (22, 1)),
        ((19, 5), (21, 3)),
        ((18, 4), (20, 3)),
        ((22, 4), (22, 4)),
    ] {
        let mut moved = Places { more: Some(40), ..places(&[before]) };
        moved.moved(&replaced);
        assert_eq!(moved, Places { more: Some(40), ..places(&[after]) }, "{before:?}");
    }
    let mut moved = places(&[(8, 3)]);
    moved.moved(&[]);
    assert_eq!(moved, places(&[(8, 3)]));
}

#[test]
fn they_are_written_shortly_and_read_again() {
    let all = Places { places: vec![Place::from((1, 0, Strategy::Drop))], more: Some(9) };
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(text, r#"{"places":[[1,0,"drop"]],"more":9}"#);
    assert_eq!(serde_json::from_str::<Places>(&text).unwrap(), all);
    let none = serde_json::to_string(&Places::default()).unwrap();
    assert_eq!(
        (none.as_str(), serde_json::from_str::<Places>(&none).unwrap()),
        (r#"{"places":[]}"#, Places::default())
    );
}
