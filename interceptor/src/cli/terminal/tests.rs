use std::borrow::Cow;

use super::*;

#[test]
fn plain_text_is_left_as_it_is() {
    for text in ["", "GET /v1.0/users?$top=5", "Zoë Åström 山田", "a\\b"] {
        assert!(matches!(escape(text), Cow::Borrowed(same) if same == text), "{text}");
    }
}

#[test]
fn what_a_terminal_would_obey_is_spelled_out() {
    for (text, shown) in [
        ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
        ("a\nb\r\t\0", "a\\u{a}b\\u{d}\\u{9}\\u{0}"),
        ("\u{9b}31m", "\\u{9b}31m"),
        ("\x7f", "\\u{7f}"),
        ("txt.\u{202e}exe", "txt.\\u{202e}exe"),
        ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
        ("a\u{200b}b\u{2028}\u{feff}", "a\\u{200b}b\\u{2028}\\u{feff}"),
        ("\u{e0041}", "\\u{e0041}"),
    ] {
        assert_eq!(escape(text), shown);
    }
}
