use proptest::prelude::*;
use regex::bytes::Regex;

use super::*;
use crate::config::Rules;

fn pivoted(regex: &str) -> bool {
    matches!(Finder::new(regex).unwrap().0, Form::Pivoted(_))
}

fn found(finder: &Finder, text: &[u8]) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    finder.each(text, |range| all.push(range));
    all
}

/// The regexes of built-in rules that are looked for from a byte.
fn builtin() -> Vec<(Regex, Finder)> {
    let rules = Rules::builtin().unwrap();
    let regexes = rules.iter().map(|rule| rule.regex.as_ref()).filter(|regex| pivoted(regex));
    regexes.map(|regex: &str| (Regex::new(regex).unwrap(), Finder::new(regex).unwrap())).collect()
}

#[test]
fn addresses_and_numbers_are_looked_for_from_a_byte() {
    assert!(builtin().len() >= 2);
    for regex in ["(?-u)[a-z]+@[a-z]+", r"(?-u)\+\d+", r"(?-u)\+\d+\b"] {
        assert!(pivoted(regex), "{regex}");
    }
}

#[test]
fn what_might_take_longer_than_the_text_is_long_isnt() {
    for regex in [
        r"(?s-u)\+.*x",
        "[a-z]+?@x",
        "[a-z]{2,}@x",
        "[a-z]*@x",
        "[a-z@]+@x",
        "[a-zé]+@x",
        r"@[^\d]+",
        "@(?:a|b@)",
        "@x|y",
        r"(?P<value>a)@x",
        r"\b@x",
        "@é.",
    ] {
        assert!(!pivoted(regex), "{regex}");
    }
}

proptest! {
    #[test]
    fn the_same_is_found_as_by_the_regex(
        text in proptest::collection::vec(prop_oneof![
            "[a-z0-9._%+'\"-]{0,8}", "@", "\\+", "@[a-z]{1,3}\\.[a-z]{1,3}", "\\+[1-9][0-9 ().-]{6,16}", "[é联\u{a0}\u{202f} ]",
        ], 0..24),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = text.concat().into_bytes();
        // Not always at the end of a character.
        let text = &text[..cut.index(text.len() + 1)];
        for (regex, finder) in builtin() {
            let expected: Vec<_> = regex.find_iter(text).map(|one| one.range()).collect();
            prop_assert_eq!(found(&finder, text), expected, "{} in {:?}", regex, String::from_utf8_lossy(text));
        }
    }
}

#[test]
fn what_is_around_a_match_counts() {
    let regex = r"(?-u)[a-z]+@[a-z]{2}\b";
    let finder = Finder::new(regex).unwrap();
    for text in ["ab@cd", "ab@cde", "ab@cd ef@gh", "ab@cdef@gh", "@ab@cd", "ab@ab@cd"] {
        let expected: Vec<_> = Regex::new(regex).unwrap().find_iter(text.as_bytes()).map(|one| one.range()).collect();
        assert_eq!(found(&finder, text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn a_regex_that_is_too_large_is_told_so() {
    let error = Finder::new(r"(?:\w{100}){100}").unwrap_err();
    assert_eq!(error, "it takes more than 4194304 bytes");
}

#[test]
fn what_a_group_of_that_name_matches_counts_and_no_other_group() {
    let found = |regex, text: &str| found(&Finder::new(regex).unwrap(), text.as_bytes());
    assert_eq!(found(r"a(?P<value>\d+)b", "a12b a3c a4b"), [1..3, 10..11]);
    assert_eq!(found(r"a(\d+)b", "a12b a3c a4b"), [0..4, 9..12]);
}
