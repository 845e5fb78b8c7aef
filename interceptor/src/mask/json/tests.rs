use super::super::tests::{mask, masked, plan};
use super::*;

const JSON: &str = "application/json";
const MAIL: &str = "[[mask]]\nname = \"m\"\njson = [\"$..mail\"]";
const DETECT: &str = "[[mask]]\nname = \"m\"\ndetect = [\"email\", \"payment-card\"]";

/// The text as a string in so many strings.
fn nested(text: &str, levels: usize) -> String {
    (0..levels).fold(text.to_owned(), |text, _| serde_json::to_string(&text).unwrap())
}

#[test]
fn documents_are_seen_through_four_strings_and_withheld_in_a_fifth() {
    let (before, after) = (r#"{"mail":"ada@contoso.example"}"#, r#"{"mail":"[redacted]"}"#);
    let by_name = plan(MAIL);
    for levels in 1..=4 {
        assert_eq!(masked(&by_name, JSON, &nested(before, levels)), nested(after, levels), "{levels}");
    }
    assert_eq!(mask(&by_name, JSON, [nested(before, 5).as_bytes()]), Err(Withheld::TooDeep));
    // A detector finds it in the text.
    let found = masked(&plan(DETECT), JSON, &nested(before, 5));
    assert_eq!(found, nested(&before.replace("ada@contoso.example", "[redacted:email]"), 5));
}

#[test]
fn several_documents_in_a_string_and_what_stands_before_them_are_seen_through() {
    let plan = plan(MAIL);
    for text in [
        "{\"mail\":\"ada\"}\n{\"mail\":\"ada\"}\n",
        "[1]\r\n7\r\n{\"mail\":\"ada\"}\r\ntrue",
        "{\"x\":1}{\"mail\":\"ada\"}",
        "{\"x\":1} [{\"mail\":\"ada\"}]",
        "\u{feff}{\"mail\":\"ada\"}",
        " \n\u{feff}[{\"mail\":\"ada\"}]",
        "\u{1e}{\"mail\":\"ada\"}\n\u{1e}{\"mail\":\"ada\"}\n",
        "\"{\\\"mail\\\":\\\"ada\\\"}\"",
    ] {
        let body = format!("{{\"a\":{}}}", nested(text, 1));
        assert_eq!(masked(&plan, JSON, &body), body.replace("ada", "[redacted]"), "{text}");
    }
    // Numbers behind a text in brackets are none of documents.
    let text = nested("[1] 4111 1111 1111 1111", 1);
    assert_eq!(
        masked(&super::super::tests::plan(DETECT), JSON, &text),
        text.replace("4111 1111 1111 1111", "[redacted:payment-card]")
    );
}

#[test]
fn a_name_is_judged_by_its_length_wherever_it_is_cut() {
    let plan = plan(MAIL);
    for (length, is_taken) in [(LONGEST_NAME, true), (LONGEST_NAME + 1, false)] {
        let body = format!("{{\"{}\":1}}", "x".repeat(length));
        let whole = mask(&plan, JSON, [body.as_bytes()]);
        assert_eq!(whole.is_ok(), is_taken, "{length}");
        for cut in [2 + LONGEST_NAME, 3 + LONGEST_NAME, 70] {
            let (first, second) = body.as_bytes().split_at(cut);
            assert_eq!(mask(&plan, JSON, [first, second]), whole, "{length} cut at {cut}");
        }
        let broken = body.replace("\":", "\u{1}\":");
        let whole = mask(&plan, JSON, [broken.as_bytes()]);
        assert_eq!(mask(&plan, JSON, broken.as_bytes().chunks(1000)), whole, "{length}, broken");
    }
}

#[test]
fn a_name_in_another_charset_is_withheld_where_a_path_could_lead() {
    let withheld = Err(Withheld::Invalid("a name that isn't in UTF-8"));
    let body = b"{\"a\":{\"gr\xf6\xdfe\":\"x\"}}";
    assert_eq!(mask(&plan("[[mask]]\nname = \"m\"\njson = [\"$..größe\"]"), JSON, [&body[..]]), withheld);
    for elsewhere in ["[[mask]]\nname = \"m\"\njson = [\"$.b.c\"]", DETECT] {
        assert_eq!(mask(&plan(elsewhere), JSON, [&body[..]]), Ok(body.to_vec()));
    }
}

#[test]
fn a_text_sequence_begins_with_a_record_separator() {
    let plan = plan(MAIL);
    let body = "\u{1e}{\"mail\":\"ada\"}\n\u{1e}\u{1e}[1]\n\u{1e}{\"mail\":\"ada\"}\n";
    let expected = body.replace("ada", "[redacted]");
    assert_eq!(masked(&plan, "application/json-seq", body), expected);
    assert_eq!(mask(&plan, "application/json-seq", body.as_bytes().chunks(1)), Ok(expected.into_bytes()));
    assert!(matches!(mask(&plan, JSON, [body.as_bytes()]), Err(Withheld::Invalid(_))));
}

#[test]
fn what_filters_judge_is_nested_only_so_deep_also_across_strings() {
    let run = || {
        let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..[?@.kind == 'x'].b\"]");
        let lists = |depth: usize, inner: &str| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
        let document = r#"{"kind":"x","b":"ada"}"#;
        // The outermost is judged by no filter.
        let most = usize::from(MOST_JUDGED);
        let body = lists(most, document);
        assert_eq!(masked(&plan, JSON, &body), body.replace("ada", "[redacted]"));
        for body in [
            lists(most + 1, document),
            lists(250, &format!("\"{}\"", "x".repeat(500_000))),
            lists(most / 2, &nested(&lists(most / 2 + 2, document), 1)),
        ] {
            assert_eq!(mask(&plan, JSON, [body.as_bytes()]), Err(Withheld::TooDeep), "{}", body.len());
        }
    };
    // As much as a thread of the daemon has.
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}
