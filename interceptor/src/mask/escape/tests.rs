use super::*;

fn decoded(escape: Escape, raw: &str) -> String {
    let mut decoded = Decoded::default();
    escape.decode(raw.as_bytes(), true, &mut decoded).unwrap();
    assert_eq!(decoded.read, raw.len());
    String::from_utf8(decoded.text).unwrap()
}

#[test]
fn each_format_says_what_its_escapes_stand_for() {
    for (escape, raw, text) in [
        (Escape::Json, r#"a\"\\\/\b\f\n\r\tz"#, "a\"\\/\u{8}\u{c}\n\r\tz"),
        (Escape::Json, r"\u0041\u00e9\ud83d\ude00", "Aé😀"),
        (Escape::Json, r"\ud83d \udc00\ud83d\u0041", "\u{fffd} \u{fffd}\u{fffd}A"),
        (Escape::Form, "a%40b+c%2f%zz%4", "a@b c/%zz%4"),
        (
            Escape::Markup,
            "a&#64;b&#x40 c &#X40;&commat;&amp;&unknown;&#xffffffff;&",
            "a@b@ c @@&&unknown;&#xffffffff;&",
        ),
        // A numeric one has as many digits as its base has there, zeros before them, and needs no semicolon.
        (
            Escape::Markup,
            "ada&#64contoso.example &#x40xyz &#x0000000040;&#000000000064;&#00000000000000000064a",
            "ada@contoso.example @xyz @@@a",
        ),
        (Escape::Markup, "&#;&#x;&#xg&#a&#99999999999;&#", "&#;&#x;&#xg&#a&#99999999999;&#"),
        (Escape::Quoted, "a\"\"b", "a\"b"),
        (Escape::Plain, "%\\&\"", "%\\&\""),
    ] {
        assert_eq!(decoded(escape, raw), text, "{raw}");
    }
}

#[test]
fn json_has_no_other_escapes() {
    for raw in [r"\x41", r"\u12", r"\u12g4", "\\", r"\'"] {
        assert_eq!(Escape::Json.decode(raw.as_bytes(), true, &mut Decoded::default()), Err(BadEscape), "{raw}");
    }
}

#[test]
fn an_escape_that_is_cut_off_waits_for_its_rest() {
    for (escape, raw) in [
        (Escape::Json, r"ab\ud83d\ude0"),
        (Escape::Form, "ab%4"),
        (Escape::Markup, "ab&#6"),
        (Escape::Markup, "ab&#x000000000004"),
        (Escape::Quoted, "ab\""),
    ] {
        let mut decoded = Decoded::default();
        escape.decode(raw.as_bytes(), false, &mut decoded).unwrap();
        assert_eq!((&decoded.text[..], decoded.read), (&b"ab"[..], 2), "{raw}");
    }
}

#[test]
fn what_is_encoded_says_the_same_again() {
    let text = "a \"b\" \\ <c> & [d] é\n";
    for escape in [Escape::Plain, Escape::Json, Escape::Form, Escape::Markup, Escape::Quoted] {
        let mut encoded = Vec::new();
        escape.encode(text.as_bytes(), &mut encoded);
        assert_eq!(decoded(escape, &String::from_utf8(encoded).unwrap()), text, "{escape:?}");
    }
}
