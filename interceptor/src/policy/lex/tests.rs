use super::{Token, policies, tokens};

#[test]
fn a_file_is_cut_at_semicolons_outside_of_strings_and_comments() {
    let text = "// one; two\n@reason(\"a;b \\\" ; // c\")\npermit(principal, action, resource); // end;\nforbid(principal, action, resource);;\n rest";
    let found: Vec<_> = policies(text).into_iter().map(|span| &text[span]).collect();
    assert_eq!(
        found,
        [
            "@reason(\"a;b \\\" ; // c\")\npermit(principal, action, resource);",
            "forbid(principal, action, resource);",
            ";",
            "rest",
        ]
    );
}

#[test]
fn white_space_and_comments_alone_are_no_policy() {
    for text in ["", " \r\n\t", "// nothing", "// a;\n// b;\n", "\u{a0}"] {
        assert!(policies(text).is_empty(), "`{}`", text.escape_debug());
    }
}

#[test]
fn a_string_without_an_end_takes_the_rest() {
    let text = "permit(\"a;\nb;";
    let found: Vec<_> = policies(text).into_iter().map(|span| (span.start, span.end)).collect();
    assert_eq!(found, [(0, text.len())]);
}

#[test]
fn tokens_carry_their_place() {
    assert_eq!(
        tokens("Target :: \"é\" // x\n@"),
        [(Token::Word("Target"), 0..6), (Token::Path, 7..9), (Token::Text("é"), 10..14), (Token::Sign('@'), 20..21),]
    );
}
