//! What is too large or too deep is withheld however it is cut, and what is well within the bounds passes.

use super::*;

fn each_way(plan: &Arc<Plan>, kind: &str, body: &str) -> Result<String, Withheld> {
    let whole = mask(plan, kind, [body.as_bytes()]);
    for size in [1000, 65_536, 100_000] {
        assert!(mask(plan, kind, body.as_bytes().chunks(size)) == whole, "{kind}, {} bytes by {size}", body.len());
    }
    whole.map(|out| String::from_utf8(out).unwrap())
}

#[test]
fn an_event_is_held_up_to_a_mebibyte() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    let event = |words: usize| format!("data: {}\n\n", "x ".repeat(words));
    assert_eq!(each_way(&plan, "text/event-stream", &event(500_000)), Ok(event(500_000)));
    let withheld = each_way(&plan, "text/event-stream", &event(600_000));
    assert_eq!(withheld, Err(Withheld::TooLarge("an event")));
    // Of many that are small together any number passes.
    let many = event(1000).repeat(1000);
    assert_eq!(each_way(&plan, "text/event-stream", &many), Ok(many));
}

#[test]
fn what_a_filter_judges_is_held_up_to_a_mebibyte() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$[?@.kind == 'x'].b\"]");
    let body = |b: &str, pad: usize| format!("[{{\"kind\":\"x\",\"b\":\"{b}\",\"pad\":\"{}\"}}]", "p".repeat(pad));
    assert_eq!(each_way(&plan, "application/json", &body("y", 900_000)), Ok(body("[redacted]", 900_000)));
    let withheld = each_way(&plan, "application/json", &body("y", 1_200_000));
    assert_eq!(withheld, Err(Withheld::TooLarge("a value that a filter judges")));
}

#[test]
fn a_document_in_a_string_is_held_up_to_a_mebibyte() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    let body =
        |mail: &str, pad: usize| format!("[\"{{\\\"mail\\\":\\\"{mail}\\\",\\\"p\\\":\\\"{}\\\"}}\"]", "p".repeat(pad));
    assert_eq!(each_way(&plan, "application/json", &body("ada", 900_000)), Ok(body("[redacted]", 900_000)));
    let withheld = each_way(&plan, "application/json", &body("ada", 1_200_000));
    assert_eq!(withheld, Err(Withheld::TooLarge("a document in a string")));
}

#[test]
fn names_of_members_and_fields_are_held_up_to_64_kib() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    let member = |length: usize| format!("{{\"{}\":1}}", "n".repeat(length));
    assert_eq!(each_way(&plan, "application/json", &member(60_000)), Ok(member(60_000)));
    let withheld = each_way(&plan, "application/json", &member(70_000));
    assert_eq!(withheld, Err(Withheld::TooLarge("a member's name")));
    let form = "application/x-www-form-urlencoded";
    let field = |length: usize| format!("a=1&{}=2", "n".repeat(length));
    assert_eq!(each_way(&plan, form, &field(60_000)), Ok(field(60_000)));
    assert_eq!(each_way(&plan, form, &field(70_000)), Err(Withheld::TooLarge("a field's name")));
}

#[test]
fn a_first_row_is_held_up_to_a_bound() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    let table = |columns: usize| {
        let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
        format!("{}\n1,2\n", names.join(","))
    };
    assert_eq!(each_way(&plan, "text/csv", &table(9_000)), Ok(table(9_000)));
    assert_eq!(each_way(&plan, "text/csv", &table(60_000)), Err(Withheld::TooLarge("the first row")));
}

#[test]
fn a_number_has_at_most_4096_digits() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    let number = |digits: usize| format!("[{}]", "7".repeat(digits));
    assert_eq!(each_way(&plan, "application/json", &number(4096)), Ok(number(4096)));
    let withheld = each_way(&plan, "application/json", &number(4097));
    assert_eq!(withheld, Err(Withheld::Invalid("neither a value nor a number")));
}

#[test]
fn nesting_is_followed_down_to_256() {
    for masks in ["json = [\"$..mail\"]", "detect = [\"email\"]", "json = [\"$..mail\"]\nstrategy = \"drop\""] {
        let plan = plan(&format!("[[mask]]\nname = \"m\"\n{masks}"));
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let body = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(each_way(&plan, "application/json", &body(256)), Ok(body(256)), "{open} under {masks}");
            let withheld = each_way(&plan, "application/json", &body(257));
            assert_eq!(withheld, Err(Withheld::TooDeep), "{open} under {masks}");
        }
    }
}
