use super::*;

#[test]
fn media_types_are_told_by_what_they_hold() {
    for (content_type, kind) in [
        ("application/json", Kind::Json { lines: false }),
        ("Application/Problem+JSON; charset=UTF-8", Kind::Json { lines: false }),
        ("application/json; profile=\"a,b\"", Kind::Json { lines: false }),
        ("application/json;odata.metadata=minimal;charset=\"utf-8\"", Kind::Json { lines: false }),
        ("application/x-ndjson", Kind::Json { lines: true }),
        ("text/event-stream", Kind::Events),
        ("text/csv; header=present", Kind::Separated { tabs: false }),
        ("text/html;charset=iso-8859-1", Kind::Markup),
        ("image/svg+xml", Kind::Markup),
        ("text/markdown", Kind::Text),
        ("application/x-www-form-urlencoded", Kind::Form),
    ] {
        assert_eq!(Kind::of(Some(content_type)), Ok(kind), "{content_type}");
    }
    for unknown in [
        None,
        Some("application/octet-stream"),
        Some("multipart/form-data; boundary=x"),
        Some("text/html; charset=utf-16"),
        Some("application/x-www-form-urlencoded; a=b, application/json"),
        Some(""),
    ] {
        assert!(matches!(Kind::of(unknown), Err(Withheld::UnknownType(_))), "{unknown:?}");
    }
}
