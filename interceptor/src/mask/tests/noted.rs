//! Where in a masked body something was masked is noted as it goes out, whatever is masked and however it is cut.

use super::places::MOST;
use super::*;

/// What comes out of the pieces, where it is masked, and how many values were.
fn noted<'a>(plan: &Arc<Plan>, kind: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Places, u64) {
    let mut masker = Masker::new(Arc::clone(plan), Some(kind), KEY).unwrap();
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(piece, &mut out).unwrap();
    }
    masker.finish(&mut out).unwrap();
    let count = masker.counts().map(|(_, count)| count).sum();
    (out, masker.take_places(), count)
}

/// The masked body with each place in `‹›`. It is the same however the body is cut.
fn marked(plan: &Arc<Plan>, kind: &str, body: &str) -> String {
    let whole = noted(plan, kind, [body.as_bytes()]);
    for size in [1, 2, 7] {
        assert_eq!(noted(plan, kind, body.as_bytes().chunks(size)), whole, "{body} by {size}");
    }
    let (out, places, _) = whole;
    let (mut text, mut at) = (String::new(), 0);
    for place in &places.places {
        let range = place.range();
        let part = |range: std::ops::Range<usize>| std::str::from_utf8(&out[range]).unwrap();
        text += &format!("{}‹{}›", part(at..range.start), part(range.clone()));
        assert!(!range.is_empty() || place.strategy == Strategy::Drop, "{body}: {place:?}");
        at = range.end;
    }
    text + std::str::from_utf8(&out[at..]).unwrap()
}

const JSON: &str = "application/json";

#[test]
fn numbers_and_nulls_that_a_mask_made_are_noted_and_others_are_not() {
    let redact = plan("[[mask]]\nname = \"m\"\njson = [\"$..id\", \"$..ok\", \"$..none\"]");
    assert_eq!(
        marked(&redact, JSON, r#"{"id":5,"ok":true,"none":null,"n":7,"x":{"id":"a"}}"#),
        r#"{"id":‹null›,"ok":‹null›,"none":null,"n":7,"x":{"id":"‹[redacted]›"}}"#
    );
    let pseudonym = plan("[[mask]]\nname = \"m\"\njson = [\"$..id\"]\nstrategy = \"pseudonym\"");
    let text = marked(&pseudonym, JSON, r#"{"n":12345,"id":12345,"x":[{"id":-678}]}"#);
    let (first, rest) = text.strip_prefix("{\"n\":12345,\"id\":‹").unwrap().split_once("›,\"x\":[{\"id\":‹-").unwrap();
    let second = rest.strip_suffix("›}]}").unwrap();
    assert!(first.len() == 5 && second.len() == 3 && first != "12345", "{text}");
    assert!([first, second].concat().bytes().all(|byte| byte.is_ascii_digit()), "{text}");
}

#[test]
fn members_and_elements_that_are_dropped_are_noted_where_they_were() {
    for (path, body, expected) in [
        ("$.a", r#"{"a":1,"b":2,"c":3}"#, r#"{‹›"b":2,"c":3}"#),
        ("$.b", r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1‹›,"c":3}"#),
        ("$.c", r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"b":2‹›}"#),
        ("$.*", r#"{"a":1,"b":[2],"c":"3"}"#, "{‹›‹›‹›}"),
        ("$.a", r#"{ "a" : 1 , "b" : 2 }"#, r#"{‹›  "b" : 2 }"#),
        ("$[0:2]", "[1,2,3]", "[‹›‹›3]"),
        ("$[1]", "[1,2,3]", "[1‹›,3]"),
        ("$.x[*]", r#"{"x":[[1],{}],"y":0}"#, r#"{"x":[‹›‹›],"y":0}"#),
        (
            "$..[?@.kind == 'x'].b",
            r#"[{"kind":"x","b":1,"c":2},{"kind":"y","b":3}]"#,
            r#"[{"kind":"x"‹›,"c":2},{"kind":"y","b":3}]"#,
        ),
        ("$[?@.kind == 'x']", r#"[{"kind":"x"},{"kind":"y"}]"#, r#"[‹›{"kind":"y"}]"#),
    ] {
        let plan = plan(&format!("[[mask]]\nname = \"m\"\njson = [\"{path}\"]\nstrategy = \"drop\""));
        assert_eq!(marked(&plan, JSON, body), expected, "{path}");
    }
}

#[test]
fn what_is_masked_in_a_document_in_a_string_is_noted_in_the_string() {
    let body = r#"{"t":"{\"mail\":\"ada\",\"n\":1,\"mail\":5}","n":2}"#;
    for (strategy, expected) in [
        ("redact", r#"{"t":"{\"mail\":\"‹[redacted]›\",\"n\":1,\"mail\":‹null›}","n":2}"#),
        ("drop", r#"{"t":"{‹›\"n\":1‹›}","n":2}"#),
    ] {
        let plan = plan(&format!("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]\nstrategy = \"{strategy}\""));
        assert_eq!(marked(&plan, JSON, body), expected, "{strategy}");
    }
    // Each of two that nothing stands between.
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..a\", \"$..b\"]\nstrategy = \"drop\"");
    assert_eq!(marked(&plan, JSON, r#"["{\"a\":1,\"b\":2}"]"#), r#"["{‹›‹›}"]"#);
}

#[test]
fn what_detectors_find_is_noted_also_in_names() {
    let [redact, drop] = ["redact", "drop"].map(|strategy| {
        plan(&format!("[[mask]]\nname = \"m\"\njson = [\"$.gone\"]\ndetect = [\"email\"]\nstrategy = \"{strategy}\""))
    });
    let body = r#"{"bob@example.com":"to ada@example.com and eve@example.com","gone":null}"#;
    let found = "‹[redacted:email]›";
    assert_eq!(marked(&redact, JSON, body), format!(r#"{{"{found}":"to {found} and {found}","gone":null}}"#));
    // A member needs a name.
    assert_eq!(marked(&drop, JSON, body), format!(r#"{{"{found}":"to ‹› and ‹›"‹›}}"#));
}

#[test]
fn places_are_noted_in_every_kind_of_body() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..phone\"]\ndetect = [\"email\"]");
    let found = "‹[redacted:email]›";
    for (kind, body, expected) in [
        (
            "application/x-ndjson",
            "{\"phone\":1}\n{\"phone\":2}\n",
            "{\"phone\":‹null›}\n{\"phone\":‹null›}\n".to_owned(),
        ),
        (
            "text/event-stream",
            "event: x\ndata: {\"phone\":1,\ndata: \"to\":\"ada@example.com\"}\n\ndata: [DONE]\n\n",
            format!("event: x\ndata: {{\"phone\":‹null›,\ndata: \"to\":\"{found}\"}}\n\ndata: [DONE]\n\n"),
        ),
        (
            "text/csv",
            "id,ada@example.com,phone\n1,x,\"5\"\n2,eve@example.com,\n",
            format!("id,{found},phone\n1,x,\"‹[redacted]›\"\n2,{found},\n"),
        ),
        // Held until a field is known to be masked.
        (
            "application/x-www-form-urlencoded",
            "a=ada%40example.com&phone=5&b=2&phone=",
            "a=‹%5Bredacted%3Aemail%5D›&phone=‹%5Bredacted%5D›&b=2&phone=".to_owned(),
        ),
        (
            "application/x-www-form-urlencoded",
            "q=%7B%22phone%22%3A%225%22%7D",
            "q=%7B%22phone%22%3A%22‹%5Bredacted%5D›%22%7D".to_owned(),
        ),
    ] {
        assert_eq!(marked(&plan, kind, body), expected, "{kind}");
    }
    let plan = super::plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    assert_eq!(marked(&plan, "text/plain", "to ada@example.com, bob"), format!("to {found}, bob"));
    assert_eq!(marked(&plan, "text/html", "<b>ada&#64;example.com</b>"), format!("<b>{found}</b>"));
}

#[test]
fn beyond_the_bound_it_is_noted_only_where_that_begins() {
    let redact = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    let body = format!("[{}]", vec!["{\"mail\":1}"; MOST + 5].join(","));
    // `[{"mail":null},` and so on.
    let start = |number: usize| u32::try_from(9 + 14 * number).unwrap();
    for size in [100, body.len()] {
        let (_, places, count) = noted(&redact, JSON, body.as_bytes().chunks(size));
        assert_eq!((places.places.len(), places.more, count), (MOST, Some(start(MOST)), MOST as u64 + 5), "by {size}");
        assert_eq!(places.places[MOST - 1], Place { start: start(MOST - 1), length: 4, strategy: Strategy::Redact });
    }
    // The same of what is held until a field is known to be masked.
    let drop = plan("[[mask]]\nname = \"m\"\njson = [\"$..phone\"]\ndetect = [\"email\"]\nstrategy = \"drop\"");
    let body = "x=ada%40example.com&".repeat(MOST + 5) + "phone=5";
    let (out, places, _) = noted(&drop, "application/x-www-form-urlencoded", [body.as_bytes()]);
    assert_eq!(String::from_utf8(out).unwrap(), "x=&".repeat(MOST + 5) + "phone=");
    assert_eq!((places.places.len(), places.more), (MOST, u32::try_from(3 * MOST + 2).ok()));
}

#[test]
fn the_golden_set_has_the_same_places_however_it_is_cut_and_one_for_each_value() {
    let mut all = 0;
    for Document { path, plan, content_type, body } in documents() {
        if mask(&plan, content_type, [&body[..]]).is_err() {
            continue;
        }
        let whole = noted(&plan, content_type, [&body[..]]);
        for size in [1, 13] {
            let pieces = noted(&plan, content_type, body.chunks(size));
            assert!(pieces == whole, "{} by {size}", path.display());
        }
        let (out, places, count) = whole;
        let mut at = 0;
        for place in &places.places {
            let range = place.range();
            assert!(at <= range.start && range.end <= out.len(), "{}: {place:?}", path.display());
            at = range.end;
        }
        // A name may be masked of a member that is dropped.
        let noted = places.places.len() as u64;
        let is_each = if plan.drops { noted <= count } else { noted == count };
        assert!(is_each || places.more.is_some(), "{}: {noted} of {count}", path.display());
        all += noted;
    }
    assert!(all > 500, "{all} places");
}
