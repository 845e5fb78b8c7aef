use super::*;
use crate::cli::sessions::tests;
use crate::config::Strategy;
use crate::detect::secrets::MARK;
use crate::mask::{Place, Places};

fn shown(message: &Message) -> String {
    let mut out = Vec::new();
    super::message(&mut out, '<', message, true).unwrap();
    String::from_utf8(out).unwrap()
}

/// A body of this type, as its lines are shown.
fn body(kind: &str, partial: Option<&str>, body: &str) -> Vec<String> {
    let message = Message {
        start: "200 OK".into(),
        headers: vec![("Content-Type".into(), kind.into())],
        body: body.into(),
        partial: partial.map(str::to_owned),
        ..Message::default()
    };
    let shown = shown(&message);
    let lines = shown.lines().skip_while(|line| *line != "  < ").skip(1).filter(|line| !line.contains('…'));
    lines.map(|line| line[4..].to_owned()).collect()
}

/// A message whose body is masked where `‹›` is around something, or around nothing, and the lines it is shown as, with
/// their `*`.
fn noted(kind: &str, partial: Option<&str>, marked: &str) -> (Message, Vec<String>) {
    let (mut body, mut places, mut rest) = (String::new(), Vec::new(), marked);
    while let Some((before, after)) = rest.split_once('‹') {
        let (masked, after) = after.split_once('›').unwrap();
        body += before;
        let (start, length) = (u32::try_from(body.len()).unwrap(), u32::try_from(masked.len()).unwrap());
        let strategy = if length == 0 { Strategy::Drop } else { Strategy::Pseudonym };
        places.push(Place { start, length, strategy });
        body += masked;
        rest = after;
    }
    body += rest;
    let message = Message {
        start: "200 OK".into(),
        headers: vec![("Content-Type".into(), kind.into())],
        body: body.into(),
        partial: partial.map(str::to_owned),
        masked: Some(Places { places, more: None }),
        ..Message::default()
    };
    let shown = shown(&message);
    let lines = shown.lines().skip_while(|line| *line != "  < ").skip(1).filter(|line| !line.contains('…'));
    let lines = lines.map(|line| line[3..].to_owned()).collect();
    (message, lines)
}

/// An allowed operation of a session.
fn operation(id: &str, decided_at: &str, finished_at: Option<&str>) -> Operation {
    Operation {
        operation: format!("op_{id}"),
        summary: format!("GET /{id}"),
        action: "http:GET".into(),
        verdict: "allow".into(),
        code: None,
        decided_at: format!("2026-11-23T09:15:{decided_at}Z"),
        finished_at: finished_at.map(|at| format!("2026-11-23T09:15:{at}Z")),
        outcome: finished_at.map(|_| "done".into()),
        masked: BTreeMap::new(),
        ..tests::operation()
    }
}

/// A session of these operations, played at once; each sent and got what names it.
fn played(operations: Vec<Operation>) -> String {
    let story = Story { operations, ..tests::story() };
    let mut out = Vec::new();
    play(&mut out, &story, 0.0, |operation| {
        let message = |what: &str| Message { start: format!("{what} {}", operation.operation), ..Message::default() };
        let content = Content { request: message("ask"), response: Some(message("answer")) };
        Ok(Kept::Content(Box::new(content)))
    })
    .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn json_is_broken_into_lines_and_nothing_else_of_it_changes() {
    let text = r#"{"a":1.0e5,"b":[],"c" : {"d":"x,\"{","e":[true, null]}}"#;
    let expected = "{\n  \"a\": 1.0e5,\n  \"b\": [],\n  \"c\": {\n    \"d\": \"x,\\\"{\",\n    \"e\": [\n      true,\n      null\n    ]\n  }\n}";
    assert_eq!(json::pretty(text).unwrap(), expected);
    assert_eq!(json::pretty("{\"a\":"), None);
    assert_eq!(json::pretty("plain"), None);
}

#[test]
fn what_is_masked_is_marked_and_what_a_terminal_would_obey_is_spelled_out() {
    let message = Message {
        start: "200 OK".into(),
        headers: vec![("set-cookie".into(), MARK.into()), ("x\u{1b}[2J".into(), "y".into())],
        body: br#"{"mail":"***","note":"\u001b"}"#.to_vec(),
        bytes: 900,
        partial: Some("cut".into()),
        ..Message::default()
    };
    let out = shown(&message);
    assert!(out.contains("  <*set-cookie: [secret]\n"), "{out}");
    assert!(out.contains("  <*  \"mail\": \"***\",\n"), "{out}");
    assert!(out.contains("  < x\\u{1b}[2J: y\n") && !out.contains('\u{1b}'), "{out}");
    assert!(out.contains("cut here: 900 bytes"), "{out}");
}

#[test]
fn what_is_several_documents_is_broken_into_lines_one_by_one() {
    let (one, two) = (["{", "  \"a\": 1", "}"], ["{", "  \"b\": [", "    2", "  ]", "}"]);
    let both: Vec<&str> = one.into_iter().chain(two).collect();
    assert_eq!(body("application/x-ndjson", None, "{\"a\":1}\n{\"b\":[2]}\n"), both);
    assert_eq!(
        body("text/event-stream; charset=utf-8", None, "event: x\ndata: {\"a\":1}\n\ndata:[DONE]\n"),
        ["event: x", "data: {", "  \"a\": 1", "}", "", "data:[DONE]"]
    );
    assert_eq!(body("application/x-www-form-urlencoded", None, "a=1&b=%20"), ["a=1&", "b=%20"]);
    assert_eq!(body("text/plain", None, "a & b\n[x]"), ["a & b", "[x]"], "what is neither stays as it is");
}

#[test]
fn json_that_is_cut_is_broken_into_lines_as_well() {
    assert_eq!(body("application/json", Some("cut"), "{\"a\":1,\"b\":\"x"), ["{", "  \"a\": 1,", "  \"b\": \"x"]);
    assert_eq!(body("application/json", None, "{\"a\":1,\"b\":\"x"), ["{\"a\":1,\"b\":\"x"]);
    assert_eq!(
        body("application/jsonl", Some("memory"), "{\"a\":1}\n{\"b\":[2"),
        ["{", "  \"a\": 1", "}", "{", "  \"b\": [", "    2"]
    );
    assert_eq!(body("text/plain", Some("cut"), "[x y] and"), ["[x y] and"], "it isn't JSON");
}

#[test]
fn numbers_nulls_and_what_was_dropped_are_marked_where_they_stand() {
    let json = "application/json";
    for (body, expected) in [
        (
            r#"{"n":12,"id":‹34›,"ok":‹null›,"no":null}"#,
            vec![" {", "   \"n\": 12,", "*  \"id\": 34,", "*  \"ok\": null,", "   \"no\": null", " }"],
        ),
        // The first member, one in the middle, the last, the only one.
        (r#"{‹›"b":2,"c":3}"#, vec![" {", "*  (dropped)", "   \"b\": 2,", "   \"c\": 3", " }"]),
        (r#"{"a":1‹›,"c":3}"#, vec![" {", "   \"a\": 1,", "*  (dropped)", "   \"c\": 3", " }"]),
        (r#"{"a":1 ‹› , "c":3}"#, vec![" {", "   \"a\": 1,", "*  (dropped)", "   \"c\": 3", " }"]),
        (r#"{"a":1,"b":2‹›}"#, vec![" {", "   \"a\": 1,", "   \"b\": 2", "*  (dropped)", " }"]),
        (r#"{‹› }"#, vec![" {", "*  (dropped)", " }"]),
        // Elements; what is in each other; several at once.
        ("[‹›‹›3]", vec![" [", "*  (2 dropped)", "   3", " ]"]),
        (
            r#"{"x":[‹›],"y":{"z":{}‹›}‹›}"#,
            vec![
                " {",
                "   \"x\": [",
                "*    (dropped)",
                "   ],",
                "   \"y\": {",
                "     \"z\": {}",
                "*    (dropped)",
                "   }",
                "*  (dropped)",
                " }",
            ],
        ),
        // A name, and documents in strings.
        (
            r#"{"‹p-abc›":1,"t":"{‹›\"n\":‹5›}","u":"[redacted]"}"#,
            vec![" {", "*  \"p-abc\": 1,", "*  \"t\": \"{\\\"n\\\":5}\",", "   \"u\": \"[redacted]\"", " }"],
        ),
    ] {
        let (message, lines) = noted(json, None, body);
        assert_eq!(lines, expected, "{body}");
        let marked = super::message(&mut Vec::new(), '<', &message, true).unwrap();
        assert_eq!(marked, body.matches('‹').count() as u64, "{body}");
    }
}

#[test]
fn what_is_masked_is_marked_in_every_kind_of_body() {
    for (kind, partial, body, expected) in [
        ("text/csv", None, "id,phone\n1,‹555›\n2,\n", vec![" id,phone", "*1,555", " 2,"]),
        ("text/plain", None, "to ‹›\r\n‹›\nbob, ‹›", vec!["*to ", "*", "*bob, "]),
        ("text/plain", None, "‹›", vec!["*(dropped)"]),
        ("application/x-www-form-urlencoded", None, "a=‹›&b=2&c=‹3›", vec!["*a=&", " b=2&", "*c=3"]),
        (
            "application/x-ndjson",
            None,
            "{\"a\":‹1›}\n{‹›}\n",
            vec![" {", "*  \"a\": 1", " }", " {", "*  (dropped)", " }"],
        ),
        (
            "text/event-stream",
            None,
            "id: ‹7›\ndata: {\"a\":‹1›}\n\ndata: ‹8›\n",
            vec!["*id: 7", " data: {", "*  \"a\": 1", " }", " ", "*data: 8"],
        ),
        // It goes on behind a line's end.
        ("text/plain", None, "a ‹b\nc› d\ne", vec!["*a b", "*c d", " e"]),
        ("application/json", Some("cut"), "{\"a\":‹1›‹›", vec![" {", "*  \"a\": 1", "*  (dropped)"]),
    ] {
        assert_eq!(noted(kind, partial, body).1, expected, "{kind}: {body}");
    }
}

#[test]
fn where_it_is_noted_what_is_masked_nothing_else_is_taken_for_it() {
    let (mut message, lines) = noted("application/json", None, r#"["[redacted]",‹7›,"***",8]"#);
    assert_eq!(lines, [" [", "   \"[redacted]\",", "*  7,", "   \"***\",", "   8", " ]"]);
    assert!(is_noted(&message), "there is nothing left to count");
    // As earlier versions recorded it.
    message.masked = None;
    let shown_before = shown(&message);
    assert!(!is_noted(&message) && shown_before.contains("  <*  \"[redacted]\",\n  <   7,\n"), "{shown_before}");
    assert_eq!(super::message(&mut Vec::new(), '<', &message, true).unwrap(), 2);
    // Behind what was noted only what shows it.
    let place = Place { start: 14, length: 1, strategy: Strategy::Redact };
    message.masked = Some(Places { places: vec![place], more: Some(17) });
    let shown = shown(&message);
    assert!(!is_noted(&message) && shown.contains("more than 1024 values are masked"), "{shown}");
    assert!(shown.contains("  <   \"[redacted]\",\n  <*  7,\n  <*  \"***\",\n  <   8\n"), "{shown}");
}

#[test]
fn what_isnt_noted_of_an_answer_is_counted_and_what_is_isnt() {
    let operation = Operation { masked: BTreeMap::from([("$..id".into(), 2)]), ..operation("a", "38", Some("39")) };
    let story = Story { operations: vec![operation], ..tests::story() };
    let told = |masked: Option<Places>| {
        let mut out = Vec::new();
        let mut answer = Some(Message { body: b"[7,8]".into(), masked, ..Message::default() });
        play(&mut out, &story, 0.0, |_| {
            let content = Content { request: Message::default(), response: answer.take() };
            Ok(Kept::Content(Box::new(content)))
        })
        .unwrap();
        String::from_utf8(out).unwrap()
    };
    let places = [1, 3].map(|start| Place { start, length: 1, strategy: Strategy::Pseudonym });
    let noted = told(Some(Places { places: places.into(), more: None }));
    assert!(noted.contains("  <*  7,\n  <*  8\n") && !noted.contains("no `*`"), "{noted}");
    let before = told(None);
    assert!(before.contains("  <   7,\n  <   8\n") && before.contains("  2 of them have no `*`"), "{before}");
}

#[test]
fn what_shows_to_be_masked_is_counted() {
    for (text, count) in [
        ("\"a\": \"[redacted]\", \"b\": \"[redacted:email]\"", 2),
        ("q=%5Bredacted%5D", 1),
        ("to p-abcdefghijklm234@masked.invalid.", 1),
        ("q=p-abcdefghijklm234%40masked.invalid", 1),
        ("\"p-abcdefghijklm234\"", 1),
        ("help-abcdefghijklm234, p-abcdefghijklm234x", 0),
        ("call +99 9123 456 78", 1),
        ("call +44 20 7946 0958", 0),
        ("\"01234567-89ab-8def-8123-456789abcdef\"", 1),
        ("\"01234567-89ab-4def-8123-456789abcdef\"", 0),
        ("\"***@contoso.example\", \"***\", \"***wxyz\"", 3),
        ("**** **** **** 1111", 1),
        ("***-**-6789", 1),
        ("** bold ** and ****", 0),
        ("plain", 0),
    ] {
        assert_eq!(marks::masked(text), count, "{text}");
    }
}

#[test]
fn without_masks_nothing_is_taken_for_their_work() {
    let story = tests::story();
    let mut operation = Operation { masked: BTreeMap::new(), ..story.operations[0].clone() };
    assert!(!is_masked(&operation));
    let message = Message {
        start: "200 OK".into(),
        headers: vec![("x-rating".into(), "*** of 5".into()), ("x-a".into(), "[unmasked]".into())],
        ..Message::default()
    };
    let mut out = Vec::new();
    super::message(&mut out, '<', &message, is_masked(&operation)).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("  < x-rating: *** of 5\n") && text.contains("  <*x-a: [unmasked]\n"), "{text}");
    operation.basis.obligations.masks = vec!["pii".parse().unwrap()];
    assert!(is_masked(&operation), "nothing was masked, but could have been");
}

#[test]
fn values_that_are_masked_without_a_mark_are_counted() {
    let operation = Operation { masked: BTreeMap::from([("$..id".into(), 3)]), ..operation("a", "38", Some("39")) };
    let told = |marked| {
        let mut out = Vec::new();
        outcome(&mut out, &operation, marked).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(told(Some(1)).starts_with("  masked: 3 $..id\n  2 of them have no `*`"), "{}", told(Some(1)));
    assert!(!told(Some(3)).contains("no `*`") && !told(None).contains("no `*`"), "there is nothing to tell");
}

#[test]
fn a_request_that_waits_for_people_isnt_told_as_denied() {
    let held = Operation { verdict: "hold".into(), ..operation("a", "38", Some("39")) };
    let denied = Operation { verdict: "deny".into(), ..operation("b", "40", Some("41")) };
    let text = played(vec![held, denied]);
    assert!(text.contains("  HOLD  http:GET  GET /a") && text.contains("  DENY  http:GET  GET /b"), "{text}");
}

#[test]
fn what_overlaps_is_shown_as_it_came() {
    let text = played(vec![
        operation("one", "38.1", Some("38.4")),
        operation("two", "38.2", Some("38.3")),
        operation("three", "38.5", None),
    ]);
    let order = [
        "38.100  ALLOW  http:GET  GET /one",
        "> ask op_one",
        "38.200  ALLOW  http:GET  GET /two",
        "> ask op_two",
        "< answer op_two",
        "38.400  END  http:GET  GET /one",
        "< answer op_one",
        "38.500  ALLOW  http:GET  GET /three",
        "> ask op_three",
        "no outcome",
        "closed: done",
    ];
    let mut rest = text.as_str();
    for part in order {
        let at = rest.find(part).unwrap_or_else(|| panic!("`{part}` isn't where it belongs in\n{text}"));
        rest = &rest[at + part.len()..];
    }
    assert_eq!(text.matches("END  ").count(), 1, "{text}");
}

#[test]
fn the_policies_that_cut_something_are_told_with_its_end() {
    let cut = Operation {
        outcome: Some("policy-changed".into()),
        cut_by: vec!["audit".into()],
        ..operation("a", "38", Some("38.5"))
    };
    let mut story = Story { operations: vec![cut], ..tests::story() };
    story.session.reason = Some("policy-changed".into());
    story.session.cut_by = vec!["shut".into(), "x\u{1b}".into()];
    let mut out = Vec::new();
    play(&mut out, &story, 0.0, |_| Ok(Kept::Nothing)).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("  ended: policy-changed by audit\n"), "{text}");
    assert!(text.ends_with("  closed: policy-changed by shut, x\\u{1b}\n"), "{text}");
}

#[test]
fn an_end_comes_behind_its_verdict_even_if_the_clock_was_set_back() {
    let text = played(vec![operation("one", "38", Some("30")), operation("two", "31", Some("32"))]);
    let places = ["ask op_one", "answer op_one", "ask op_two", "answer op_two"].map(|part| text.find(part).unwrap());
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn time_is_replayed_as_fast_as_asked_for() {
    let mut now = "2026-11-25T00:00:00Z".parse().ok();
    let began = std::time::Instant::now();
    wait(&mut Vec::new(), &mut now, "2026-11-25T01:00:00Z", 0.0).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "an hour isn't waited for");
    let began = std::time::Instant::now();
    wait(&mut Vec::new(), &mut now, "2026-11-25T01:00:20Z", 400.0).unwrap();
    assert!((Duration::from_millis(50)..Duration::from_secs(10)).contains(&began.elapsed()));
    wait(&mut Vec::new(), &mut now, "2026-11-24T00:00:00Z", 1.0).unwrap();
    assert_eq!(now, "2026-11-25T01:00:20Z".parse().ok(), "time doesn't go back");
}
