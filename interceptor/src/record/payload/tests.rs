use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::SystemClock;
use crate::config::{Durability, RecordSettings, Strategy};
use crate::mask::Place;
use crate::record::{Record, tests, verify};

const MARK: &str = "only-the-sealed-bytes-know-this";
const SOON: Duration = Duration::from_secs(10);

fn open(dir: &std::path::Path) -> Record {
    let settings = RecordSettings {
        durability: Durability::Process,
        segment_bytes: 64 << 10,
        backlog_bytes: 64 << 20,
        backlog_age: Duration::from_secs(30),
        reserve: 0,
        ..RecordSettings::default()
    };
    Record::open(dir, &settings, Arc::new(SystemClock)).expect("the record opens")
}

fn content(text: &str) -> Content {
    let message = |start: &str, body: &str| Message {
        start: start.into(),
        headers: vec![("x-note".into(), text.into())],
        body: body.repeat(3).into_bytes(),
        bytes: body.len() as u64 * 3,
        kept: body.len() * 3,
        tls: Some(start.starts_with("POST")),
        ..Message::default()
    };
    Content { request: message("POST /a HTTP/1.1", text), response: Some(message("HTTP/1.1 200 OK", "answer")) }
}

/// Keeps a content as the pipeline does: the payload, then the event that names it.
fn keep(record: &Record, session: SessionId, text: &str) -> OperationId {
    let journal = record.journal("worker-0").unwrap();
    let key = record.keys().new_session(session).unwrap();
    tests::keep(&journal, &key, session, &content(text))
}

fn files_that_hold(dir: &std::path::Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_that_hold(&path, text));
        } else if std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn what_was_kept_is_read_again_and_lies_nowhere_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionId::new();
    let record = open(dir.path());
    let operation = keep(&record, session, MARK);
    assert_eq!(files_that_hold(dir.path(), MARK), Vec::<String>::new(), "in the journal");
    record.flush(SOON).unwrap();
    assert_eq!(record.content(operation).unwrap(), Some(content(MARK)));
    assert_eq!(record.content(OperationId::new()).unwrap(), None);
    drop(record);
    assert_eq!(files_that_hold(dir.path(), MARK), Vec::<String>::new());
    // The key is on the disk, so the next daemon reads it too.
    let record = open(dir.path());
    assert_eq!(record.content(operation).unwrap(), Some(content(MARK)));
    assert_eq!(verify(record.database()).unwrap().fault, None);
}

#[test]
fn where_a_body_is_masked_is_kept_with_it_and_payloads_from_before_that_are_read() {
    let session = SessionId::new();
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let key = record.keys().new_session(session).unwrap();
    let mut kept = content("x");
    let place = |start, length, strategy| Place { start, length, strategy };
    let places = vec![place(1, 4, Strategy::Pseudonym), place(9, 0, Strategy::Drop)];
    kept.response.as_mut().unwrap().masked = Some(Places { places, more: Some(12) });
    let operation = OperationId::new();
    let sealed = key.seal(operation, &kept).unwrap();
    assert!(!String::from_utf8_lossy(&sealed.bytes).contains("pseudonym"), "it is sealed");
    assert_eq!(key.open(operation, &sealed.bytes), Some(kept.clone()));
    assert_eq!(Content::from_json(&kept.to_json().unwrap()), Some(kept));
    // As earlier versions packed it.
    let before = r#"{"request":{"start":"a","headers":[],"kept":1,"bytes":1},"response":{"start":"b","headers":[],"kept":2,"bytes":2}}"#;
    let length = u32::try_from(before.len()).unwrap().to_le_bytes();
    let packed = [&length[..], before.as_bytes(), b"xyz"].concat();
    let read = Content::unpack(&packed).unwrap();
    assert_eq!((read.request.body, read.request.masked), (b"x".to_vec(), None));
    let response = read.response.unwrap();
    assert_eq!((response.body, response.masked), (b"yz".to_vec(), None));
    // What no mask was at work on takes no more room than it did.
    assert!(!String::from_utf8_lossy(&content("x").pack().unwrap()).contains("masked"));
}

#[test]
fn a_payload_of_another_operation_or_without_its_key_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let (one, other) = (keep(&record, SessionId::new(), "one"), keep(&record, SessionId::new(), "other"));
    record.flush(SOON).unwrap();
    let db = Connection::open(record.database()).unwrap();
    db.execute(
        "UPDATE payloads SET (session, sealed) = (SELECT session, sealed FROM payloads WHERE operation = ?2)
         WHERE operation = ?1",
        [one.to_string(), other.to_string()],
    )
    .unwrap();
    assert!(matches!(record.content(one), Err(QueryError::Forged(_))));
    let fault = verify(record.database()).unwrap().fault.expect("it shows");
    assert!(fault.what.contains(&one.to_string()), "{fault:?}");
    db.execute("DELETE FROM payloads WHERE operation = ?1", [one.to_string()]).unwrap();
    db.execute("UPDATE session_keys SET wrapped = NULL", []).unwrap();
    assert!(matches!(record.content(other), Err(QueryError::Erased(_))));
    let report = verify(record.database()).unwrap();
    assert_eq!(report.fault, None, "pruning and erasing leave the chain whole");
    assert!(report.notes.iter().any(|note| note.starts_with("1 payloads aren't there")), "{:?}", report.notes);
}

#[test]
fn an_erased_key_does_not_come_back_with_the_next_payload() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let session = SessionId::new();
    let key = record.keys().new_session(session).unwrap();
    let first = tests::keep(&journal, &key, session, &content("first"));
    record.flush(SOON).unwrap();
    Connection::open(record.database()).unwrap().execute("UPDATE session_keys SET wrapped = NULL", []).unwrap();
    let second = tests::keep(&journal, &key, session, &content("second"));
    record.flush(SOON).unwrap();
    for operation in [first, second] {
        assert!(matches!(record.content(operation), Err(QueryError::Erased(_))));
    }
}

#[test]
fn a_payload_larger_than_a_segment_has_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let session = SessionId::new();
    let key = record.keys().new_session(session).unwrap();
    let mut large = content("x");
    let mut random = vec![0; 1 << 20];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    large.request.body = random;
    let operation = tests::keep(&journal, &key, session, &large);
    record.flush(SOON).unwrap();
    assert_eq!(record.content(operation).unwrap().map(|content| content.request.body), Some(large.request.body));
}
