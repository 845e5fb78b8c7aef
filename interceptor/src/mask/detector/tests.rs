use super::super::tests::{masked, plan};
use super::*;
use crate::config::Rules;

/// What the rules find together in the text, under a name.
fn found(toml: &str, name: &str, text: &str) -> Vec<String> {
    let rules: Vec<_> = Rules::parse("own.toml", toml).unwrap().iter().cloned().collect();
    let strategies =
        rules.iter().map(|rule| Some(if *rule.id == *"dropped" { Strategy::Drop } else { Strategy::Redact }));
    let active = Active::new(Arc::new(Detectors::new(rules.clone()).unwrap()), strategies.collect());
    let mut scratch = Scratch::default();
    active.find(text.as_bytes(), &active.words_in(name.as_bytes()), &mut scratch);
    scratch.hits.iter().map(|hit| format!("{:?} {}", hit.strategy, &text[hit.start..hit.end])).collect()
}

const WORDED: &str = "[[rule]]\nid = \"pin\"\nregex = '\\b\\d{4}\\b'\nkeywords = [\"pin\"]\nmatch = [\"pin 1234\"]\nno_match = [\"1234\"]\n";

#[test]
fn a_keyword_has_to_be_near_or_in_the_name() {
    assert_eq!(found(WORDED, "", "PIN: 1234"), ["Redact 1234"]);
    assert_eq!(found(WORDED, "", "1234 is the pin"), Vec::<String>::new());
    assert_eq!(found(WORDED, "", &format!("pin {} 1234", "x".repeat(70))), Vec::<String>::new());
    assert_eq!(found(WORDED, "userPin", &format!("{} 1234", "x".repeat(70))), ["Redact 1234"]);
    assert_eq!(found(WORDED, "year", "1234"), Vec::<String>::new());
}

#[test]
fn matches_that_overlap_become_one_with_the_stricter_strategy() {
    let two = "[[rule]]\nid = \"a\"\nregex = 'a+b'\nmatch = [\"ab\"]\nno_match = [\"b\"]\n\
               [[rule]]\nid = \"dropped\"\nregex = 'b.c'\nmatch = [\"bbc\"]\nno_match = [\"b\"]\n";
    assert_eq!(found(two, "", "aab-c aab"), ["Drop aab-c", "Redact aab"]);
}

#[test]
fn digits_are_counted_over_separators() {
    for (text, digits) in [
        ("4111 1111-1111.1111", 16),
        ("12ab34", 2),
        ("", 0),
        ("(0)1", 2),
        ("1e23", 2),
        ("1\u{a0}2\u{202f}3\u{2011}4é5", 4),
    ] {
        assert_eq!(longest_run(text.as_bytes()), digits, "{text}");
        // Hardly any are counted together: those are fewer than any rule asks for.
        let told = Traits::of(text.as_bytes()).digits;
        assert!(told == digits || (digits..FEW).contains(&told), "{text}");
    }
    assert_eq!(Traits::of(b"12345678 person 123").digits, 8);
    assert_eq!(Traits::of("x".repeat(20).as_bytes()).digits, 0);
    for length in 0..40 {
        let before = "x".repeat(length);
        let classes = |end: &str| Traits::of(format!("{before}{end}{before}").as_bytes()).classes;
        assert_eq!((classes("@"), classes("+"), classes("@+"), classes("1-a")), (AT, PLUS, AT | PLUS, 0), "{length}");
    }
}

#[test]
fn what_stands_right_behind_a_key_stays() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"api-key\"]");
    for (id, key) in [
        ("google-api-key", format!("AI{}", "zaSyA-0123456789abcdefghijklmnopqrstu")),
        ("package-registry-token", format!("np{}", "m_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789")),
    ] {
        let text = format!("key={key}&x=1\n{key},{key}\n{key}");
        let expected = text.replace(&key, &format!("[redacted:{id}]"));
        assert_eq!(masked(&plan, "text/plain", &text), expected);
        let event = format!("id: {key}\ndata: 1\n\n");
        assert_eq!(masked(&plan, "text/event-stream", &event), format!("id: [redacted:{id}]\ndata: 1\n\n"));
    }
}

#[test]
fn a_guid_is_no_number_of_a_card() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"payment-card\"]");
    // With the digits and the check digit of one.
    for (text, expected) in [
        ("41111111-1111-1111-aaaa-bbbbbbbbbbbb", "41111111-1111-1111-aaaa-bbbbbbbbbbbb"),
        ("41111111-1111-1111", "[redacted:payment-card]"),
    ] {
        assert_eq!(masked(&plan, "application/json", &format!("[\"{text}\"]")), format!("[\"{expected}\"]"));
    }
}
