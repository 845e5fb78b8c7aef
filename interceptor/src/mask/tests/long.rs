//! Values beyond a window of text, and values that are longer than one.

use super::*;

#[test]
fn values_in_long_bodies_of_each_kind_are_found_however_they_are_cut() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\", \"pem\"]");
    let found = "[redacted:email]";
    for (kind, before, word, value, fresh, after) in [
        ("text/plain", "", "word ", "ada@example.com", found, "\n"),
        ("application/yaml", "text: ", "word ", "ada@example.com", found, "\nb: 1\n"),
        ("text/html", "<p>", "word ", "ada&#64;example.com", found, "</p>\n"),
        ("text/csv", "name,note\nAda,\"", "word ", "ada@example.com", found, "\"\nBob,x\n"),
        ("text/csv", "name,note\nAda,", "word ", "ada@example.com", found, "\nBob,x\n"),
        ("text/tab-separated-values", "name\tnote\nAda\t", "word ", "ada@example.com", found, "\nBob\tx\n"),
        (
            "application/x-www-form-urlencoded",
            "q=1&note=",
            "word+",
            "ada%40example.com",
            "%5Bredacted%3Aemail%5D",
            "&x=2",
        ),
        ("text/event-stream", "data: ", "word ", "ada@example.com", found, "\n\ndata: [DONE]\n\n"),
    ] {
        for offset in [0, 9_830, 13_106, 13_107, 13_108, 22_936] {
            let body = |value: &str| {
                format!("{before}{}{value}{}{after}", word.repeat(offset), format!(" {word}").repeat(30_000))
                    .replace(' ', if word.contains('+') { "+" } else { " " })
            };
            let (body, expected) = (body(value), body(fresh));
            assert_eq!(masked(&plan, kind, &body), expected, "{kind} at {offset}");
            for size in [1, 1000, 4096, 65_535, 65_536, 100_000] {
                let pieces = mask(&plan, kind, body.as_bytes().chunks(size)).unwrap();
                assert!(pieces == expected.as_bytes(), "{kind} at {offset} by {size}");
            }
        }
    }
}

/// A part of it, or a token for it, would need all of it.
#[test]
fn a_value_at_a_path_that_is_too_long_to_be_held_is_redacted() {
    let long = "x".repeat(100_000);
    for strategy in ["redact", "partial", "pseudonym"] {
        let plan = plan(&format!("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]\nstrategy = \"{strategy}\""));
        for (kind, before, fresh, after) in [
            ("application/json", "{\"mail\":\"", "[redacted]", "\",\"x\":1}"),
            ("application/x-ndjson", "{\"mail\":\"", "[redacted]", "\"}\n{\"x\":1}\n"),
            ("text/csv", "id,mail\n1,", "[redacted]", "\n2,\n"),
            ("text/csv", "id,mail\n1,\"", "[redacted]", "\"\n2,\n"),
            ("application/x-www-form-urlencoded", "mail=", "%5Bredacted%5D", "&x=1"),
        ] {
            let (body, expected) = (format!("{before}{long}{after}"), format!("{before}{fresh}{after}"));
            assert_eq!(masked(&plan, kind, &body), expected, "{kind} under {strategy}");
            for size in [1, 4096, 65_537] {
                let pieces = mask(&plan, kind, body.as_bytes().chunks(size)).unwrap();
                assert_eq!(String::from_utf8(pieces).unwrap(), expected, "{kind} under {strategy} by {size}");
            }
        }
    }
}

#[test]
fn a_long_value_at_a_path_that_drops_leaves_nothing() {
    let long = "x".repeat(100_000);
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]\nstrategy = \"drop\"");
    for (kind, body, expected) in [
        ("application/json", format!("{{\"y\":1,\"mail\":\"{long}\",\"x\":1}}"), "{\"y\":1,\"x\":1}"),
        ("text/csv", format!("id,mail\n1,{long}\n2,\n"), "id,mail\n1,\n2,\n"),
        ("application/x-www-form-urlencoded", format!("mail={long}&x=1"), "mail=&x=1"),
    ] {
        assert_eq!(masked(&plan, kind, &body), expected, "{kind}");
        let pieces = mask(&plan, kind, body.as_bytes().chunks(1000)).unwrap();
        assert_eq!(String::from_utf8(pieces).unwrap(), expected, "{kind} in pieces");
    }
}
