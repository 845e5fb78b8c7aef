use std::sync::Arc;

use super::super::detector::{Active, Detectors, Scratch};
use crate::config::{Rules, Strategy};

/// What the built-in detector of this id finds in the text, under a name.
fn found_under(name: &str, id: &str, text: &str) -> Vec<String> {
    let rules = Rules::builtin().unwrap();
    let rule = rules.named(id).next().unwrap();
    let detectors = Arc::new(Detectors::new(vec![Arc::clone(rule)]).unwrap());
    let active = Active::new(detectors, vec![Some(Strategy::Redact)]);
    let mut scratch = Scratch::default();
    active.find(text.as_bytes(), &active.words_in(name.as_bytes()), &mut scratch);
    scratch.hits.iter().map(|hit| text[hit.start..hit.end].to_owned()).collect()
}

fn found(id: &str, text: &str) -> Vec<String> {
    found_under("", id, text)
}

#[test]
fn an_address_is_found_whatever_stands_right_before_and_behind_it() {
    let dashes = "-".repeat(70);
    for (before, address, behind) in [
        ("联系", "ada@example.com", "。"),
        ("联系", "ada@example.com", "联系我们"),
        ("“", "jörg@müller.example", "”"),
        ("Questions?...", "ada@example.com", ""),
        ("see..x..", "ada@example.com", "."),
        (dashes.as_str(), "ada@example.com", ""),
        ("'", "ada@example.com", "'"),
        ("%.-", "ada@example.com", ""),
        ("", "\"ada lovelace\"@example.com", ""),
        ("", "user#tag@example.com", ""),
        ("", "ada_contoso.com#EXT#@fabrikam.onmicrosoft.com", ""),
        ("", "иван@пример.рф", ""),
    ] {
        assert_eq!(found("email", &format!("{before}{address}{behind}")), [address], "{before} {behind}");
    }
    // No character is cut, however long the text goes on.
    let long = format!("ada@example.info{}", "联".repeat(40));
    assert_eq!(found("email", &long), ["ada@example.info"]);
    assert_eq!(found("email", &format!("{}@example.com", "é".repeat(40))), [format!("{}@example.com", "é".repeat(32))]);
    assert_eq!(found("email", "...@example.com"), Vec::<String>::new());
}

#[test]
fn every_account_number_is_found_wherever_its_groups_start() {
    let (german, british) = ("DE89 3704 0044 0532 0130 00", "GB82 WEST 1234 5698 7654 32");
    for (text, numbers) in [
        (format!("{german} {british} NL91ABNA0417164300"), vec![german, british, "NL91ABNA0417164300"]),
        ("FY24 IBAN DE89370400440532013000".to_owned(), vec!["DE89370400440532013000"]),
        ("RE24 NL91ABNA0417164300 and more".to_owned(), vec!["NL91ABNA0417164300"]),
        ("RE24 XNL91ABNA0417164300".to_owned(), vec![]),
        ("FY24 DEAB370400440532013000".to_owned(), vec![]),
    ] {
        assert_eq!(found("iban", &text), numbers, "{text}");
    }
}

#[test]
fn a_phone_number_ends_where_its_digits_do() {
    for (text, numbers) in [
        ("+14155552671x123", vec!["+14155552671"]),
        ("+1 415-555-2671x5", vec!["+1 415-555-2671"]),
        ("+44 20 7946 0958x12", vec!["+44 20 7946 0958"]),
        ("+1 415 555 2671 4 items", vec!["+1 415 555 2671"]),
        ("+44 20 7946 0958 4111 1111", vec!["+44 20 7946 0958"]),
        ("+1\u{a0}415\u{a0}555\u{a0}2671", vec!["+1\u{a0}415\u{a0}555\u{a0}2671"]),
        ("+49\u{202f}30\u{2011}901820", vec!["+49\u{202f}30\u{2011}901820"]),
        ("+123456789012345678", vec![]),
        ("+99912345678", vec![]),
        ("a+14155552671", vec![]),
    ] {
        assert_eq!(found("phone", text), numbers, "{text}");
    }
}

#[test]
fn a_card_number_is_found_however_its_groups_are_set_apart_but_in_no_word() {
    let number = "4111111111111111";
    for (before, number, behind) in [
        ("%B", number, "^DOE/JOHN^2512"),
        ("card_", number, "_x"),
        ("", "4111.1111.1111.1111", "."),
        ("", "4111  1111  1111  1111", ""),
        ("", "4111\u{a0}1111\u{a0}1111\u{a0}1111", ""),
        ("a12 ", "4111 1111 1111 1111", " 5b"),
    ] {
        assert_eq!(found("payment-card", &format!("{before}{number}{behind}")), [number], "{before} {behind}");
    }
    for other in ["B4111111111111111", "a4111111111111111", "4111111111111111b", "4111.111.1111.11111"] {
        assert_eq!(found("payment-card", other), Vec::<String>::new(), "{other}");
    }
}

#[test]
fn what_is_no_secret_is_none_beside_the_word_and_under_the_name() {
    let (guid, sha) = ("87d349ed-44d7-43e1-9a83-5f2406dee5bd", "d101592c8b1a4d2f9e3c7a6b5f4e3d2c1b0a9f8e");
    let uri = "https://kv7.vault.example/secrets/db3a";
    for (name, text) in [
        ("", format!("credential {guid} rotated")),
        ("", format!("the credential is {guid}.")),
        ("", format!("secret sha {sha}")),
        ("", format!("secrets at commit {sha}")),
        ("", "passwordless since v12.4.879-beta.12".to_owned()),
        ("", format!("secretUri={uri}")),
        ("credentialId", guid.to_owned()),
        ("secretUri", uri.to_owned()),
        ("secretVersion", "v12.4.879-beta.12".to_owned()),
    ] {
        assert_eq!(found_under(name, "secret", &text), Vec::<String>::new(), "{text} under {name}");
    }
    let secrets = [("", "client_secret="), ("secret", ""), ("", "hash of secret ")];
    for (name, before) in secrets {
        assert_eq!(found_under(name, "secret", &format!("{before}{sha}")), [sha], "{before} under {name}");
    }
}
