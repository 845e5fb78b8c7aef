use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::config::RecordSettings;
use crate::ids::{OperationId, SessionId};
use crate::record::payload::{Content, Message, unhex};
use crate::record::tests::{self, settings};
use crate::record::{Journal, Record, verify};

const SOON: Duration = Duration::from_secs(10);

fn open(dir: &Path, keep_payloads: Option<Duration>) -> Record {
    let settings = RecordSettings { keep_payloads, ..settings() };
    Record::open(dir, &settings, Arc::new(SystemClock)).expect("the record opens")
}

fn tell(record: &Record, journal: &Journal, what: What) {
    let _recorded = journal.append(&Event { at: SystemClock.now(), what }).expect("it is recorded");
    record.flush(SOON).expect("it is moved");
}

/// A payload of a session.
fn keep(record: &Record, journal: &Journal, session: SessionId) -> OperationId {
    keep_of(record, journal, ("crm", session))
}

/// A payload of a session of a workload.
fn keep_of(record: &Record, journal: &Journal, (workload, session): (&str, SessionId)) -> OperationId {
    let key = record.keys().new_session(session).expect("a key");
    let content = Content { request: Message { start: "GET / HTTP/1.1".into(), ..Message::default() }, response: None };
    let operation = tests::keep_of(workload, journal, (&key, session), &content);
    record.flush(SOON).expect("it is moved");
    operation
}

fn later() -> Timestamp {
    SystemClock.now() + Duration::from_secs(1)
}

fn prune(before: Timestamp) -> What {
    What::RecordPruned { before, workloads: Vec::new(), others: false, uid: Some(0), pid: Some(1) }
}

fn count(record: &Record, sql: &str) -> i64 {
    Connection::open(record.database()).expect("it opens").query_row(sql, [], |row| row.get(0)).expect("a count")
}

/// Waits until the writer has pruned all that it was asked to.
fn pruned(record: &Record) {
    let begin = std::time::Instant::now();
    while count(record, "SELECT count(*) FROM pruning") > 0 {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn notes(record: &Record) -> String {
    let report = verify(record.database()).expect("a report");
    assert_eq!(report.fault, None);
    report.notes.join("; ")
}

#[test]
fn old_payloads_go_in_portions_and_those_of_held_sessions_stay() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path(), None);
    let journal = record.journal("worker-0").unwrap();
    let (one, held) = (SessionId::new(), SessionId::new());
    let many = 2 * i64::from(PORTION) + 1;
    for _ in 0..many {
        let _operation = keep(&record, &journal, one);
    }
    let kept = keep(&record, &journal, held);
    tell(&record, &journal, What::SessionHeld { session: held, held: true, uid: 0, pid: 1 });
    let reader = record.reader().unwrap();
    assert_eq!(reader.prunable(later()).unwrap(), many.unsigned_abs());
    tell(&record, &journal, prune("2020-01-01T00:00:00Z".parse().unwrap()));
    pruned(&record);
    assert_eq!(count(&record, "SELECT count(*) FROM payloads"), many + 1, "none is as old as that");

    tell(&record, &journal, prune(later()));
    pruned(&record);
    assert_eq!(count(&record, "SELECT count(*) FROM payloads"), 1);
    assert!(record.content(kept).unwrap().is_some());
    let said = notes(&record);
    assert!(said.contains(&format!("{many} payloads aren't there any more")), "{said}");
    assert!(!said.contains("without an event"), "{said}");

    tell(&record, &journal, What::SessionHeld { session: held, held: false, uid: 0, pid: 1 });
    tell(&record, &journal, prune(later()));
    pruned(&record);
    assert_eq!(record.content(kept).unwrap(), None);
}

#[test]
fn what_goes_without_an_event_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path(), None);
    let _operation = keep(&record, &record.journal("worker-0").unwrap(), SessionId::new());
    Connection::open(record.database()).unwrap().execute_batch("DELETE FROM payloads").unwrap();
    let said = notes(&record);
    assert!(said.contains("1 payloads are gone without an event"), "{said}");
    Connection::open(record.database()).unwrap().execute_batch("UPDATE session_keys SET wrapped = NULL").unwrap();
    let said = notes(&record);
    assert!(said.contains("of these, 1 without an event"), "{said}");
}

/// The files of the state folder that hold these bytes.
fn files_with(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if std::fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn an_erased_key_is_in_no_file_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path(), None);
    let journal = record.journal("worker-0").unwrap();
    let session = SessionId::new();
    let operation = keep(&record, &journal, session);
    let hex: String = Connection::open(record.database())
        .unwrap()
        .query_row("SELECT lower(hex(wrapped)) FROM session_keys", [], |row| row.get(0))
        .unwrap();
    let key = unhex(&hex).unwrap();
    assert_eq!(files_with(dir.path(), hex.as_bytes()).len(), 1, "in the journal");
    assert!(!files_with(dir.path(), &key).is_empty(), "in the database");

    tell(&record, &journal, What::SessionErased { session, uid: 0, pid: 1 });
    assert!(matches!(record.content(operation), Err(QueryError::Erased(_))));
    // A reader that was in the way is gone by now, or the next try comes in a second.
    let begin = std::time::Instant::now();
    loop {
        let found = [files_with(dir.path(), &key), files_with(dir.path(), hex.as_bytes())].concat();
        if found.is_empty() {
            break;
        }
        assert!(begin.elapsed() < SOON, "{found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    // What comes later of the session can't be read either, and the journal still works.
    let late = keep(&record, &journal, session);
    assert!(matches!(record.content(late), Err(QueryError::Erased(_))));
    assert!(notes(&record).contains("the keys of 1 sessions were erased"));
    drop(journal);
    drop(record);
    assert_eq!(verify(&dir.path().join("record.db")).unwrap().fault, None);
}

#[test]
fn dividing_pages_leaves_nothing_of_keys_that_are_erased_later() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path(), None);
    let journal = record.journal("worker-0").unwrap();
    let sessions: Vec<SessionId> = (0..100).map(|_| SessionId::new()).collect();
    for session in &sessions {
        let _operation = keep(&record, &journal, *session);
    }
    let keys: Vec<Vec<u8>> = {
        let db = Connection::open(record.database()).unwrap();
        let mut all = db.prepare("SELECT wrapped FROM session_keys").unwrap();
        all.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(keys.len(), sessions.len());
    for session in sessions {
        let what = What::SessionErased { session, uid: 0, pid: 1 };
        let _recorded = journal.append(&Event { at: SystemClock.now(), what }).expect("it is recorded");
    }
    record.flush(SOON).expect("it is moved");
    drop(journal);
    let database = record.database().to_owned();
    drop(record);
    let file = std::fs::read(&database).unwrap();
    let is_there = |key: &&Vec<u8>| file.windows(key.len()).any(|window| window == key.as_slice());
    assert_eq!(keys.iter().filter(is_there).count(), 0, "a copy of the database has them");
    assert_eq!(verify(&database).unwrap().fault, None);
}

#[test]
fn a_held_session_is_not_erased_and_an_erased_key_does_not_come_back_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path(), None);
    let journal = record.journal("worker-0").unwrap();
    let session = SessionId::new();
    let operation = keep(&record, &journal, session);
    tell(&record, &journal, What::SessionHeld { session, held: true, uid: 0, pid: 1 });
    tell(&record, &journal, What::SessionErased { session, uid: 0, pid: 1 });
    assert!(record.content(operation).unwrap().is_some());
    let db = Connection::open(record.database()).unwrap();
    let wrapped: Vec<u8> = db.query_row("SELECT wrapped FROM session_keys", [], |row| row.get(0)).unwrap();
    tell(&record, &journal, What::SessionHeld { session, held: false, uid: 0, pid: 1 });
    tell(&record, &journal, What::SessionErased { session, uid: 0, pid: 1 });
    assert_eq!(verify(record.database()).unwrap().fault, None);
    db.execute("UPDATE session_keys SET wrapped = ?1", [wrapped]).unwrap();
    let fault = verify(record.database()).unwrap().fault.unwrap();
    assert!(fault.what.contains("was erased, and is there all the same"), "{fault:?}");
}

#[test]
fn payloads_that_are_older_than_the_configuration_keeps_them_go_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path(), None);
    let operation = keep(&record, &record.journal("worker-0").unwrap(), SessionId::new());
    drop(record);
    let record = open(dir.path(), Some(Duration::from_secs(3600)));
    record.flush(SOON).unwrap();
    assert!(record.content(operation).unwrap().is_some());
    assert_eq!(
        count(&record, "SELECT count(*) FROM events WHERE kind = 'record.pruned'"),
        0,
        "nothing, nothing to tell"
    );
    drop(record);
    std::thread::sleep(Duration::from_millis(20));
    let record = open(dir.path(), Some(Duration::from_millis(1)));
    record.flush(SOON).unwrap();
    pruned(&record);
    assert_eq!(record.content(operation).unwrap(), None);
    assert_eq!(count(&record, "SELECT count(*) FROM events WHERE kind = 'record.pruned'"), 1);
    assert!(!notes(&record).contains("without an event"));
}

#[test]
fn payloads_of_a_class_that_keeps_them_for_less_go_by_themselves_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path(), None);
    let journal = record.journal("worker-0").unwrap();
    let [short, long] = ["crm", "batch"].map(|workload| keep_of(&record, &journal, (workload, SessionId::new())));
    drop(journal);
    drop(record);
    std::thread::sleep(Duration::from_millis(20));
    let keep_payloads = Some(Duration::from_secs(3600));
    let keep_payloads_of = [("crm".parse().unwrap(), Duration::from_millis(1))].into();
    let settings = RecordSettings { keep_payloads, keep_payloads_of, ..settings() };
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).expect("the record opens");
    record.flush(SOON).unwrap();
    pruned(&record);
    assert_eq!(record.content(short).unwrap(), None);
    assert!(record.content(long).unwrap().is_some());
    let told = "FROM events WHERE kind = 'record.pruned'";
    assert_eq!(count(&record, &format!("SELECT count(*) {told}")), 1, "what finds nothing isn't told");
    assert_eq!(count(&record, &format!("SELECT body ->> '$.workloads[0]' = 'crm' {told}")), 1);
    assert!(!notes(&record).contains("without an event"));
}

#[test]
fn workloads_whose_class_says_it_keep_theirs_for_another_time() {
    let dir = tempfile::tempdir().unwrap();
    let of = |pairs: &[(&str, u64)]| {
        pairs.iter().map(|(name, hours)| (name.parse().unwrap(), Duration::from_secs(hours * 3600))).collect()
    };
    let keep_for = |keep_payloads, keep_payloads_of| {
        let settings = RecordSettings { keep_payloads, keep_payloads_of, ..settings() };
        Record::open(dir.path(), &settings, Arc::new(SystemClock)).expect("the record opens")
    };
    let record = keep_for(None, of(&[]));
    let journal = record.journal("worker-0").unwrap();
    for workload in ["crm", "crm", "batch", "other"] {
        keep_of(&record, &journal, (workload, SessionId::new()));
    }
    let left = |record: &Record| {
        pruned(record);
        let of = "SELECT group_concat(workload, ' ') FROM (SELECT workload FROM payloads p JOIN operations o
                  ON o.operation = p.operation ORDER BY workload)";
        let db = Connection::open(record.database()).unwrap();
        db.query_row(of, [], |row| row.get::<_, Option<String>>(0)).unwrap().unwrap_or_default()
    };
    // By hand: of some, then of all but some.
    let prune_of = |workloads: &[&str], others| What::RecordPruned {
        before: later(),
        workloads: workloads.iter().map(|name| name.parse().unwrap()).collect(),
        others,
        uid: None,
        pid: None,
    };
    tell(&record, &journal, prune_of(&["batch"], false));
    assert_eq!(left(&record), "crm crm other");
    tell(&record, &journal, prune_of(&["crm"], true));
    assert_eq!(left(&record), "crm crm");
    let said = notes(&record);
    assert!(said.contains("2 payloads aren't there any more") && !said.contains("without an event"), "{said}");
    // What is pruned of some explains nothing that is missing of others.
    Connection::open(record.database()).unwrap().execute_batch("DELETE FROM payloads").unwrap();
    assert!(notes(&record).contains("2 payloads are gone without an event"));
}

#[test]
fn the_settings_ask_for_each_time_once() {
    let hours = |count: u64| Duration::from_secs(count * 3600);
    let name = |text: &str| text.parse::<WorkloadName>().unwrap();
    let of = [(name("a"), hours(2)), (name("b"), hours(5)), (name("c"), hours(2))].into();
    let settings = RecordSettings { keep_payloads: Some(hours(9)), keep_payloads_of: of, ..settings() };
    let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
    let asked: Vec<_> = Keep::of(&settings)
        .iter()
        .map(|keep| match keep.event(now) {
            What::RecordPruned { before, workloads, others, .. } => {
                let names: Vec<_> = workloads.iter().map(WorkloadName::as_str).collect();
                format!("{before:.0} {} {others}", names.join("+"))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        asked,
        ["2026-11-25T10:00:00Z a+c false", "2026-11-25T07:00:00Z b false", "2026-11-25T03:00:00Z a+b+c true"]
    );
    let without = RecordSettings { keep_payloads: None, keep_payloads_of: Default::default(), ..settings };
    assert!(Keep::of(&without).is_empty());
}
