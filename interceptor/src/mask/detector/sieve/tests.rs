use proptest::prelude::*;

use super::*;

const WORDS: [&str; 7] = ["secret", "sk-", "7q~", "://", "api_key", "größe", "sub key"];

fn sieve() -> Sieve {
    Sieve::new(WORDS.iter().map(|word| word.as_bytes()))
}

proptest! {
    #[test]
    fn a_keyword_is_told_wherever_it_is(before in "[ -~é]{0,40}", word in 0..WORDS.len(), upper in any::<bool>(), after in "[ -~é]{0,40}") {
        let word = if upper { WORDS[word].to_ascii_uppercase() } else { WORDS[word].to_owned() };
        let text = format!("{before}{word}{after}");
        prop_assert!(sieve().lets_through(text.as_bytes()), "{text}");
    }

    #[test]
    fn it_is_told_of_no_other_text(text in "[secrtapi_k7q~:/ SÖöübG-]{0,24}") {
        let lower = text.to_ascii_lowercase();
        let holds = WORDS.iter().any(|word| lower.contains(word));
        prop_assert_eq!(sieve().lets_through(text.as_bytes()), holds, "{}", text);
    }
}

#[test]
fn most_texts_without_one_are_told() {
    let sieve = sieve();
    let texts = (0..1000).map(|number: u64| format!("{:016x} {number}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let let_through = texts.filter(|text| sieve.lets_through(text.as_bytes())).count();
    assert_eq!(let_through, 0, "of 1000");
    assert!(!sieve.lets_through(b"") && !sieve.lets_through(b"q"));
    // A part of a keyword that many words have.
    assert!(!sieve.lets_through(b"rates, api, keys"));
}

#[test]
fn words_of_one_byte_and_of_none_let_what_holds_them_through() {
    assert!(Sieve::new([b"@".as_slice()].into_iter()).lets_through(b"a@b"));
    assert!(Sieve::new([b"@".as_slice()].into_iter()).lets_through(b"@"));
    assert!(Sieve::new([b"".as_slice()].into_iter()).lets_through(b"abc"));
}
