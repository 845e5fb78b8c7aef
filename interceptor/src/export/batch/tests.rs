use super::*;

fn event(seq: u64, body: &str) -> Item {
    Item::Event(Link { seq, previous: "0".repeat(64), hash: "ab".repeat(32), body: body.into() })
}

fn checkpoint() -> Item {
    let line = format!(
        r#"{{"seq":2,"hash":"{}","at":"2026-11-25T09:00:00Z","previous":"{}","key":"{}","signature":"00"}}"#,
        "ab".repeat(32),
        "0".repeat(64),
        "cd".repeat(32)
    );
    Item::Checkpoint(Signed { checkpoint: serde_json::from_str(&line).expect("a checkpoint"), line, end: 400 })
}

const ALLOWED: &str =
    r#"{"at":"2026-11-25T08:59:58.123456789Z","event":"operation.decided","verdict":"allow","summary":"GET /é"}"#;
const DENIED: &str = r#"{"at":"2026-11-25T08:59:58Z","event":"operation.decided","verdict":"deny"}"#;
const DAMAGED: &str = r#"{"at":"2026-11-25T08:59:58Z","event":"record.damaged","place":"a","detail":"b"}"#;

/// RFC 5425 section 4.3: MSG-LEN SP SYSLOG-MSG.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let at = bytes.iter().position(|&byte| byte == b' ').expect("a length");
        let length: usize = std::str::from_utf8(&bytes[..at]).unwrap().parse().expect("digits");
        frames.push(String::from_utf8(bytes[at + 1..at + 1 + length].to_vec()).expect("UTF-8"));
        bytes = &bytes[at + 1 + length..];
    }
    frames
}

#[test]
fn a_syslog_message_is_counted_in_bytes_and_ends_in_the_body_as_it_is() {
    let hash = "ab".repeat(32);
    let messages = frames(&syslog(&[event(1, ALLOWED), event(2, DENIED), checkpoint(), event(3, DAMAGED)], "a host"));
    assert_eq!(messages.len(), 4);
    let head = "1 2026-11-25T08:59:58.123456Z ahost interceptor - operation.decided";
    assert_eq!(messages[0], format!("<110>{head} [interceptor@32473 seq=\"1\" hash=\"{hash}\"] {ALLOWED}"));
    assert!(messages[1].starts_with("<108>1 2026-11-25T08:59:58.000000Z ahost interceptor - operation.decided ["));
    assert!(messages[2].starts_with("<110>1 2026-11-25T09:00:00.000000Z ahost interceptor - checkpoint ["));
    assert!(messages[2].ends_with(r#""signature":"00"}"#));
    assert!(messages[3].starts_with("<107>1 ") && messages[3].ends_with(DAMAGED));
}

#[test]
fn what_no_version_of_ours_wrote_is_sent_all_the_same() {
    let messages = frames(&syslog(&[event(1, "no event")], ""));
    assert!(messages[0].starts_with("<110>1 - - interceptor - event ["), "{}", messages[0]);
    assert!(messages[0].ends_with("] no event"));
    assert!(event(1, "no event").at().is_none());
}

#[test]
fn lines_and_arrays_hold_the_same_objects() {
    let items = [event(7, ALLOWED), checkpoint()];
    let lines = String::from_utf8(objects(&items, BatchFormat::Lines)).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let array: Value = serde_json::from_slice(&objects(&items, BatchFormat::Array)).expect("JSON");
    assert_eq!(array, Value::Array(lines.clone()));
    assert_eq!(lines[0]["body"], ALLOWED);
    assert_eq!((&lines[0]["seq"], &lines[0]["event"]), (&json!(7), &json!("operation.decided")));
    assert_eq!(lines[0]["hash"], "ab".repeat(32));
    assert_eq!((&lines[1]["event"], &lines[1]["at"]), (&json!("checkpoint"), &json!("2026-11-25T09:00:00Z")));
    assert!(lines[1]["checkpoint"].as_str().unwrap().ends_with(r#""signature":"00"}"#));
}

#[test]
fn log_records_have_numbers_of_64_bits_as_text() {
    let request: Value = serde_json::from_slice(&otlp(&[event(7, ALLOWED), event(8, DENIED)], "a")).expect("JSON");
    let scope = &request["resourceLogs"][0]["scopeLogs"][0];
    let record = &scope["logRecords"][0];
    assert_eq!(record["timeUnixNano"], "1795597198123456789");
    assert_eq!(record["body"]["stringValue"], ALLOWED);
    assert_eq!(record["severityNumber"], 9);
    assert_eq!(scope["logRecords"][1]["severityNumber"], 13);
    assert_eq!(record["attributes"][1], json!({ "key": "interceptor.seq", "value": { "intValue": "7" } }));
    assert_eq!(request["resourceLogs"][0]["resource"]["attributes"][0]["value"]["stringValue"], "interceptor");
}
