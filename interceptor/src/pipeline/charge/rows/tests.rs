use super::*;

/// The rows of a text, whole and byte by byte.
fn count(content_type: &str, text: &str) -> u64 {
    let rows = || Rows::of(content_type).unwrap();
    let whole = rows().push(text.as_bytes());
    let mut single = rows();
    let bytes: u64 = text.as_bytes().chunks(1).map(|byte| single.push(byte)).sum();
    assert_eq!(whole, bytes, "{text}");
    whole
}

#[test]
fn the_rows_of_json_are_the_elements_of_the_outermost_arrays() {
    let json = |text| count("application/json; charset=utf-8", text);
    for (rows, text) in [
        (0, "{}"),
        (0, "[]"),
        (0, "[ \n ]"),
        (0, "3"),
        (0, r#""[1,2]""#),
        (1, "[[]]"),
        (3, "[1, 2,3]"),
        (3, r#"[{"a":[1,2]},[3,4,5],"x,]"]"#),
        (2, r#"{"@odata.context":"[1,2,3]","value":[{"a":[1,2,3]},{"b":{"c":[1]}}]}"#),
        (5, r#"{"a":[1,2],"b":{"c":[1,2,3]},"d":[ {}, {} ,null]}"#),
        (2, r#"[ "\"],[", "\\" ]"#),
        (1, r#"{"value":[["#),
    ] {
        assert_eq!(json(text), rows, "{text}");
    }
    assert_eq!(count("application/scim+json", "[1]"), 1);
}

#[test]
fn the_rows_of_json_lines_are_its_documents() {
    let lines = |text| count("application/x-ndjson", text);
    for (rows, text) in [
        (0, ""),
        (0, "\n\n"),
        (1, "{\"a\":[1,2]}"),
        (2, "{\"a\":\"\\n{\"}\n{}\n"),
        (2, "{}{}"),
        (3, "1\n\"2\"\n[3,3]\r\n"),
        (2, "\u{1e}{}\n\u{1e}{}\n"),
    ] {
        assert_eq!(lines(text), rows, "{text}");
    }
}

#[test]
fn the_rows_of_a_csv_are_its_records_behind_the_head() {
    let csv = |text| count("text/csv", text);
    for (rows, text) in [
        (0, ""),
        (0, "a,b"),
        (0, "a,b\r\n"),
        (1, "a,b\n1,2"),
        (2, "a,b\r\n1,\"x\r\n,\"\"y\"\r\n3,4\r\n"),
        (1, "\n\na\n\n1\n"),
    ] {
        assert_eq!(csv(text), rows, "{text}");
    }
}

#[test]
fn a_stray_quote_hides_no_rows() {
    assert_eq!(count("text/csv", "a,b\n1,5\" pipe\n2,x\n3,\"q\"\"\ny\"\n"), 3);
    assert_eq!(count("text/tab-separated-values", "a\tb\n\"1\tx\n2\ty\n"), 2);
}

#[test]
fn what_has_no_rows_isnt_counted() {
    for other in ["", "text/plain", "text/html", "image/png", "application/octet-stream"] {
        assert!(Rows::of(other).is_none(), "{other}");
    }
}
