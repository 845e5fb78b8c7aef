use super::*;

fn mistakes(text: &str) -> Vec<String> {
    let error = Rules::parse("own.toml", text).expect_err(text);
    error.mistakes().iter().map(|mistake| format!("{mistake} | {}", mistake.expected())).collect()
}

const OWN: &str = r#"
    [[rule]]
    id = "employee"
    group = "staff"
    regex = 'E-(?P<value>\d{6})'
    keywords = ["E-"]
    entropy = 1.5
    needs = { length = 8, digits = 6, byte = "-" }
    match = ["E-123456"]
    no_match = ["E-12345"]
"#;

#[test]
fn a_rule_is_read_and_found_by_its_id_and_its_group() {
    let rules = Rules::parse("own.toml", OWN).unwrap();
    for name in ["employee", "staff"] {
        let rule = rules.named(name).next().unwrap();
        assert_eq!((&*rule.id, &*rule.keywords[0], rule.entropy), ("employee", "e-", 1.5));
        assert_eq!(rule.needs, Needs { length: 8, digits: 6, byte: Some(b'-') });
    }
    assert!(rules.named("other").next().is_none());
    assert_eq!(rules.names(), ["staff"]);
}

#[test]
fn the_built_in_rules_can_be_asked_for_by_their_documented_names() {
    let rules = Rules::builtin().unwrap();
    let documented = ["email", "payment-card", "us-ssn", "iban", "phone", "jwt", "pem", "api-key", "secret"];
    assert_eq!(rules.names(), documented);
    let documentation = include_str!("../../../../docs/masks.md");
    for rule in rules.iter() {
        assert!(documentation.contains(&format!("`{}`", rule.id)), "`{}` isn't in docs/masks.md", rule.id);
    }
}

#[test]
fn what_a_rule_cant_say_is_told_with_its_place() {
    let with = |from: &str, to: &str| mistakes(&OWN.replace(from, to)).join("\n");
    for (from, to, told) in [
        ("\"employee\"", "\"Employee No\"", "own.toml:3:10: `Employee No` isn't a name"),
        (r"E-(?P<value>\d{6})", "(", "own.toml:5:13: the regex can't be used: unclosed group"),
        (r"E-(?P<value>\d{6})", "a*", "own.toml:5:13: the regex matches the empty text"),
        ("[\"E-\"]", "[\"E\"]", "own.toml:6:17: `E` isn't a keyword"),
        ("1.5", "9.5", "own.toml:7:15: `9.5` isn't an entropy"),
        ("byte = \"-\"", "byte = \"--\"", "`--` isn't one byte"),
        ("[\"E-123456\"]", "[]", "own.toml:9:13: `match` is empty"),
        ("entropy = 1.5", "validator = \"luhn\"", "`luhn` isn't a validator | `payment-card`"),
        ("entropy", "entropie", "unknown field `entropie`"),
    ] {
        assert!(with(from, to).contains(told), "{to}: {}", with(from, to));
    }
    assert!(mistakes(&OWN.repeat(2)).join("\n").contains("there are two rules `employee`"));
    assert!(
        mistakes(&(0..129).map(|n| OWN.replace("employee", &format!("e{n}"))).collect::<String>())
            .join("\n")
            .contains("more than 128 rules")
    );
}
