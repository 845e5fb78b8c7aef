use std::collections::HashSet;

use super::*;

const KEY: Key = [7; 32];

fn fresh(strategy: Strategy, value: &str) -> String {
    let mut out = Vec::new();
    text(strategy, &KEY, None, value.as_bytes(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_part_of_a_value_tells_no_more_than_it_should() {
    for (value, part) in [
        ("ada@contoso.example", "***@contoso.example"),
        ("4111 1111 1111 1234", "**** **** **** 1234"),
        ("+49-30-901820", "+**-**-**1820"),
        ("12345678", "***"),
        ("short", "***"),
        ("", "***"),
        ("a-secret-of-sixteen", "***teen"),
        ("sechzehn Zeichenü", "***"),
    ] {
        assert_eq!(fresh(Strategy::Partial, value), part, "{value}");
    }
}

#[test]
fn the_same_value_has_the_same_pseudonym_of_its_own_type() {
    let pseudonym = |value: &str| fresh(Strategy::Pseudonym, value);
    assert_eq!(pseudonym("ada@contoso.example"), pseudonym("ADA@Contoso.example"));
    assert_ne!(pseudonym("ada@contoso.example"), pseudonym("bob@contoso.example"));
    assert!(pseudonym("ada@contoso.example").ends_with("@masked.invalid"));
    let digits = |text: String| text.replace([' ', '-'], "");
    assert_eq!(digits(pseudonym("4111 1111 1111 1111")), digits(pseudonym("4111-1111-1111-1111")));
    let unbroken = pseudonym("4111\u{a0}1111\u{a0}1111\u{a0}1111").replace('\u{a0}', "");
    assert_eq!(unbroken, digits(pseudonym("4111 1111 1111 1111")));
    assert_eq!(pseudonym("4111 1111 1111 1111").len(), 19);
    assert!(pseudonym("536-90-4399").starts_with('9'));
    assert!(pseudonym("+14155552671").starts_with("+999"));
    let guid = pseudonym("87D349ED-44d7-43e1-9a83-5f2406dee5bd");
    assert!(is_guid(guid.as_bytes()) && guid == pseudonym("87d349ed-44d7-43e1-9a83-5f2406dee5bd"), "{guid}");
    let mut number = Vec::new();
    scalar(Strategy::Pseudonym, &KEY, b"4111111111111111", &mut number);
    assert_eq!(String::from_utf8(number).unwrap(), digits(pseudonym("4111 1111 1111 1111")));
}

#[test]
fn numbers_that_differ_have_pseudonyms_that_differ() {
    let of_text = |value: &str| fresh(Strategy::Pseudonym, value);
    let of_number = |value: &str| {
        let mut out = Vec::new();
        scalar(Strategy::Pseudonym, &KEY, value.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    };
    let three: HashSet<String> = (0..1000).map(|number| of_text(&format!("{number:03}"))).collect();
    assert_eq!(three.len(), 1000);
    let numbers: HashSet<String> = (0..1000).map(|number| of_number(&number.to_string())).collect();
    assert_eq!(numbers.len(), 1000);
    assert!(numbers.iter().all(|number| number == "0" || !number.starts_with('0')));
    assert!((0..1000).all(|number| numbers.contains(&number.to_string())), "as many digits as before");
    // Long ones too, where they differ behind their beginning.
    let cards: HashSet<String> = (0..1000).map(|number| of_text(&format!("411111111111{number:04}"))).collect();
    assert_eq!(cards.len(), 1000);
    assert!(cards.iter().all(|card| card.starts_with('9') && card.len() == 16));
    // The same as a number and as a text, of any length.
    for length in 1..=19 {
        let number = &"4839201745362718290"[..length];
        assert_eq!(of_number(number), of_text(number));
        assert_eq!(of_number(number).len(), length);
        assert!(of_number(number).parse::<i64>().is_ok(), "{}", of_number(number));
    }
}

#[test]
fn another_key_gives_other_pseudonyms() {
    let mut other = Vec::new();
    text(Strategy::Pseudonym, &[8; 32], None, b"ada@contoso.example", &mut other);
    assert_ne!(other, fresh(Strategy::Pseudonym, "ada@contoso.example").into_bytes());
}

#[test]
fn a_number_without_a_pseudonym_is_no_value() {
    for (strategy, literal) in [
        (Strategy::Redact, "1"),
        (Strategy::Partial, "123456789012"),
        (Strategy::Pseudonym, "1.5"),
        (Strategy::Pseudonym, "true"),
    ] {
        let mut out = Vec::new();
        scalar(strategy, &KEY, literal.as_bytes(), &mut out);
        assert_eq!(out, b"null", "{literal}");
    }
}
