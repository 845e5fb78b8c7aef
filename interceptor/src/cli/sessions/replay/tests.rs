use super::*;

fn shown(message: &Message) -> String {
    let mut out = Vec::new();
    super::message(&mut out, '<', message).unwrap();
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
fn time_is_replayed_as_fast_as_asked_for() {
    let mut now = "2026-11-25T00:00:00Z".parse().ok();
    let began = std::time::Instant::now();
    wait(&mut Vec::new(), &mut now, "2026-11-25T01:00:00Z", 0.0).unwrap();
    assert!(began.elapsed() < Duration::from_millis(500));
    wait(&mut Vec::new(), &mut now, "2026-11-25T01:00:01Z", 20.0).unwrap();
    assert!((Duration::from_millis(50)..Duration::from_secs(1)).contains(&began.elapsed()));
    wait(&mut Vec::new(), &mut now, "2026-11-24T00:00:00Z", 1.0).unwrap();
    assert_eq!(now, "2026-11-25T01:00:01Z".parse().ok(), "time doesn't go back");
}
