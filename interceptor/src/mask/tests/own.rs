//! Rules of a file: what their own examples come to, and at work in a mask.

use super::*;
use crate::config::Rules;

const RULES: &str = r#"
    [[rule]]
    id = "employee"
    group = "staff"
    regex = 'E-(?P<value>\d{6})'
    keywords = ["employee"]
    needs = { length = 8, digits = 6, byte = "-" }
    match = ["employee E-123456"]
    no_match = ["E-123456", "employee E-12"]

    [[rule]]
    id = "badge"
    regex = '\bB\d{4}\b'
    match = ["B1234"]
    no_match = ["B12345"]
"#;

#[test]
fn an_example_that_comes_out_otherwise_is_told() {
    let run = |text: &str| examples::run(&Rules::parse("own.toml", text).unwrap()).unwrap();
    let good = run(RULES);
    assert_eq!((good.rules, good.examples, good.failures), (2, 5, Vec::new()));
    let wrong = RULES
        .replace("[\"E-123456\", \"employee E-12\"]", "[\"an employee: E-654321\"]")
        .replace("[\"B1234\"]", "[\"B1234\", \"B56789\"]");
    let outcome = run(&wrong);
    let told: Vec<String> = outcome.failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "`employee` finds `654321` in `an employee: E-654321`, where it should find nothing",
            "`badge` finds nothing in `B56789`"
        ]
    );
    assert_eq!((outcome.rules, outcome.examples), (2, 5));
}

#[test]
fn rules_of_a_file_mask_by_their_id_and_group_beside_the_built_in_ones() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("own.toml");
    std::fs::write(&rules, RULES).unwrap();
    let body = r#"{"employee":"E-123456","note":"employee E-654321, E-12","x":"B1234","mail":"ada@example.com"}"#;
    for (detect, expected) in [
        (
            r#"["staff"]"#,
            r#"{"employee":"E-[redacted:employee]","note":"employee E-[redacted:employee], E-12","x":"B1234","mail":"ada@example.com"}"#,
        ),
        (
            r#"["badge", "email"]"#,
            r#"{"employee":"E-123456","note":"employee E-654321, E-12","x":"[redacted:badge]","mail":"[redacted:email]"}"#,
        ),
        (
            r#"["employee", "badge", "email"]"#,
            r#"{"employee":"E-[redacted:employee]","note":"employee E-[redacted:employee], E-12","x":"[redacted:badge]","mail":"[redacted:email]"}"#,
        ),
    ] {
        let plan = plan(&format!("[[mask]]\nname = \"m\"\nrules = {rules:?}\ndetect = {detect}"));
        assert_eq!(masked(&plan, "application/json", body), expected, "{detect}");
        let pieces = mask(&plan, "application/json", body.as_bytes().chunks(1)).unwrap();
        assert_eq!(String::from_utf8(pieces).unwrap(), expected, "{detect}, byte by byte");
    }
}

#[test]
fn a_rule_of_a_file_cant_take_the_name_of_a_built_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("own.toml");
    for name in ["email", "api-key"] {
        std::fs::write(&rules, RULES.replace("\"badge\"", &format!("\"{name}\""))).unwrap();
        let config = format!("[[mask]]\nname = \"m\"\nrules = {rules:?}\ndetect = [\"email\"]\n");
        let error = Settings::parse("/etc/interceptor/config.toml", &config).unwrap_err();
        let told: Vec<_> = error.mistakes().iter().map(|mistake| (mistake.place(), mistake.message())).collect();
        assert_eq!(told, [((3, 9), format!("its rule `{name}` is the name of a built-in one").as_str())]);
    }
}

#[test]
fn an_address_is_as_long_as_mail_allows() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    let longest = format!("{}com", format!("{}.", "a".repeat(49)).repeat(5));
    assert_eq!(longest.len(), 253);
    for address in [format!("{}@example.com", "a".repeat(64)), format!("ada@{longest}")] {
        assert_eq!(masked(&plan, "text/plain", &format!("to {address} now")), "to [redacted:email] now");
    }
    let longer = format!("to ada@{} now", longest.replace("com", "info"));
    assert_eq!(masked(&plan, "text/plain", &longer), longer);
}
